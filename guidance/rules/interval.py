r"""Guidance at some noise levels only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.modifier import Modifier
from ..algebra.weights import as_number
from ..denoiser.evaluator import Evaluator
from ..errors import GuidanceError
from ..host import on_host
from ..samplewise import choose


@dataclass(frozen=True, eq=False, repr=False)
class Interval(Modifier):
    r"""Any guidance where :math:`\sigma` is within bounds, and the plain prompt elsewhere, at one evaluation.

    .. math:: \hat\epsilon = g \text{ where } \sigma_\text{low} < \sigma \le \sigma_\text{high},
        \qquad \hat\epsilon = \epsilon_p \text{ elsewhere}

    It is the whole guidance that stops, not the weight of a part of it: a tool that drops only the negative
    prompt there is left with :math:`s \, \epsilon_p`. Use a :class:`StepScale` for a part.

    In fractions of the steps: ``Interval(CFG(7.5), *bounds(sigmas, 0.2, 0.8))``.

    Args:
        guidance: What holds within the bounds.
        low: The noise level above which it begins, outside of it as in the paper.
        high: The highest noise level, inside; None for no limit.

    Raises:
        GuidanceError: If `guidance` is not a guidance, or the bounds are not two numbers in order.

    References:
        | Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models
        | (Kynkäänniemi et al., 2024), https://arxiv.org/abs/2404.07724
    """

    guidance: Guidance
    low: float = 0
    high: float | None = None

    needs = ("prompt",)

    def __post_init__(self) -> None:
        super().__post_init__()
        low = as_number(self.low, "low of Interval", 0)
        if self.high is not None and as_number(self.high, "high of Interval") < low:
            raise GuidanceError(f"an Interval from {self.low} to {self.high} is empty: low comes first, as sigma")

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        if not self.low and self.high is None:
            return self.guidance.denoised(evaluate, x, sigma)
        level, high = on_host(sigma), torch.inf if self.high is None else float(self.high)
        return choose(
            (level > float(self.low)) & (level <= high),
            lambda: self.guidance.denoised(evaluate, x, sigma),
            lambda: evaluate(("prompt",), x, sigma)["prompt"],
        )


def bounds(sigmas: Tensor | Sequence[float], start: float = 0, stop: float = 1) -> tuple[float, float | None]:
    r"""The noise levels :math:`\sigma_\text{low}, \sigma_\text{high}` of a part of the steps.

    Of :math:`N` steps those from :math:`\lfloor N \cdot \text{start} \rfloor` to before
    :math:`\lfloor N \cdot \text{stop} \rfloor`, as diffusers' guiders count them. A bound lies halfway, in
    :math:`\ln \sigma`, between two levels, so that rounding moves no step across it. A denoiser sees no step, hence
    the schedule is needed here; `high` is also where a :class:`StepScale` has its step after `start`.

    Args:
        sigmas: The noise levels of the schedule :math:`(N + 1)`; a zero at its end is no step.
        start: Where it begins, a fraction of the steps.
        stop: Where it ends.

    Raises:
        GuidanceError: If the fractions are not in order from 0 to 1, or hold no step.
    """
    levels = torch.as_tensor(sigmas, dtype=torch.float64).flatten()
    steps = len(levels) - 1
    first, last = int(start * steps), int(stop * steps)
    if not 0 <= start < stop <= 1 or first == last:
        raise GuidanceError(f"from {start} to {stop} of {steps} steps there is none: give fractions from 0 to 1")
    between = (levels[1:] * levels[:-1]).sqrt()
    return (0.0 if last == steps else float(between[last - 1])), (float(between[first - 1]) if first else None)
