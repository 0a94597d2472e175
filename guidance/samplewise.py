r"""What rules share that are no weighted sum: the spaces they are defined in, and sums over each sample.

With :math:`x = x_0 + \sigma \epsilon`, a prediction of the denoised :math:`D` is one of the noise
:math:`\epsilon = (x - D) / \sigma`, of the variance-preserving models' :math:`v`, and of the velocity
:math:`\epsilon - D` of the straight path :math:`(1 - t) x_0 + t \epsilon`, :math:`\sigma = t / (1 - t)`, of flow
matching. Shapes: predictions and `x` are
:math:`(B, ...)`, `sigma` is :math:`(B)`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .host import peek


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
    r"""Flow matching's velocity from :math:`D`."""
    return to_noise(denoised, x, sigma) - denoised


def from_velocity(velocity: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    r""":math:`D` from flow matching's velocity."""
    level = per_sample(sigma, x)
    return (x - level * velocity) / (1 + level)


def to_v(denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    r""":math:`v = (\epsilon - \sigma D) / \sqrt{1 + \sigma^2}` from :math:`D`."""
    level = per_sample(sigma, x)
    return (to_noise(denoised, x, sigma) - level * denoised) / (1 + level**2).sqrt()


def from_v(v: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    r""":math:`D` from :math:`v`."""
    level = per_sample(sigma, x)
    return x / (1 + level**2) - level / (1 + level**2).sqrt() * v


SPACES = {"epsilon": (to_noise, from_noise), "v": (to_v, from_v), "flow": (to_velocity, from_velocity)}
r"""How to come from :math:`D` to what a model predicts, and back."""


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


def evidence(x: Tensor, sigma: Tensor, y: Tensor, level: Tensor, u: Tensor, c: Tensor) -> Tensor:
    r"""How much less likely a condition makes a step than no condition does, in the chain of DDPM.

    .. math:: \frac{\|x - \mu_c\|^2 - \|x - \mu_u\|^2}{2 v}, \qquad
        \mu = \frac{\sigma^2}{\sigma'^2} y + \big(1 - \frac{\sigma^2}{\sigma'^2}\big) D(y), \qquad
        v = \sigma^2 \big(1 - \frac{\sigma^2}{\sigma'^2}\big)

    Args:
        x: The samples :math:`(B, ...)` at `sigma` :math:`(B)`.
        y: The samples :math:`(B, ...)` at `level` :math:`(B)`, :math:`\sigma'`, the step before.
        u: The prediction :math:`D_u(y)` :math:`(B, ...)` without the condition.
        c: The prediction :math:`D_c(y)` :math:`(B, ...)` with it.

    Returns:
        The log ratio :math:`(B)`, 0 for samples whose noise level did not change.
    """
    kept = (sigma / level) ** 2
    share, shrunk = per_sample(kept, x), per_sample(1 - kept, x)
    # ‖x − μ_c‖² − ‖x − μ_u‖² without the difference of two large numbers.
    difference = dot(shrunk * (u - c), 2 * (x - share * y) - shrunk * (u + c)).flatten()
    variance = 2 * sigma**2 * (1 - kept)
    return difference / torch.where(variance > 0, variance, torch.inf)


def choose(where: Tensor, yes: Callable[[], Tensor], no: Callable[[], Tensor]) -> Tensor:
    r"""One of two predictions :math:`(B, ...)` for each sample; what no sample needs is not evaluated.

    Args:
        where: Where the first is chosen :math:`(B)`. Made of :func:`on_host`'s noise levels, it costs no wait.
        yes: Gives the first prediction.
        no: Gives the second. While compiling and in vmap, both are evaluated.
    """
    known = peek(where)
    if known is not None and all(known):
        return yes()
    if known is not None and not any(known):
        return no()
    chosen = yes()
    return torch.where(per_sample(where.to(chosen.device), chosen), chosen, no())
