r"""Attend-and-Excite: before a step, the latents are moved so that each word is attended to somewhere.

.. math::
    L = \max_s \max(0, 1 - \max_{ij} (G * P_s)_{ij}), \qquad z \leftarrow z - \alpha_i \nabla_z L

where :math:`P` is 100 times the cross-attention, the mean of all heads and layers at a quarter of the latents' side,
under softmax over the tokens of the text, and :math:`G` a small Gaussian. The walk is in :math:`x = \sqrt{1 + \sigma^2}
z`, where the step is :math:`x \leftarrow x - \alpha_i (1 + \sigma^2) \nabla_x L`. At some steps this is repeated before
until the loss is low enough (refinement).

References:
    Attend-and-Excite: attention-based semantic guidance for text-to-image diffusion models, Chefer et al.,
    SIGGRAPH 2023, https://arxiv.org/abs/2301.13826
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dnp.attention.layers import Grid
from dnp.attention.maps import Maps, gradient, resolution, rows
from dnp.attention.words import Words, word_map, words_of
from dnp.errors import DNPError
from samplers import Step

_SHARPNESS, _BLUR = 100, 0.5


@dataclass(frozen=True)
class AttendAndExcite:
    r"""How to attend. The values are the paper's for 50 steps, as fractions, so that they do for any number of steps.

    Args:
        words: Of the prompt, the last word of each entity by default: see `dnp.attention.words`.
        until: The fraction of the steps that are altered.
        thresholds: Fraction of the steps → the attention that each word must have at this step, by refinement.
        step_size: :math:`\alpha_0`; it falls to :math:`\sqrt{.5}` of that by the last step.
        refinements: The most repetitions of a refinement.
        size: (height, width) of the maps; what the model says by default, or a quarter of the latents'.

    Raises:
        DNPError: A number is out of its range.
    """

    words: Sequence[str] | None = None
    until: float = 0.5
    thresholds: Mapping[float, float] = field(default_factory=lambda: {0: 0.05, 0.2: 0.5, 0.4: 0.8})
    step_size: float = 20.0
    refinements: int = 20
    size: Grid | None = None

    def __post_init__(self) -> None:
        fractions = {"until": self.until, **{f"the threshold at {at}": v for at, v in self.thresholds.items()}}
        for name, value in [*fractions.items(), *(("the place of a threshold", at) for at in self.thresholds)]:
            if not 0 <= value <= 1:
                raise DNPError(f"attend-and-excite: {name} is a fraction from 0 to 1, not {value}")
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise DNPError(f"attend-and-excite: the step size is a positive number, not {self.step_size}")
        if self.refinements < 0:
            raise DNPError(f"attend-and-excite: the number of refinements is 0 or more, not {self.refinements}")

    def on(self, model: Any, prompts: Sequence[str], condition: Mapping[str, Any] | None = None) -> Attending:
        r"""The hook for a batch of prompts.

        Args:
            model: A text-to-image model with a `unet` and `texts`.
            prompts: As many as samples.
            condition: The denoiser's keyword arguments of the prompts, if they are not `model.encode(prompts)`.

        Raises:
            DNPError: A word is not in a prompt; the network does not attend at the resolution; the model has no U-Net.
        """
        return Attending(self, model, prompts, model.encode(prompts) if condition is None else condition)


class Attending:
    r"""What `samplers.sample` takes as its hook, for one batch of samples that do not depend on each other.

    Attributes:
        evaluations: The forwards with a gradient that each sample took, beside those of its guidance.
    """

    def __init__(self, how: AttendAndExcite, model: Any, prompts: Sequence[str], condition: Mapping[str, Any]) -> None:
        self.how, self.model, self.condition = how, model, condition
        self.grid = map_size(model, how.size)
        self.words = [words_of(model.texts, prompt, how.words) for prompt in prompts]
        self.evaluations = [0] * len(prompts)

    def __call__(self, step: Step) -> Tensor | None:
        if step.count is None:
            raise DNPError("attend-and-excite needs to know the number of steps: take a sampler with a schedule")
        how, last = self.how, max(step.count - 1, 1)
        threshold = {round(at * step.count): value for at, value in how.thresholds.items()}.get(step.index)
        alters = step.index < math.ceil(how.until * step.count)
        if not alters and threshold is None:
            return None
        # sqrt(linspace(1, .5, steps)) in z, of variance one; in x both z and the gradient scale
        rate = how.step_size * math.sqrt(1 - 0.5 * step.index / last) * (1 + step.level**2)
        x, sigma = step.x, step.sigma
        loss, found = self._gradient(x, sigma, torch.arange(len(x), device=x.device))
        if threshold is not None:
            x, found = self._refine(x, sigma, loss, found, rate, 1 - threshold, alters)
        return x - rate * found if alters else x

    def _refine(
        self, x: Tensor, sigma: Tensor, loss: Tensor, found: Tensor, rate: float, target: float, again: bool
    ) -> tuple[Tensor, Tensor]:
        x, found = x.clone(), found.clone()
        ever = live = (loss > target).nonzero()[:, 0]
        for turn in range(self.how.refinements if len(live) else 0):
            if turn:  # at first they are known
                loss[live], found[live] = self._gradient(x, sigma, live)
            x[live] -= rate * found[live]
            live = live[loss[live] > target]
            if not len(live):
                break
        if again and len(ever):
            _, found[ever] = self._gradient(x, sigma, ever)
        return x, found

    def _gradient(self, x: Tensor, sigma: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        here = chosen.tolist()
        for sample in here:
            self.evaluations[sample] += 1
        words = [self.words[sample] for sample in here]
        condition = self.condition if len(here) == len(x) else rows(self.condition, chosen)
        return gradient(
            self.model, x[chosen], sigma[chosen], condition, lambda maps: excitement(maps, words), self.grid
        )


def map_size(model: Any, wanted: Grid | None) -> Grid:
    r"""(height, width) of the maps of a model: `wanted`, or what its `dnp.json` says, or a quarter of the latents'.

    Raises:
        DNPError: The model has no such U-Net, or does not attend there.
    """
    if not hasattr(model, "unet") or not hasattr(model, "texts"):
        raise DNPError(f"the model {model.name} has no U-Net to look into: give a Stable Diffusion 1.x, 2.x or XL")
    _, height, width = model.shape
    return resolution(model.unet, (height, width), wanted, model.defaults.attention)


def excitement(maps: Maps, words: Sequence[tuple[Words, list[str]]]) -> Tensor:
    r"""The loss of each sample :math:`(B)`: how far the word attended to least is from being attended to fully.

    Args:
        words: Of each sample, its prompt and the words to attend to.
    """
    line = torch.tensor([-1.0, 0.0, 1.0])
    kernel = torch.exp(-((line / (2 * _BLUR)) ** 2))
    mean = maps.mean
    kernel = (kernel[:, None] * kernel / kernel.sum() ** 2).to(mean)
    losses = []
    for attention, (said, chosen) in zip(mean, words, strict=True):
        share = (_SHARPNESS * said.maps(attention)).softmax(-1)
        found = torch.stack([word_map(share, said.tokens(word)) for word in chosen]).unflatten(-1, maps.grid)
        smooth = F.conv2d(F.pad(found[:, None], (1, 1, 1, 1), mode="reflect"), kernel[None, None])
        losses.append((1 - smooth.flatten(1).amax(1)).clamp(min=0).amax())
    return torch.stack(losses)
