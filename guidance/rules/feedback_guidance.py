r"""Guidance that is stronger, the less the samples already follow the prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.weights import as_number
from ..denoiser.evaluator import Evaluator
from ..errors import GuidanceError
from ..samplewise import evidence, per_sample

_HIGHEST = 3.0


@dataclass(frozen=True, eq=False, repr=False)
class FeedbackGuidance(Guidance):
    r"""Feedback guidance, whose scale follows a running log posterior :math:`\ell` of the prompt.

    .. math:: \hat\epsilon = u + \lambda \, (p - u), \qquad \lambda = \frac{e^\ell}{e^\ell - (1 - \pi)}

    .. math:: \ell \leftarrow \operatorname{clamp}\Big(\ell
        - \tau \, \frac{\|x_\sigma - \mu_p\|^2 - \|x_\sigma - \mu_u\|^2}{2 v} + \delta, \;
        \ln \frac{(1 - \pi) \lambda_\text{max}}{\lambda_\text{max} - 1}, \; 3\Big)

    The combination is the same in :math:`\epsilon`, :math:`D` and :math:`v`; the means :math:`\mu` and the variance
    :math:`v` are those of :class:`DynamicNegative`, for each sample by itself. A run begins with :math:`\ell = 0`, that
    is :math:`\lambda = 1/\pi`.

    Args:
        pi: How well the model's own conditional distribution fits the data, :math:`0 < \pi < 1`.
        temperature: The factor :math:`\tau` of the evidence of each step; the default is ours.
        offset: What is added at each step, :math:`\delta`: below 0 the scale grows by itself.
        most: The largest scale :math:`\lambda_\text{max}`.

    Raises:
        GuidanceError: If an argument is not a number within its bounds.

    References:
        | Feedback Guidance of Diffusion Models (Koulischer et al., 2025), https://arxiv.org/abs/2506.06085
    """

    pi: float = 0.999
    temperature: float = 0.2
    offset: float = 0.0
    most: float = 15.0

    names = ("empty", "prompt")

    def __post_init__(self) -> None:
        super().__post_init__()
        as_number(self.temperature, "the temperature of FeedbackGuidance", 0)
        as_number(self.offset, "the offset of FeedbackGuidance")
        if not 0 < as_number(self.pi, "pi of FeedbackGuidance") < 1:
            raise GuidanceError(f"pi of FeedbackGuidance is between 0 and 1, not {self.pi}")
        if as_number(self.most, "most of FeedbackGuidance") <= 1:
            raise GuidanceError(f"the largest scale of FeedbackGuidance is above 1, not {self.most}")

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        u, p = evaluate(self.names, x, sigma).values()
        start = torch.zeros_like(sigma, dtype=u.dtype)
        # If there was no step before, its own level stands for that step's.
        before = evaluate.memory.before(self, sigma, (start, sigma, x, u, p))
        last, level, y, u_before, p_before = before
        told = evidence(x, sigma, y, level, u_before, p_before)
        moved = torch.where(level > sigma, float(self.offset) - float(self.temperature) * told, 0.0)
        rest, most = 1 - float(self.pi), float(self.most)
        posterior = (last + moved).clamp(math.log(rest * most / (most - 1)), _HIGHEST)
        evaluate.memory.keep(self, sigma, (posterior, sigma, x, u, p), before)
        scale = posterior.exp() / (posterior.exp() - rest)
        return u + per_sample(scale, x) * (p - u)
