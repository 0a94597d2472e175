r"""Negative prompting, in all its forms."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ..algebra.formula import Formula, Linear, prediction
from ..algebra.weights import Scale
from ..errors import GuidanceError


@dataclass(frozen=True, eq=False, repr=False, init=False)
class NegPrompt(Linear):
    r"""Guidance towards the prompt and away from a negative prompt, one family in the strength :math:`w`.

    .. math:: \hat\epsilon = \epsilon_\theta(z_t, \varnothing)
        + s \, (\epsilon_\theta(z_t, p) - \epsilon_\theta(z_t, \varnothing))
        - w \, (\epsilon_\theta(z_t, n) - \epsilon_\theta(z_t, \varnothing))

    ============= ===================== ============================================= ===========
    strength      form                  formula                                       evaluations
    ============= ===================== ============================================= ===========
    :math:`0`     :class:`CFG`          :math:`u + s (p - u)`                         2
    :math:`s - 1` ``evaluations=2``     :math:`n + s (p - n)`, of most other tools    2
    :math:`s`     ``evaluations=3``     :math:`u + s (p - n)`, eq. 4                  3
    any other                                                                         3
    ============= ===================== ============================================= ===========

    Args:
        scale: The guidance scale :math:`s`.
        evaluations: 2 or 3, for one of the two forms in use. Without it and a strength: 3, as in the paper.
        strength: The strength :math:`w` of the negative prompt, instead of `evaluations`.

    Raises:
        GuidanceError: Where the scale or strength is none, `evaluations` is not 2 or 3, or both are given.

    References:
        | Eq. 4 of the DNP paper; the form of 2 evaluations is that of diffusers, AUTOMATIC1111 and ComfyUI.
    """

    scale: Scale
    # Called `evaluations` where one is made; as an attribute that is the method which counts them.
    form: int | None = field(default=None, metadata={"argument": "evaluations"})
    strength: Scale | None = None

    def __init__(self, scale: Scale, evaluations: int | None = None, strength: Scale | None = None) -> None:
        vars(self).update(scale=scale, form=evaluations, strength=strength)
        self.__post_init__()

    @cached_property
    def formula(self) -> Formula:
        if self.form is not None and self.strength is not None:
            raise GuidanceError("NegPrompt takes evaluations=2, evaluations=3 or a strength, not both")
        if self.form not in (None, 2, 3):
            raise GuidanceError(f"evaluations is 2 or 3, the form of negative prompting, not {self.form!r}")
        p, n, u = prediction("prompt"), prediction("negative"), prediction("empty")
        if self.strength is not None:
            return u + (p - u) * self.scale - (n - u) * self.strength
        return (n if self.form == 2 else u) + (p - n) * self.scale
