r"""Guidance away from the part of the empty prompt's prediction that both prompts share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.plan import at
from ..algebra.weights import Scale
from ..denoiser.evaluator import Evaluator
from ..samplewise import dot, from_noise, ratio, to_noise


@dataclass(frozen=True, eq=False, repr=False)
class TCFG(Guidance):
    r"""Tangential damping: the empty prompt's prediction keeps only its part along the main direction of both.

    Defined in :math:`\epsilon`, over each sample:

    .. math:: \hat\epsilon = u' + s \, (p - u'), \qquad u' = \langle u, v_1 \rangle \, v_1

    with :math:`v_1` the first right singular vector of the two rows :math:`p, u`, found from their Gram matrix.

    Args:
        scale: The guidance scale :math:`s`.

    Raises:
        GuidanceError: If `scale` is not a :class:`Scale`.

    References:
        | TCFG: Tangential Damping Classifier-free Guidance (Kwon et al., 2025), https://arxiv.org/abs/2503.18137
    """

    scale: Scale

    names = ("empty", "prompt")

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        u, p = (to_noise(d, x, sigma) for d in evaluate(self.names, x, sigma).values())
        main = _main(p, u)
        u = ratio(dot(u, main), dot(main, main)) * main
        return from_noise(u + at(self.scale, x, sigma) * (p - u), x, sigma)


def _main(p: Tensor, u: Tensor) -> Tensor:
    r"""The direction :math:`(B, ...)`, of any length, in which the two predictions are largest together."""
    pp, pu, uu = dot(p, p), dot(p, u), dot(u, u)
    half = (pp - uu) / 2
    root = (half**2 + pu**2).sqrt()
    # The eigenvector of [[pp, pu], [pu, uu]], from the row that does not cancel.
    return torch.where(half >= 0, (half + root) * p + pu * u, pu * p + (root - half) * u)
