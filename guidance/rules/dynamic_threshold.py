r"""Guidance whose picture stays within the range of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.modifier import Modifier
from ..algebra.weights import as_number
from ..denoiser.evaluator import Evaluator
from ..errors import GuidanceError
from ..samplewise import per_sample


@dataclass(frozen=True, eq=False, repr=False)
class DynamicThreshold(Modifier):
    r"""Any guidance, with the largest values of each sample's picture brought into the data's range.

    Defined in :math:`D`, with the quantile :math:`q` over each sample:

    .. math:: D = \frac{r}{t} \, \min(t, \max(-t, g)), \qquad t = \max(r, q(|g|))

    Args:
        guidance: What is bounded.
        quantile: The share of the values that are within :math:`t`.
        range: The largest absolute value :math:`r` of the data: 1 for pictures in [-1, 1], as in the paper. A
            latent space has another.

    Raises:
        GuidanceError: If `guidance` is not a guidance, or another argument is not a number within its bounds.

    References:
        | Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding (Saharia et al., 2022),
        | section 2.3, https://arxiv.org/abs/2205.11487
    """

    guidance: Guidance
    quantile: float = 0.995
    range: float = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        as_number(self.quantile, "the quantile of DynamicThreshold", 0, 1)
        if as_number(self.range, "the range of DynamicThreshold") <= 0:
            raise GuidanceError(f"the range of DynamicThreshold is above 0, not {self.range}")

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        guided, most = self.guidance.denoised(evaluate, x, sigma), float(self.range)
        quantile = torch.quantile(guided.abs().flatten(1), float(self.quantile), dim=1)
        threshold = per_sample(quantile.clamp(min=most), guided)
        return guided.clamp(-threshold, threshold) * (most / threshold)
