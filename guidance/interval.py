r"""Guidance at some noise levels only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Guidance, wrapped
from .errors import GuidanceError
from .evaluator import Evaluator
from .formula import prediction
from .spaces import choose
from .weights import as_number


@dataclass(frozen=True, eq=False, repr=False)
class Interval(Guidance):
    r"""Any guidance where :math:`\sigma` is within bounds, and the plain prompt elsewhere, at one evaluation.

    .. math:: \hat\epsilon = g \text{ where } \sigma_\text{low} \le \sigma \le \sigma_\text{high},
        \qquad \hat\epsilon = \epsilon_p \text{ elsewhere}

    It is the whole guidance that stops, not the weight of a part of it: a tool that drops only the negative
    prompt there is left with :math:`s \, \epsilon_p`. Use a :class:`StepScale` for a part.

    Args:
        guidance: What holds within the bounds.
        low: The lowest noise level.
        high: The highest noise level, none if None.

    Raises:
        GuidanceError: Where it wraps no guidance, or the bounds are not two numbers in order.

    References:
        | Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models
        | (Kynkäänniemi et al., 2024), https://arxiv.org/abs/2404.07724
    """

    guidance: Guidance
    low: float = 0
    high: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        low = as_number(self.low, "low of Interval", 0)
        if self.high is not None and as_number(self.high, "high of Interval") < low:
            raise GuidanceError(f"an Interval from {self.low} to {self.high} is empty: low comes first, as sigma")

    @property
    def names(self) -> tuple[str, ...]:
        return wrapped(self.guidance, "Interval", "prompt")

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        high = torch.inf if self.high is None else float(self.high)
        return choose(
            (sigma >= float(self.low)) & (sigma <= high),
            lambda: self.guidance.denoised(evaluate, x, sigma),
            lambda: prediction("prompt").denoised(evaluate, x, sigma),
        )
