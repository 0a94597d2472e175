r"""Guidance with a scale for each frequency band."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..algebra.formula import Guidance
from ..algebra.plan import at
from ..algebra.weights import Scale
from ..denoiser.evaluator import Evaluator
from ..samplewise import dot, ratio

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


@dataclass(frozen=True, eq=False, repr=False)
class FDG(Guidance):
    r"""Frequency-decoupled guidance: one scale for the coarse half of the guidance, one for the fine half.

    The predictions are split by a Laplacian pyramid of two levels, :math:`D = U(L(D)) + H(D)`, with :math:`L` a blur
    (binomial, 5 × 5) and halving, and :math:`U` its way back:

    .. math:: \hat D_k = D_{u,k} + s_k \, (\Delta_k^\perp + w \, \Delta_k^\parallel), \qquad
        \Delta_k = D_{p,k} - D_{u,k} \text{ split along } D_{p,k}, \qquad k \in \{\text{low}, \text{high}\}

    At :math:`w = 1`, the paper's choice, it is the same in :math:`\epsilon`, :math:`D` and :math:`v`; otherwise it is
    defined in :math:`D`. Equal scales and :math:`w = 1` are :class:`CFG`.

    Args:
        high: The scale of the fine half.
        low: The scale of the coarse half; the paper takes a lower one.
        parallel: The share :math:`w` of the parallel part; the paper fixes it at 1 (which is not written).

    Raises:
        GuidanceError: If an argument is not a :class:`Scale`.

    References:
        | Guidance in the Frequency Domain Enables High-Fidelity Sampling at Low CFG Scales
        | (Sadat, Vontobel, Salehi and Weber, 2025), https://arxiv.org/abs/2506.19713
    """

    high: Scale
    low: Scale
    parallel: Scale = 1

    names = ("empty", "prompt")
    fixed = ("parallel",)

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        u, p = evaluate(self.names, x, sigma).values()
        share = at(self.parallel, x, sigma)
        (u_low, u_high), (p_low, p_high) = split(u), split(p)

        def band(scale: Scale, u: Tensor, p: Tensor) -> Tensor:
            change = p - u
            along = ratio(dot(change, p), dot(p, p)) * p
            return u + at(scale, x, sigma) * (change + (share - 1) * along)

        return up(band(self.low, u_low, p_low), x) + band(self.high, u_high, p_high)


def split(image: Tensor) -> tuple[Tensor, Tensor]:
    r"""The coarse half :math:`(B, C, \lceil H/2 \rceil, \lceil W/2 \rceil)` and the fine half :math:`(B, C, H, W)`."""
    size = [(n + 1) // 2 for n in image.shape[-2:]]
    low = functional.interpolate(blur(image), size, mode="bilinear", align_corners=False)
    return low, image - up(low, image)


def up(low: Tensor, like: Tensor) -> Tensor:
    r"""A coarse half in the size :math:`(H, W)` of `like`."""
    return blur(functional.interpolate(low, like.shape[-2:], mode="bilinear", align_corners=False))


def blur(image: Tensor) -> Tensor:
    r"""The binomial blur of :math:`(B, C, H, W)`, its edges mirrored."""
    edges = "reflect" if min(image.shape[-2:]) > 2 else "replicate"
    kernel = torch.tensor(_BINOMIAL, dtype=image.dtype, device=image.device)
    channels = image.shape[1]
    padded = functional.pad(image, (2, 2, 2, 2), edges)
    rows = functional.conv2d(padded, kernel.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)
    return functional.conv2d(rows, kernel.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)
