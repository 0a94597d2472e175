r"""Scores of a sharper or flatter version of the data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.modifier import Modifier
from ..algebra.weights import as_number
from ..denoiser.evaluator import Evaluator
from ..errors import GuidanceError
from ..samplewise import per_sample


@dataclass(frozen=True, eq=False, repr=False)
class TemporalScoreRescaling(Modifier):
    r"""Any guidance, its score scaled as that of Gaussian data whose variance is divided by :math:`k`.

    .. math:: \hat\epsilon = \frac{\sigma_d^2 + \sigma^2}{\sigma_d^2 / k + \sigma^2} \, \epsilon_g

    For Gaussian data of deviation :math:`\sigma_d` it is exact at all noise levels. The paper's form is
    :math:`(\eta \sigma_d^2 + 1) / (\eta \sigma_d^2 / k + 1)`, with :math:`\eta = 1 / \sigma^2`.

    Args:
        guidance: What is scaled.
        k: Above 1 the samples are nearer to the modes, below 1 more diverse; 1 changes nothing.
        deviation: The deviation :math:`\sigma_d`; larger ones act at higher noise levels.

    Raises:
        GuidanceError: If `guidance` is not a guidance, or `k` or `deviation` is not a number above 0.

    References:
        | Temporal Score Rescaling for Temperature Sampling in Diffusion and Flow Models (Xu et al., 2025),
        | https://arxiv.org/abs/2510.01184
    """

    guidance: Guidance
    k: float
    deviation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("k", "deviation"):
            if as_number(getattr(self, name), f"{name} of TemporalScoreRescaling") <= 0:
                raise GuidanceError(f"{name} of TemporalScoreRescaling is above 0, not {getattr(self, name)}")

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        data, noise = float(self.deviation) ** 2, sigma**2
        factor = (data + noise) / (data / float(self.k) + noise)
        return x - per_sample(factor, x) * (x - self.guidance.denoised(evaluate, x, sigma))
