r"""Classifier-free guidance of two conditions, one on top of the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..algebra.formula import Formula, Linear, prediction
from ..algebra.weights import Scale


@dataclass(frozen=True, eq=False, repr=False)
class DualCFG(Linear):
    r"""Guidance from nothing to a part of the condition (``middle``), and from there to all of it (``prompt``).

    .. math:: \hat\epsilon = \epsilon_\theta(z_t, \varnothing)
        + s_2 \, (\epsilon_\theta(z_t, m) - \epsilon_\theta(z_t, \varnothing))
        + s_1 \, (\epsilon_\theta(z_t, p) - \epsilon_\theta(z_t, m))

    In the paper, :math:`m` is the picture to edit without the instruction, and :math:`p` both.

    Args:
        scale: The scale :math:`s_1` of the whole condition over its part.
        middle: The scale :math:`s_2` of the part over nothing.

    Raises:
        GuidanceError: If an argument is not a :class:`Scale`.

    References:
        | InstructPix2Pix: Learning to Follow Image Editing Instructions (Brooks, Holynski and Efros, 2022),
        | https://arxiv.org/abs/2211.09800, eq. 3
    """

    scale: Scale
    middle: Scale

    @cached_property
    def formula(self) -> Formula:
        p, m, u = prediction("prompt"), prediction("middle"), prediction("empty")
        return u + (m - u) * self.middle + (p - m) * self.scale
