r"""Walks that begin at a picture instead of at noise, and repaint all of it or a part.

The picture is given as latents :math:`z_0` of the same scale as those that the walk returns. It begins at
:math:`x = z_0 + \sigma_0 \epsilon`, at a noise level further down the schedule.

References:
    | SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations (Meng et al., 2022)
    | https://arxiv.org/abs/2108.01073

    | RePaint: Inpainting using Denoising Diffusion Probabilistic Models (Lugmayr et al., 2022)
    | https://arxiv.org/abs/2201.09865
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import SamplerError


def denoise_levels(sigmas: Tensor, share: float) -> Tensor:
    r"""The noise levels :math:`(M + 1)` of the last `share` of the steps of `sigmas` :math:`(N + 1)`, rounded down.

    Raises:
        SamplerError: If the share is not above 0 and at most 1, or too small for a single step.
    """
    steps = len(sigmas) - 1
    if not 0 < share <= 1:
        raise SamplerError(f"the share of the steps to denoise is above 0 and at most 1, not {share:g}")
    kept = int(steps * share + 1e-9)
    if not kept:
        raise SamplerError(f"{share:g} of {steps} steps is no step: use at least {1 / steps:.2g}, or more steps")
    return sigmas[steps - kept :]


@dataclass(frozen=True)
class Picture:
    r"""What a walk begins at.

    Args:
        latents: The picture :math:`z_0`, with shape :math:`(B, C, H, W)` or :math:`(1, C, H, W)`.
        mask: Where it is painted anew, from 0 (kept) to 1, with shape :math:`(B, 1, H, W)` or :math:`(1, 1, H, W)`;
            everywhere by default.

    Raises:
        SamplerError: If a shape does not fit, or the mask has values outside 0 to 1.
    """

    latents: Tensor
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mask is None:
            return
        expected = self.latents.shape[-2:]
        if self.mask.ndim != 4 or self.mask.shape[1] != 1 or self.mask.shape[-2:] != expected:
            raise SamplerError(
                f"the mask has the shape {tuple(self.mask.shape)}; for these latents it is (B, 1, {expected[0]}, "
                f"{expected[1]}) or (1, 1, {expected[0]}, {expected[1]})"
            )
        if not ((self.mask >= 0) & (self.mask <= 1)).all():
            raise SamplerError("the mask has values outside of 0 (kept) to 1 (painted anew)")

    def check(self, noise: Tensor) -> None:
        r"""Raises if it is not the picture of a walk from this noise :math:`(B, C, H, W)`."""
        if self.latents.shape[1:] != noise.shape[1:] or len(self.latents) not in (1, len(noise)):
            raise SamplerError(
                f"the picture's latents have the shape {tuple(self.latents.shape)}, the noise {tuple(noise.shape)}"
            )

    def at(self, level: float, noise: Tensor) -> Tensor:
        r"""The picture with noise :math:`(B, C, H, W)` of a level."""
        return self.latents.to(noise) + level * noise

    def keep(self, x: Tensor, level: float, noise: Tensor) -> Tensor:
        r"""The state with what is kept at this level's noise, of one :math:`\epsilon` for the whole walk."""
        if self.mask is None:
            return x
        return torch.lerp(self.at(level, noise), x, self.mask.to(x))
