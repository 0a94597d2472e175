r"""Classifier-free guidance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..algebra.formula import Formula, Linear, prediction
from ..algebra.weights import Scale


@dataclass(frozen=True, eq=False, repr=False)
class CFG(Linear):
    r"""Classifier-free guidance, towards the prompt and away from the empty prompt.

    .. math:: \hat\epsilon = \epsilon_\theta(z_t, \varnothing)
        + s \, (\epsilon_\theta(z_t, p) - \epsilon_\theta(z_t, \varnothing))

    Args:
        scale: The guidance scale :math:`s`; 1 is the plain prompt, at one evaluation.

    Raises:
        GuidanceError: If `scale` is not a :class:`Scale`.

    References:
        | Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), https://arxiv.org/abs/2207.12598;
        | eq. 3 of the DNP paper.
    """

    scale: Scale

    @cached_property
    def formula(self) -> Formula:
        p, u = prediction("prompt"), prediction("empty")
        return u + (p - u) * self.scale
