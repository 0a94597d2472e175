r"""Guidance no larger than the plain prompt's prediction, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.modifier import Modifier
from ..algebra.plan import at
from ..algebra.weights import Scale
from ..denoiser.evaluator import Evaluator
from ..samplewise import ratio


@dataclass(frozen=True, eq=False, repr=False)
class CFGNorm(Modifier):
    r"""Any guidance, cut to the length of the plain prompt's prediction at each pixel.

    Defined in :math:`D`, with norms over the channels:

    .. math:: \hat D = m \, \min\Big(1, \frac{\|D_p\|}{\|g\|}\Big) \, g

    Args:
        guidance: What is cut; the prompt's prediction is evaluated besides only if it lacks it.
        strength: The factor :math:`m`.

    Raises:
        GuidanceError: If `guidance` is not a guidance, or `strength` is not a :class:`Scale`.

    References:
        | The node CFGNorm of ComfyUI, https://github.com/comfyanonymous/ComfyUI (comfy_extras/nodes_cfg.py)
    """

    guidance: Guidance
    strength: Scale = 1

    needs = ("prompt",)

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        guided = self.guidance.denoised(evaluate, x, sigma)
        plain = evaluate(("prompt",), x, sigma)["prompt"]
        allowed, length = (d.square().sum(1, keepdim=True).sqrt() for d in (plain, guided))
        return at(self.strength, x, sigma) * (ratio(allowed, length, 1.0).clamp(max=1) * guided)
