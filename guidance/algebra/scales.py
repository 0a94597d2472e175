r"""Scales that change with the noise level, by name: usable wherever a scale is, and written as text."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import GuidanceError
from .notation import scalar
from .weights import Scale, Schedule, as_number, as_weight


@dataclass(frozen=True, repr=False)
class _Named(Schedule):
    r"""A schedule from one scale at high noise to another at low noise, as in ``CFG(StepScale(0, 7.5, 3))``."""

    first: Scale
    last: Scale

    numbers: ClassVar[dict[str, float]]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, what = getattr(self, field.name), f"{field.name} of {type(self).__name__}"
            if as_number(value, what) <= 0 and field.name not in ("first", "last"):
                raise GuidanceError(f"{what} is a noise level above 0, not {value}")
            if isinstance(value, Tensor):
                value = value.item()
            vars(self)[field.name] = as_weight(value).constant  # so that 0.1 and 1/10 are the same
        vars(self)["numbers"] = {field.name: float(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @abstractmethod
    def share(self, sigma: Tensor) -> Tensor:
        r"""The weight of `last` at `sigma`, from 0 at high noise to 1 at low noise."""

    def __call__(self, sigma: Tensor) -> Tensor:
        # lerp gives both ends exactly, so that a scale of 0 there costs nothing.
        first, last = (torch.full_like(sigma, self.numbers[end]) for end in ("first", "last"))
        return torch.lerp(first, last, self.share(sigma))

    def __str__(self) -> str:
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return f"{type(self).__name__}({', '.join(''.join(scalar(as_weight(value), {})) for value in values)})"

    __repr__ = __str__


@dataclass(frozen=True, repr=False)
class LinearScale(_Named):
    r"""Linear in :math:`\ln \sigma`, which falls about evenly over the steps of the usual schedules.

    .. math:: s = a + (b - a) f, \qquad
        f = \min(1, \max(0, \frac{\ln \sigma_\text{high} - \ln \sigma}{\ln \sigma_\text{high} - \ln \sigma_\text{low}}))

    The papers' schedules run over the steps; a guidance sees only :math:`\sigma`, so this choice is ours.

    Args:
        first: The scale :math:`a` at `high` and above.
        last: The scale :math:`b` at `low` and below.
        high: The noise level where it begins to change.
        low: The noise level where it stops changing.

    Raises:
        GuidanceError: If a scale is not a number, or `high` is not above `low`.

    References:
        | Analysis of Classifier-Free Guidance Weight Schedulers (Wang et al., 2024),
        | https://arxiv.org/abs/2404.13040
    """

    high: float
    low: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.high > self.low:
            raise GuidanceError(f"{type(self).__name__} falls from high to low: {self.high} is not above {self.low}")

    def share(self, sigma: Tensor) -> Tensor:
        high, low = math.log(self.numbers["high"]), math.log(self.numbers["low"])
        return ((high - sigma.log()) / (high - low)).clamp(0, 1)


@dataclass(frozen=True, repr=False)
class CosineScale(LinearScale):
    r"""Half a cosine wave in :math:`\ln \sigma`: :class:`LinearScale` of :math:`(1 - \cos \pi f) / 2`."""

    def share(self, sigma: Tensor) -> Tensor:
        return (1 - torch.cos(math.pi * super().share(sigma))) / 2


@dataclass(frozen=True, repr=False)
class StepScale(_Named):
    r"""One scale above a noise level, another at it and below: a negative prompt that starts late, or stops early.

    Args:
        first: The scale above `at`.
        last: The scale at `at` and below.
        at: The noise level of the step.

    Raises:
        GuidanceError: If an argument is not a number, or `at` is not above 0.
    """

    at: float

    def share(self, sigma: Tensor) -> Tensor:
        return (sigma <= self.numbers["at"]).to(sigma)


def schedules() -> dict[str, type[Schedule]]:
    r"""The schedules that a text may name."""
    return {kind.__name__: kind for kind in (CosineScale, LinearScale, StepScale)}
