r"""The evaluations of one call of a guided denoiser, in as few forwards as may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from ..errors import GuidanceError
from .conditions import Conditions
from .evaluator import CachingEvaluator, Memory

Execution = Literal["batched", "sequential"] | int


class Batch(CachingEvaluator):
    r"""The evaluator of one call.

    Args:
        denoiser: What is evaluated.
        execution: How much goes into one forward.
        conditions: The conditions of the call, for its batch size.
        memory: What lasts from one call to the next.
    """

    def __init__(
        self, denoiser: Callable[..., Tensor], execution: Execution, conditions: Conditions, memory: Memory
    ) -> None:
        super().__init__(conditions.aliases, memory)
        self.denoiser = denoiser
        self.execution = execution
        self.conditions = conditions
        self.forwards = 0
        self.predictions: dict[str, Tensor] = {}
        r"""The last prediction of each condition :math:`(B, ...)`."""

    def predict(self, names: list[str], x: Tensor, sigma: Tensor) -> Mapping[str, Tensor]:
        found: dict[str, Tensor] = {}
        for group in self.conditions.groups(names):
            found.update(zip(group, self._evaluate(group, x, sigma), strict=True))
        self.predictions.update(found)
        return found

    def _evaluate(self, group: list[str], x: Tensor, sigma: Tensor) -> Iterable[Tensor]:
        count = len(group)
        if count > 1:
            x, sigma = x.repeat(count, *[1] * (x.ndim - 1)), sigma.repeat(count)
        most = self.execution
        if not isinstance(most, int):
            most = len(x) if most == "batched" else len(x) // count
        parts = []
        for start in range(0, len(x), most):
            rows = slice(start, start + most)
            part = self.denoiser(x[rows], sigma[rows], **self.conditions.rows(group, rows))
            self.forwards += 1
            if not isinstance(part, Tensor) or part.shape != x[rows].shape:
                what = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
                raise GuidanceError(f"the denoiser returned {what} for x of shape {tuple(x[rows].shape)}")
            parts.append(part.to(torch.promote_types(part.dtype, torch.float32)))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).chunk(count)
