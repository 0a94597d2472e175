r"""Rectified flow as a k-diffusion denoiser.

A flow model predicts the velocity :math:`v = n - x_0` on the straight path :math:`z_t = (1 - t) x_0 + t n`. With

.. math:: \sigma = \frac{t}{1 - t}, \qquad x = \frac{z_t}{1 - t} = x_0 + \sigma n, \qquad D = z_t - t \, v(z_t, t)

the state is k-diffusion's own, so every sampler holds as it is, the ancestral and stochastic ones too. (With
:math:`\sigma = t`, another convention, those lose the standard deviation of the data.) :math:`D` and :math:`v` are
affine in each other, so that a guidance means the same in both.

References:
    | Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024),
    | https://arxiv.org/abs/2403.03206
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dnp.errors import DNPError

Table = Callable[[int], Tensor]
r"""Number of steps N → the times (N), falling from 1."""

FIRST = 1 - 2**-15
r"""The time that stands for 1, where :math:`\sigma` would be infinite. A walk from it differs from one from 1 by about
3e-5 of its result. Nearer to 1, the first step is so long that float32 loses more than that."""
FIRST_IN_FLOAT64 = 1 - 2**-22
r"""The same for a walk in float64 (noise and noise levels), where less than 1e-6 is lost."""


class FlowDenoiser(nn.Module):
    r"""`model(x, sigma, **condition) -> denoised` of a network that predicts the velocity.

    Args:
        velocity: Called with :math:`z` :math:`(B, C, H, W)`, :math:`t` :math:`(B)` and the condition; gives
            :math:`v` :math:`(B, C, H, W)`.
        table: The times of N steps, for :meth:`get_sigmas`, which is the schedule "model".
        first: The time that stands for 1.
    """

    def __init__(self, velocity: Callable[..., Tensor], table: Table, first: float = FIRST) -> None:
        super().__init__()
        self.velocity, self.table, self.first = velocity, table, first
        self.sigma_max: float = first / (1 - first)
        self.sigma_min: float = self.t_to_sigma(table(1000)[-1:]).item()

    def forward(self, x: Tensor, sigma: Tensor, attention: Any = None, **condition: Any) -> Tensor:
        r"""The denoised samples :math:`(B, C, H, W)` at `x` :math:`(B, C, H, W)` and `sigma` :math:`(B)`.

        Raises:
            DNPError: A condition asks for another `attention`.
        """
        if attention is not None:
            raise DNPError(f"the attention {attention!r} is for U-Nets: the transformers of flow models do not take it")
        level = sigma.view(-1, *[1] * (x.ndim - 1))
        z, t = x / (1 + level), level / (1 + level)
        return z - t * self.velocity(z, t.flatten(), **condition)

    def get_sigmas(self, n: int) -> Tensor:
        r"""The noise levels :math:`(n + 1)` of the model's own table, and 0."""
        return torch.cat([self.t_to_sigma(self.table(n)), torch.zeros(1)])

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        r"""The time of a noise level."""
        return sigma / (1 + sigma)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        r"""The noise level of a time, of `first` for times after it."""
        t = t.double().clamp(max=self.first)
        return (t / (1 - t)).float()


class SD3Velocity(nn.Module):
    """Stable Diffusion 3's transformer, called with `encoder_hidden_states` and `pooled_projections`."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, z: Tensor, t: Tensor, **condition: Any) -> Tensor:
        dtype = next(self.transformer.parameters()).dtype
        return self.transformer(z.to(dtype), timestep=1000 * t, **condition, return_dict=False)[0].to(z.dtype)


class FluxVelocity(nn.Module):
    """Flux's transformer, which takes 2×2 patches of the latents, called with `encoder_hidden_states`,
    `pooled_projections` and, if it was distilled for one, `guidance` (B), the embedded scale."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, z: Tensor, t: Tensor, *, encoder_hidden_states: Tensor, **condition: Any) -> Tensor:
        dtype = next(self.transformer.parameters()).dtype
        height, width = z.shape[-2] // 2, z.shape[-1] // 2
        rows, columns = torch.arange(height, device=z.device), torch.arange(width, device=z.device)
        places = torch.cartesian_prod(torch.zeros(1, device=z.device), rows.float(), columns.float())
        v = self.transformer(
            pack(z).to(dtype),
            encoder_hidden_states=encoder_hidden_states,
            timestep=t.to(dtype),
            img_ids=places.to(dtype),
            txt_ids=torch.zeros(encoder_hidden_states.shape[1], 3, device=z.device, dtype=dtype),
            **condition,
            return_dict=False,
        )[0]
        return unpack(v, height, width).to(z.dtype)


def pack(z: Tensor) -> Tensor:
    """Latents (B, C, 2h, 2w) → their 2×2 patches (B, h·w, 4C)."""
    return nn.functional.pixel_unshuffle(z, 2).flatten(2).mT


def unpack(patches: Tensor, height: int, width: int) -> Tensor:
    """Patches (B, h·w, 4C) → latents (B, C, 2h, 2w)."""
    return nn.functional.pixel_shuffle(patches.mT.unflatten(2, (height, width)), 2)
