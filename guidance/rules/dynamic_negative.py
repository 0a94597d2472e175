r"""Negative guidance as strong as the negative prompt is likely."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.plan import at, vanishes
from ..algebra.weights import Scale, as_number
from ..denoiser.evaluator import Evaluator, State
from ..errors import GuidanceError
from ..samplewise import evidence, per_sample
from .cfg import CFG


@dataclass(frozen=True, eq=False, repr=False)
class DynamicNegative(Guidance):
    r"""Dynamic negative guidance, by a running posterior :math:`\pi` of the negative prompt.

    .. math:: \hat\epsilon = u + s \, (p - u) - \lambda \, \frac{\pi}{1 - \pi} \, (n - u)

    The combination is the same in :math:`\epsilon`, :math:`D` and :math:`v`; the posterior is that of the chain
    :math:`x_{\sigma'} \to x_\sigma` in :math:`x = x_0 + \sigma \epsilon`, for each sample by itself:

    .. math:: \pi_\sigma = \pi_{\sigma'} \exp\Big(-\tau \,
        \frac{\|x_\sigma - \mu_n\|^2 - \|x_\sigma - \mu_u\|^2}{2 v}\Big), \qquad
        \mu_c = \frac{\sigma^2}{\sigma'^2} x_{\sigma'} + \big(1 - \frac{\sigma^2}{\sigma'^2}\big) D_c(x_{\sigma'}),
        \qquad v = \sigma^2 \big(1 - \frac{\sigma^2}{\sigma'^2}\big)

    These are DDPM's means and variance. Samplers that add less noise, or none, follow another chain, for which it
    is an approximation. If the noise level does not fall, a new run begins with the prior. The authors' code
    also has an offset in the exponent, in units of their schedule, which is left out; prior and temperature are those
    of its example.

    Args:
        scale: The guidance scale :math:`s` of the prompt; 0 is the paper's form without one, at two evaluations.
        strength: The scale :math:`\lambda` of the negative prompt; 0 is :class:`CFG`, at its cost.
        prior: The posterior :math:`\pi` before the first step.
        temperature: The factor :math:`\tau` of the evidence of each step.
        most: The largest posterior, below 1; the smallest is 1e-6, as in the authors' code.

    Raises:
        GuidanceError: If `scale` or `strength` is not a :class:`Scale`, or another argument is not a number within its
            bounds.

    References:
        | Dynamic Negative Guidance of Diffusion Models (Koulischer et al., 2024),
        | https://arxiv.org/abs/2410.14398; its code, https://github.com/FelixKoulischer/Dynamic-Negative-Guidance
    """

    scale: Scale
    strength: Scale = 1
    prior: float = 0.01
    temperature: float = 0.2
    most: float = 0.99

    names = ("empty", "negative", "prompt")

    def __post_init__(self) -> None:
        super().__post_init__()
        as_number(self.temperature, "the temperature of DynamicNegative", 0)
        for name in ("prior", "most"):
            if not 0 < as_number(getattr(self, name), f"{name} of DynamicNegative") < 1:
                raise GuidanceError(f"{name} of DynamicNegative is a probability, between 0 and 1")

    @cached_property
    def _cfg(self) -> Guidance:
        return CFG(self.scale)

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        if isinstance(self.strength, (int, float, Fraction)) and not self.strength:
            return self._cfg.denoised(evaluate, x, sigma)
        scale = at(self.scale, x, sigma)
        asked = ("empty", "negative") if vanishes(scale) else self.names
        found = evaluate(asked, x, sigma)
        u, n = found["empty"], found["negative"]
        start = sigma.new_full(sigma.shape, float(self.prior), dtype=u.dtype)
        # If there was no step before, its own level stands for that step's.
        before = evaluate.memory.before(self, sigma, (start, sigma, x, u, n))
        odds = self._posterior(x, sigma, before)
        evaluate.memory.keep(self, sigma, (odds, sigma, x, u, n), before)
        odds = per_sample(odds / (1 - odds), x)
        guided = u - at(self.strength, x, sigma) * odds * (n - u)
        return guided if vanishes(scale) else guided + scale * (found["prompt"] - u)

    def _posterior(self, x: Tensor, sigma: Tensor, before: State) -> Tensor:
        r"""The posterior :math:`(B)` at `x`, from the step before it: posterior, noise level, samples, predictions."""
        last, level, y, u, n = before
        factor = torch.exp(-float(self.temperature) * evidence(x, sigma, y, level, u, n))
        return (last * factor).clamp(min(1e-6, float(self.most)), float(self.most))
