r"""Guidance that trusts the scaled prompt more, the less it looks like the scaled empty prompt."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from ..algebra.formula import Guidance
from ..algebra.plan import at
from ..algebra.weights import Scale
from ..denoiser.evaluator import Evaluator
from ..samplewise import per_sample


@dataclass(frozen=True, eq=False, repr=False)
class Mahiro(Guidance):
    r"""ComfyUI's Mahiro: between classifier-free guidance :math:`g` and the prompt times the scale.

    Defined in :math:`D`, for each sample:

    .. math:: \hat D = c \, g + (1 - c) \, s D_p, \qquad g = D_u + s \, (D_p - D_u), \qquad
        c = \tfrac12 \big(1 + \operatorname{mean}\cos(\rho(s D_u), \rho(\tfrac12 (s D_p + g)))\big)

    where :math:`\rho(a) = \operatorname{sign}(a) \sqrt{|a|}` and the cosine is that of the channels of each pixel.
    ComfyUI takes the mean over the pixels of the whole batch, so that pictures change each other; here it is that of
    each sample. The weights do not sum to one, so it is no formula.

    Args:
        scale: The guidance scale :math:`s`.

    Raises:
        GuidanceError: If `scale` is not a :class:`Scale`.

    References:
        | The node Mahiro of ComfyUI, https://github.com/comfyanonymous/ComfyUI (comfy_extras/nodes_mahiro.py)
    """

    scale: Scale

    names = ("empty", "prompt")

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        u, p = evaluate(self.names, x, sigma).values()
        s = at(self.scale, x, sigma)
        leap, guided = s * p, u + s * (p - u)
        alike = functional.cosine_similarity(_root(s * u), _root((leap + guided) / 2), dim=1)
        trust = per_sample((1 + alike.flatten(1).mean(1)) / 2, x)
        return trust * guided + (1 - trust) * leap


def _root(a: Tensor) -> Tensor:
    return a.sign() * a.abs().sqrt()
