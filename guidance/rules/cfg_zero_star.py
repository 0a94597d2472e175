r"""Classifier-free guidance with an optimised scale of the empty prompt's velocity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.plan import at, vanishes
from ..algebra.weights import Scale, as_number
from ..denoiser.evaluator import Evaluator
from ..errors import GuidanceError
from ..host import on_host
from ..samplewise import choose, dot, from_velocity, ratio, to_velocity


@dataclass(frozen=True, eq=False, repr=False)
class CFGZeroStar(Guidance):
    r"""CFG-Zero*, classifier-free guidance from the best multiple of the empty prompt's velocity.

    Defined in the velocity :math:`v = \epsilon - D` of flow matching, with products over each sample:

    .. math:: \hat v = \alpha v_u + s \, (v_p - \alpha v_u), \qquad
        \alpha = \frac{\langle v_p, v_u \rangle}{\|v_u\|^2}; \qquad
        \hat v = 0 \text{ where } \sigma \ge \sigma_0

    diffusers' guider evaluates the denoiser in the steps whose velocity it then sets to zero; here they cost
    nothing. It applies the rule to whatever the model predicts, which is this only for flow matching.

    Args:
        scale: The guidance scale :math:`s`; 1 is the plain prompt, at one evaluation.
        zero: The noise level :math:`\sigma_0` from which up the velocity is zero (the paper does so in the first
            steps); None for no noise level.

    Raises:
        GuidanceError: If `scale` is not a :class:`Scale`, or `zero` is not above 0.

    References:
        | CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models (Fan et al., 2025),
        | https://arxiv.org/abs/2503.18886
    """

    scale: Scale
    zero: float | None = None

    names = ("empty", "prompt")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zero is not None and as_number(self.zero, "zero of CFGZeroStar") <= 0:
            raise GuidanceError(f"zero of CFGZeroStar is a noise level above 0, or none, not {self.zero}")

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        if self.zero is None:
            return self._guided(evaluate, x, sigma)
        return choose(
            on_host(sigma) >= float(self.zero),
            lambda: from_velocity(torch.zeros_like(x), x, sigma),
            lambda: self._guided(evaluate, x, sigma),
        )

    def _guided(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        if vanishes(at(self.scale, x, sigma, less=1)):
            return evaluate(("prompt",), x, sigma)["prompt"]
        u, p = (to_velocity(d, x, sigma) for d in evaluate(self.names, x, sigma).values())
        u = ratio(dot(p, u), dot(u, u)) * u
        return from_velocity(u + at(self.scale, x, sigma) * (p - u), x, sigma)
