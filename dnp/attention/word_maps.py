r"""Where a picture attends to each word of its prompt, as a sheet to look at.

A word's map is its cross-attention, the mean of all heads, layers of one resolution, and steps.

References:
    What the DAAM: interpreting Stable Diffusion using cross attention, Tang et al., ACL 2023,
    https://arxiv.org/abs/2210.04885
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dnp.attention.attend_and_excite import map_size
from dnp.attention.layers import Grid
from dnp.attention.maps import capture
from dnp.attention.words import word_map, words_of
from dnp.recipe import Sampling, paint
from dnp.runs.contact_sheet import Cell, sheet
from guidance import CFG, Guidance
from samplers import Step


class Looking:
    r"""What `samplers.sample` takes as its hook: it sums up the maps of words, and changes nothing.

    Each step costs one more forward of each sample, up to the last layer that is looked at.

    Args:
        model: A text-to-image model with a `unet` and `texts`.
        prompts: As many as samples.
        words: Of the prompts, the last word of each entity by default: see `dnp.attention.words`.
        size: (height, width) of the maps; what the model says by default, or a quarter of the latents'.

    Raises:
        DNPError: A word is not in a prompt; the network does not attend at the resolution.
    """

    def __init__(
        self, model: Any, prompts: Sequence[str], words: Sequence[str] | None = None, size: Grid | None = None
    ) -> None:
        self.model, self.condition = model, model.encode(prompts)
        self.words = [words_of(model.texts, prompt, words) for prompt in prompts]
        self.grid = map_size(model, size)
        self.steps, self.total = 0, torch.zeros(())

    @torch.no_grad()
    def __call__(self, step: Step) -> None:
        with capture(self.model.unet, (step.x.shape[-2], step.x.shape[-1]), self.grid, stop=True) as maps:
            self.model.denoiser(step.x, step.sigma, **self.condition)
        self.total = self.total.to(step.x.device) + maps.mean
        self.steps += 1

    def among(self, guided: Any, conditions: Any, step: Step) -> None:
        r"""The same as `paint` calls it."""
        self(step)

    def maps(self) -> list[dict[str, Tensor]]:
        r"""Of each sample, word → its map :math:`(h, w)`, from 0 to 1 where all attention is the word's."""
        return [
            {word: word_map(said.maps(mean), said.tokens(word)).unflatten(-1, self.grid) for word in chosen}
            for mean, (said, chosen) in zip(self.total / self.steps, self.words, strict=True)
        ]


def word_maps(
    model: Any,
    prompt: str,
    seeds: Sequence[int] = (0,),
    words: Sequence[str] | None = None,
    *,
    guidance: Guidance | None = None,
    sampling: Sampling | None = None,
    size: Grid | None = None,
    start: Mapping[str, Any] = MappingProxyType({}),
) -> Image.Image:
    r"""A row for each seed: the picture, and over it the map of each word, each as bright as its own maximum allows.

    Args:
        model: A text-to-image model with a `unet` and `texts`.
        words: Of the prompt, the last word of each entity by default: see `dnp.attention.words`.
        guidance: Of the prompt and "empty"; classifier-free guidance at the model's scale by default.
        sampling: The model's own by default.
        size: (height, width) of the maps; what the model says by default, or a quarter of the latents'.
        start: `init`, `denoise` and `mask` as `paint` takes them.

    Raises:
        DNPError: A word is not in the prompt; the network does not attend at the resolution.
    """
    how = model.defaults
    guidance = guidance or CFG(how.scale)
    sampling = sampling or Sampling(how.sampler, how.schedule, how.steps)
    rows = []
    for seed in seeds:
        looking = Looking(model, [prompt], words, size)
        (picture,), _ = paint(model, guidance, {"prompt": [prompt]}, [seed], sampling, hook=looking.among, **start)
        (maps,) = looking.maps()
        cells = [Cell(over(picture, heat), word, f"most {heat.max().item():.3f}") for word, heat in maps.items()]
        rows.append([Cell(picture, f"seed {seed}", str(guidance)), *cells])
    return sheet(prompt, rows)


def over(picture: Image.Image, heat: Tensor) -> Image.Image:
    r"""A map :math:`(h, w)` in colours over its picture in gray, larger and smooth."""
    from matplotlib import colormaps

    # A small picture would show a small map: both are enlarged, as on the sheet
    scale = max(1, 256 // max(picture.size))
    wide = picture.width * scale, picture.height * scale
    levels = (heat / heat.max().clamp(min=1e-12)).mul(255).round().to(torch.uint8).cpu().numpy()
    smooth = np.asarray(Image.fromarray(levels).resize(wide, Image.Resampling.BICUBIC), np.float64)[..., None] / 255
    colours = colormaps["turbo"](smooth[..., 0])[..., :3]
    gray = np.asarray(picture.convert("L").resize(wide, Image.Resampling.NEAREST), np.float64)[..., None] / 255
    mixed = gray * 0.5 + colours * 0.5
    return Image.fromarray((mixed * 255).round().astype(np.uint8))
