r"""Guidance away from a concept, where and as far as the picture heads for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.plan import at
from ..algebra.weights import Scale, as_number
from ..denoiser.evaluator import Evaluator
from ..samplewise import from_noise, per_sample, to_noise


@dataclass(frozen=True, eq=False, repr=False)
class SLD(Guidance):
    r"""Safe latent diffusion: the negative acts only on the elements where the prompt comes near it, with momentum.

    Defined in :math:`\epsilon`, element by element:

    .. math:: \hat\epsilon = u + s \, (p - u - \gamma), \qquad
        \gamma = m \, (n - u) + s_m \nu, \qquad
        m = \begin{cases} \min(1, s_S |p - n|) & p - n < \lambda \\ 0 & \text{else} \end{cases}

    .. math:: \nu \leftarrow \beta \nu + (1 - \beta) \gamma

    The paper waits some steps before :math:`\gamma` acts, while :math:`\nu` already grows; here they are the noise
    levels above `below`, so that the number of steps does not matter.

    Args:
        scale: The guidance scale :math:`s`.
        safety: The scale :math:`s_S` of the mask; 1000 in the paper's medium setting.
        threshold: The difference :math:`\lambda` from which on the negative does not act.
        momentum: The share :math:`s_m` of what was removed before.
        beta: How much of :math:`\nu` stays at each noise level.
        below: The highest noise level :math:`\sigma` at which the negative acts; None for all.

    Raises:
        GuidanceError: If `scale` is not a :class:`Scale`, or another argument is not one number.

    References:
        | Safe Latent Diffusion (Schramowski et al., 2022), https://arxiv.org/abs/2211.05105
    """

    scale: Scale
    safety: float = 1000.0
    threshold: float = 0.01
    momentum: float = 0.3
    beta: float = 0.4
    below: float | None = None

    names = ("empty", "negative", "prompt")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("safety", "threshold", "momentum", "beta", "below"):
            if (value := getattr(self, name)) is not None:
                as_number(value, f"{name} of SLD")

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        u, n, p = (to_noise(d, x, sigma) for d in evaluate(self.names, x, sigma).values())
        before = evaluate.memory.before(self, sigma, (torch.zeros_like(u),))
        near = (float(self.safety) * (p - n).abs()).clamp(max=1)
        mask = torch.where(p - n >= float(self.threshold), 0.0, near)
        away = mask * (n - u) + float(self.momentum) * before[0]
        kept = float(self.beta)
        evaluate.memory.keep(self, sigma, (kept * before[0] + (1 - kept) * away,), before)
        acts = sigma <= (torch.inf if self.below is None else float(self.below))
        change = p - u - torch.where(per_sample(acts, x), away, 0.0)
        return from_noise(u + at(self.scale, x, sigma) * change, x, sigma)
