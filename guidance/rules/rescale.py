r"""Guidance with the contrast of the plain prompt."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.modifier import Modifier
from ..algebra.weights import Scale, at, vanishes
from ..denoiser.evaluator import Evaluator
from ..samplewise import from_noise, moments, ratio, to_noise


@dataclass(frozen=True, eq=False, repr=False)
class Rescale(Modifier):
    r"""Any guidance, scaled to the standard deviation of the plain prompt's prediction.

    Defined in :math:`\epsilon`, with :math:`g` the guided prediction and deviations over each sample:

    .. math:: \hat\epsilon = \phi \, \frac{\operatorname{std}(\epsilon_p)}{\operatorname{std}(g)} \, g
        + (1 - \phi) \, g

    The paper applies it to a model that predicts :math:`v`; diffusers and others to whatever the model predicts,
    which for most is :math:`\epsilon`, as here.

    Args:
        guidance: What is rescaled; the prompt's prediction is evaluated besides only if it lacks it.
        phi: The share :math:`\phi` of the rescaled prediction; 0 changes nothing, at no cost.

    Raises:
        GuidanceError: Where it wraps no guidance, or the share is no scale.

    References:
        | Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2023), section 3.4,
        | https://arxiv.org/abs/2305.08891
    """

    guidance: Guidance
    phi: Scale = 0.7

    needs = ("prompt",)

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        guided, phi = self.guidance.denoised(evaluate, x, sigma), at(self.phi, x, sigma)
        if vanishes(phi):
            return guided
        plain = evaluate(("prompt",), x, sigma)["prompt"]
        guided, plain = (to_noise(d, x, sigma) for d in (guided, plain))
        factor = ratio(moments(plain)[1], moments(guided)[1], 1.0)
        return from_noise((phi * factor + (1 - phi)) * guided, x, sigma)
