r"""Guidance whose weights come from a contrastive loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.plan import at, vanishes
from ..algebra.weights import Scale, as_number
from ..denoiser.evaluator import Evaluator
from ..samplewise import dot, from_noise, to_noise


@dataclass(frozen=True, eq=False, repr=False)
class ContrastiveCFG(Guidance):
    r"""Contrastive CFG, whose negative guidance fades where the negative prompt is already far away.

    Defined in :math:`\epsilon`, with :math:`d_c = \|\epsilon_c - \epsilon_u\|^2` over each sample:

    .. math:: \hat\epsilon = \epsilon_u
        + s \, \frac{2}{1 + e^{-\tau d_p}} \, (\epsilon_p - \epsilon_u)
        - w \, \frac{2 e^{-\tau d_n}}{1 + e^{-\tau d_n}} \, (\epsilon_n - \epsilon_u)

    The paper has one scale, :math:`s = w`.

    Args:
        scale: The scale :math:`s` of the prompt; 0 leaves it out, at no cost.
        strength: The scale :math:`w` of the negative prompt; None means `scale`, 0 leaves it out, at no cost.
        temperature: The temperature :math:`\tau` of the loss, to be chosen by the size of the samples, as
            :math:`d` grows with it; the default is ours.

    Raises:
        GuidanceError: If `scale` or `strength` is not a :class:`Scale`, or `temperature` is not a number of 0 or more.

    References:
        | Contrastive CFG: Improving CFG in Diffusion Models by Contrasting Positive and Negative Concepts
        | (Chang, Chung and Ye, 2024), https://arxiv.org/abs/2411.17077
    """

    scale: Scale
    strength: Scale | None = None
    temperature: float = 0.2

    names = ("empty", "negative", "prompt")

    def __post_init__(self) -> None:
        super().__post_init__()
        as_number(self.temperature, "the temperature of ContrastiveCFG", 0)

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        strength = self.scale if self.strength is None else self.strength
        weights = {"prompt": at(self.scale, x, sigma), "negative": at(strength, x, sigma)}
        found = evaluate(("empty", *(name for name, weight in weights.items() if not vanishes(weight))), x, sigma)
        noise = {name: to_noise(d, x, sigma) for name, d in found.items()}
        guided = empty = noise.pop("empty")
        for name, prediction in noise.items():
            sign, change = (1 if name == "prompt" else -1), prediction - empty
            share = 2 * torch.sigmoid(sign * float(self.temperature) * dot(change, change))
            guided = guided + sign * weights[name] * share * change
        return from_noise(guided, x, sigma)
