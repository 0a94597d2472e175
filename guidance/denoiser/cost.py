r"""What a rule costs, counted before it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .conditions import Conditions
from .evaluator import CachingEvaluator, Memory, Rule


def cost(
    rule: Rule, sigmas: Tensor | Sequence[float], samples: int = 1, conditions: Mapping[str, Mapping[str, Any]] = {}
) -> int:
    r"""How many predictions per sample a run over `sigmas` evaluates, with one denoiser call at each.

    Args:
        rule: What is run, with an evaluator that only counts.
        sigmas: The noise levels :math:`(N)`; a zero at the end is not counted.
        samples: The batch size :math:`B`.
        conditions: If given, those that are the same are counted once.
    """
    aliases = Conditions(conditions).aliases
    memory, count = Memory(), 0
    x = torch.linspace(-1, 1, samples * 64).view(samples, 1, 8, 8)
    for sigma in torch.as_tensor(sigmas).flatten() + 0.0:  # whole numbers too are noise levels
        if sigma > 0:
            counter = _Counter(aliases, memory)
            rule.denoised(counter, x.to(sigma.device), sigma.expand(samples))
            count += counter.count
    return count


class _Counter(CachingEvaluator):
    r"""An evaluator that only counts what it is asked, and answers with `x`."""

    def predict(self, names: list[str], x: Tensor, sigma: Tensor) -> Mapping[str, Tensor]:
        return dict.fromkeys(names, x)
