r"""Diffusion-negative sampling."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ..algebra.formula import Formula, Linear, prediction
from ..algebra.weights import Scale
from ..errors import GuidanceError


@dataclass(frozen=True, eq=False, repr=False, init=False)
class DNS(Linear):
    r"""Diffusion-negative sampling, away from the prompt: what the model holds for its opposite.

    .. math:: \hat\epsilon = \epsilon_\theta(z_t, \varnothing)
        + s \, (\epsilon_\theta(z_t, \varnothing) - \epsilon_\theta(z_t, p))

    It is negative prompting with the empty prompt as the prompt and the prompt as the negative, so it has the
    same two forms. Both evaluate the denoiser twice; `evaluations` says of which form of :class:`NegPrompt`
    it is made. The one of 2, :math:`p + s (u - p)`, is all that a tool with only that form can draw: the
    paper's at :math:`s - 1`.

    Args:
        scale: The guidance scale :math:`s`.
        evaluations: 3 for the paper's form, 2 for :math:`p + s (u - p)`.

    Raises:
        GuidanceError: Where the scale is none, or `evaluations` is not 2 or 3.

    References:
        | Eq. 19 of the DNP paper, and eq. 20 for the identity.
    """

    scale: Scale
    # Called `evaluations` where one is made; as an attribute that is the method which counts them.
    form: int = field(default=3, metadata={"argument": "evaluations"})

    def __init__(self, scale: Scale, evaluations: int = 3) -> None:
        vars(self).update(scale=scale, form=evaluations)
        self.__post_init__()

    @cached_property
    def formula(self) -> Formula:
        if self.form not in (2, 3):
            raise GuidanceError(f"evaluations is 2 or 3, the form of negative prompting, not {self.form!r}")
        p, u = prediction("prompt"), prediction("empty")
        return (p if self.form == 2 else u) + (u - p) * self.scale
