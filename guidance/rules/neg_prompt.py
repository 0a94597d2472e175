r"""Negative prompting, in all its forms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..algebra.formula import Formula, Linear, prediction
from ..algebra.weights import Scale
from ..errors import GuidanceError


@dataclass(frozen=True, eq=False, repr=False)
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

    The two forms in use differ by :math:`u - n` whatever the scale. If :math:`n` is :math:`u`, both are :class:`CFG`.
    With the empty prompt as the prompt and the prompt as the negative they are :class:`DNS`: the form of 3 at :math:`s`
    is that of 2 at :math:`s + 1` and CFG at :math:`-s`, so a tool that has only the form of 2 draws the paper's
    diffusion-negative at a scale one higher.

    Args:
        scale: The guidance scale :math:`s`.
        evaluations: 2 or 3, for one of the two forms in use. Without it and a strength: 3, as in the paper.
        strength: The strength :math:`w` of the negative prompt, instead of `evaluations`.

    Raises:
        GuidanceError: If `scale` or `strength` is not a :class:`Scale`, `evaluations` is not 2 or 3, or both are given.

    References:
        | Eq. 4 of the DNP paper; the form of 2 evaluations is that of diffusers, AUTOMATIC1111 and ComfyUI.
    """

    scale: Scale
    evaluations: int | None = None
    strength: Scale | None = None

    @cached_property
    def formula(self) -> Formula:
        if self.evaluations is not None and self.strength is not None:
            raise GuidanceError("NegPrompt takes evaluations=2, evaluations=3 or a strength, not both")
        if self.evaluations not in (None, 2, 3):
            raise GuidanceError(f"evaluations is 2 or 3, the form of negative prompting, not {self.evaluations!r}")
        p, n, u = prediction("prompt"), prediction("negative"), prediction("empty")
        if self.strength is not None:
            return u + (p - u) * self.scale - (n - u) * self.strength
        return (n if self.evaluations == 2 else u) + (p - n) * self.scale
