r"""Diffusion-negative sampling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..algebra.formula import Formula, Linear, prediction
from ..algebra.weights import Scale
from ..errors import GuidanceError


@dataclass(frozen=True, eq=False, repr=False)
class DNS(Linear):
    r"""Diffusion-negative sampling, away from the prompt: what the model holds for its opposite.

    .. math:: \hat\epsilon = \epsilon_\theta(z_t, \varnothing)
        + s \, (\epsilon_\theta(z_t, \varnothing) - \epsilon_\theta(z_t, p))

    It is :class:`NegPrompt`, where the family is explained, with the empty prompt as the prompt and the prompt as the
    negative. Either form evaluates the denoiser twice.

    Args:
        scale: The guidance scale :math:`s`.
        evaluations: The form of :class:`NegPrompt` of which it is made: 3 for the paper's, which fixes it (it is not
            written), 2 for :math:`p + s (u - p)`.

    Raises:
        GuidanceError: If `scale` is not a :class:`Scale`, or `evaluations` is not 2 or 3.

    References:
        | Eq. 19 of the DNP paper, and eq. 20 for the identity.
    """

    scale: Scale
    evaluations: int = 3

    fixed = ("evaluations",)

    @cached_property
    def formula(self) -> Formula:
        if self.evaluations not in (2, 3):
            raise GuidanceError(f"evaluations is 2 or 3, the form of negative prompting, not {self.evaluations!r}")
        p, u = prediction("prompt"), prediction("empty")
        return (p if self.evaluations == 2 else u) + (u - p) * self.scale
