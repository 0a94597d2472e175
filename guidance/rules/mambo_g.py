r"""Guidance that is weaker where the prompt's change is large."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra.formula import Guidance, prediction
from ..algebra.plan import at, vanishes
from ..algebra.weights import Scale, as_number
from ..denoiser.evaluator import Evaluator
from ..samplewise import dot, from_velocity, ratio, to_velocity


@dataclass(frozen=True, eq=False, repr=False)
class MAMBOG(Guidance):
    r"""MAMBO-G, magnitude-aware guidance: the scale falls with the size of the change beside that of the prediction.

    Defined in the velocity :math:`v = \epsilon - D` of flow matching, with norms over each sample:

    .. math:: \hat v = v_u + \big(1 + (s - 1) \, e^{-\alpha r}\big) (v_p - v_u), \qquad
        r = \frac{\|v_p - v_u\|}{\|v_u\|}

    diffusers' guider takes the norms of whatever the model predicts, which are other ones for :math:`\epsilon`, and
    fails for pictures, whose norm it asks for over three dimensions.

    Args:
        scale: The guidance scale :math:`s` of a change of no size; 1 is the plain prompt, at one evaluation.
        alpha: How fast the scale falls; 8 in the paper (which is not written).

    Raises:
        GuidanceError: If `scale` is not a :class:`Scale`, or `alpha` is not a number of 0 or more.

    References:
        | MAMBO-G: Magnitude-Aware Mitigation for Boosted Guidance (2025), https://arxiv.org/abs/2508.03442
    """

    scale: Scale
    alpha: float = 8.0

    names = ("empty", "prompt")
    fixed = ("alpha",)

    def __post_init__(self) -> None:
        super().__post_init__()
        as_number(self.alpha, "alpha of MAMBOG", 0)

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        more = at(self.scale, x, sigma, less=1)
        if vanishes(more):
            return prediction("prompt").denoised(evaluate, x, sigma)
        u, p = (to_velocity(d, x, sigma) for d in evaluate(self.names, x, sigma).values())
        change = p - u
        size = ratio(dot(change, change), dot(u, u)).sqrt()
        return from_velocity(u + (1 + more * torch.exp(-float(self.alpha) * size)) * change, x, sigma)
