r"""A smaller noise prediction, against exposure bias."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.modifier import Modifier
from ..algebra.plan import at
from ..algebra.weights import Scale
from ..denoiser.evaluator import Evaluator


@dataclass(frozen=True, eq=False, repr=False)
class EpsilonScaling(Modifier):
    r"""Any guidance, its noise prediction divided by a constant.

    Defined in :math:`\epsilon`: :math:`\hat\epsilon = \epsilon_g / \lambda`. Networks predict too much noise when
    sampling, since they see their own errors, which training did not show them.

    Args:
        guidance: What is scaled.
        factor: The divisor :math:`\lambda`, such as 1.005; 1 changes nothing.

    Raises:
        GuidanceError: If `guidance` is not a guidance, or `factor` is not a :class:`Scale`.

    References:
        | Elucidating the Exposure Bias in Diffusion Models (Ning et al., 2023), https://arxiv.org/abs/2308.15321
    """

    guidance: Guidance
    factor: Scale

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        return x - (x - self.guidance.denoised(evaluate, x, sigma)) / at(self.factor, x, sigma)
