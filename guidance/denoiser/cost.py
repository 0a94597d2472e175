r"""What a rule costs, counted before it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .conditions import Conditions
from .evaluator import CachingEvaluator, Memory, Rule


def cost(rule: Rule, sigmas: Tensor | Sequence[float], shape: Sequence[int], conditions: Mapping[str, Any]) -> int:
    r"""How many predictions per sample a run over `sigmas` evaluates, with one denoiser call at each.

    Args:
        rule: What is run, with an evaluator that only counts.
        sigmas: The noise levels :math:`(N)`; a zero at the end is not counted.
        shape: The shape :math:`(B, C, H, W)` of the samples, 1 where any will do.
        conditions: If given, those that are the same are counted once.
    """
    aliases = Conditions({name: value for name, value in conditions.items() if isinstance(value, Mapping)}).aliases
    memory, count = Memory(), 0
    shape = (shape[0], *(8 if size == 1 else size for size in shape[1:]))
    x = torch.linspace(-1, 1, math.prod(shape)).view(shape)
    for sigma in torch.as_tensor(sigmas).flatten() + 0.0:  # whole numbers too are noise levels
        if sigma > 0:
            counter = _Counter(aliases, memory)
            rule.denoised(counter, x.to(sigma.device), sigma.expand(len(x)))
            count += counter.count
    return count


class _Counter(CachingEvaluator):
    r"""An evaluator that only counts what it is asked, and answers with `x`."""

    def predict(self, names: list[str], x: Tensor, sigma: Tensor) -> Mapping[str, Tensor]:
        return dict.fromkeys(names, x)
