r"""What the rules share that are no weighted sum: the spaces they are defined in, and sums over each sample.

With :math:`x = x_0 + \sigma \epsilon`, a prediction of the denoised :math:`D` is one of the noise
:math:`\epsilon = (x - D) / \sigma` and of the velocity :math:`v = \epsilon - D` of the straight path
:math:`(1 - t) x_0 + t \epsilon`, :math:`\sigma = t / (1 - t)`, of flow matching.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def per_sample(value: Tensor, x: Tensor) -> Tensor:
    r"""Values :math:`(B)` in the shape :math:`(B, 1, ...)` of `x`."""
    return value.view(-1, *[1] * (x.ndim - 1))


def to_noise(denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    r""":math:`\epsilon` from :math:`D`."""
    return (x - denoised) / per_sample(sigma, x)


def from_noise(noise: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    r""":math:`D` from :math:`\epsilon`."""
    return x - per_sample(sigma, x) * noise


def to_velocity(denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    r""":math:`v` from :math:`D`."""
    return to_noise(denoised, x, sigma) - denoised


def from_velocity(velocity: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    r""":math:`D` from :math:`v`."""
    level = per_sample(sigma, x)
    return (x - level * velocity) / (1 + level)


def dot(a: Tensor, b: Tensor) -> Tensor:
    r"""The inner product :math:`(B, 1, ...)` of each sample with its own."""
    return per_sample((a * b).flatten(1).sum(1), a)


def moments(a: Tensor) -> tuple[Tensor, Tensor]:
    r"""The mean and the standard deviation of each sample, both :math:`(B, 1, ...)`."""
    std, mean = torch.std_mean(a.flatten(1), dim=1)
    return per_sample(mean, a), per_sample(std, a)


def ratio(a: Tensor, b: Tensor, otherwise: float = 0.0) -> Tensor:
    r""":math:`a / b`, or `otherwise` where :math:`b` is 0, as between predictions that are the same."""
    return torch.where(b == 0, otherwise, a / torch.where(b == 0, 1.0, b))


def choose(where: Tensor, yes: Callable[[], Tensor], no: Callable[[], Tensor]) -> Tensor:
    r"""One of two predictions for each sample, by `where` :math:`(B)`; what no sample needs is not evaluated."""
    if where.all():
        return yes()
    if not where.any():
        return no()
    chosen = yes()
    return torch.where(per_sample(where, chosen), chosen, no())
