r"""Negative prompting without what the negative shares with the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.plan import at, vanishes
from ..algebra.weights import Scale
from ..denoiser.evaluator import Evaluator
from ..samplewise import dot, ratio
from .cfg import CFG


@dataclass(frozen=True, eq=False, repr=False)
class PerpNeg(Guidance):
    r"""Guidance by the part of the negative prompt that is perpendicular to the prompt (Perp-Neg).

    .. math:: \hat\epsilon = u + s \, \Big(a - w \, \big(b - \frac{\langle a, b \rangle}{\|a\|^2} a\big)\Big),
        \qquad a = p - u, \quad b = n - u

    It is the same in :math:`\epsilon`, :math:`D` and :math:`v`, of which all differences are multiples of each
    other. The products are over each sample: tools that sum them over the batch let its samples influence each
    other. If prompt and empty prompt are the same, there is nothing to be perpendicular to, and :math:`b`
    stays whole.

    Args:
        scale: The guidance scale :math:`s`.
        strength: The strength :math:`w` of the negative prompt; 0 is :class:`CFG`, at its cost.

    Raises:
        GuidanceError: If `scale` or `strength` is not a :class:`Scale`.

    References:
        | Re-imagine the Negative Prompt Algorithm: Transform 2D Diffusion into 3D, alleviate Janus problem and
        | Beyond (Armandpour et al., 2023), https://arxiv.org/abs/2304.04968
    """

    scale: Scale
    strength: Scale = 1

    names = ("empty", "negative", "prompt")

    @cached_property
    def _cfg(self) -> Guidance:
        return CFG(self.scale)

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        s, w = at(self.scale, x, sigma), at(self.strength, x, sigma)
        if vanishes(s) or vanishes(w):
            return self._cfg.denoised(evaluate, x, sigma)
        u, n, p = evaluate(self.names, x, sigma).values()
        a, b = p - u, n - u
        return u + s * (a - w * (b - ratio(dot(a, b), dot(a, a)) * a))
