r"""The negative that maximises the distance to the prompt, without the context that makes it proper."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.plan import at
from ..algebra.weights import Scale
from ..denoiser.evaluator import Evaluator
from ..samplewise import dot, from_noise, ratio, to_noise


@dataclass(frozen=True, eq=False, repr=False)
class ImproperNegative(Guidance):
    r"""Sampling by the analytic negative of eq. 15 alone. It is here to be compared with :class:`DNS`.

    Defined in :math:`\epsilon`, with the norm over each sample:

    .. math:: \hat\epsilon = -\sqrt{K} \, \frac{\epsilon_p}{\|\epsilon_p\|}

    It is the noise prediction of norm :math:`\sqrt K` farthest from the prompt's. Its density is
    :math:`1 / p_\theta(z_t | p)` (eq. 16), which cannot be normalised: the samples leave the data, and grow
    without bound. In :math:`D` or :math:`v` the formula would be another one.

    Args:
        norm: The norm :math:`\sqrt K`, None for that of :math:`\epsilon_p`, which gives :math:`-\epsilon_p`.

    Raises:
        GuidanceError: If `norm` is not a :class:`Scale`.

    References:
        | Eq. 15 and 16 of the DNP paper.
    """

    norm: Scale | None = None

    names = ("prompt",)

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        noise = to_noise(evaluate(self.names, x, sigma)["prompt"], x, sigma)
        if self.norm is not None:
            noise = ratio(at(self.norm, x, sigma) * noise, dot(noise, noise).sqrt())
        return from_noise(-noise, x, sigma)
