r"""Guidance with the contrast of the plain prompt."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.modifier import Modifier
from ..algebra.plan import at, vanishes
from ..algebra.weights import Scale
from ..denoiser.evaluator import Evaluator
from ..errors import GuidanceError
from ..samplewise import SPACES, moments, ratio


@dataclass(frozen=True, eq=False, repr=False)
class Rescale(Modifier):
    r"""Any guidance, scaled to the standard deviation of the plain prompt's prediction.

    With :math:`g` the guided prediction in a space, and deviations over each sample:

    .. math:: \hat g = \phi \, \frac{\operatorname{std}(g_p)}{\operatorname{std}(g)} \, g + (1 - \phi) \, g

    The paper defines it for a model that predicts :math:`v`; diffusers and others apply it to whatever the model
    predicts, which for most is :math:`\epsilon`. The space makes a difference: for a model of :math:`v`, only ``"v"``
    agrees with diffusers' `guidance_rescale`.

    Args:
        guidance: What is rescaled; the prompt's prediction is evaluated besides only if it lacks it.
        phi: The share :math:`\phi` of the rescaled prediction; 0 changes nothing, at no cost.
        space: ``"epsilon"`` for models that predict the noise (not written, as the default), ``"v"`` for those of
            :math:`v`, ``"flow"`` for those of flow matching's velocity.

    Raises:
        GuidanceError: If `guidance` is not a guidance, `phi` not a :class:`Scale`, or `space` none of these.

    References:
        | Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2023), section 3.4,
        | https://arxiv.org/abs/2305.08891
    """

    guidance: Guidance
    phi: Scale = 0.7
    space: str = "epsilon"

    needs = ("prompt",)
    fixed = ("space",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.space not in SPACES:
            raise GuidanceError(f"space of Rescale is one of {', '.join(SPACES)}, not {self.space!r}")

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        guided, phi = self.guidance.denoised(evaluate, x, sigma), at(self.phi, x, sigma)
        if vanishes(phi):
            return guided
        to_space, from_space = SPACES[self.space]
        plain = evaluate(("prompt",), x, sigma)["prompt"]
        guided, plain = (to_space(d, x, sigma) for d in (guided, plain))
        factor = ratio(moments(plain)[1], moments(guided)[1], 1.0)
        return from_space((phi * factor + (1 - phi)) * guided, x, sigma)
