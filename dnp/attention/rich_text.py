r"""Rich text: regions of a picture, each with a prompt of its own, whose guidance is still a formula.

.. math:: \hat\epsilon = \epsilon(u) + s \sum_r M_r (\epsilon(p_r) - \epsilon(u)), \qquad \sum_r M_r = 1

The masks are boxes, or are taken from a plain pass: self-attention tells which points belong together, and
cross-attention which of these segments a word is about. With R regions beside the rest there are R + 2 evaluations.

References:
    Expressive text-to-image generation with rich text, Ge et al., ICCV 2023, https://arxiv.org/abs/2304.06720
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dnp.attention.attend_and_excite import map_size
from dnp.attention.layers import Grid
from dnp.attention.maps import capture
from dnp.attention.words import word_map, words_of
from dnp.errors import DNPError
from guidance import Guidance, prediction
from samplers import Step

_SEGMENTS, _SHARE, _ROUNDS = 9, 0.3, 20


def regional(scale: float, masks: Mapping[str, Tensor]) -> Guidance:
    r"""The guidance of regions.

    Args:
        scale: Of guidance, :math:`s`.
        masks: Name of a condition → where it counts, :math:`(B, 1, H, W)` on the latents, or with a batch of one.

    Raises:
        DNPError: The masks do not sum to one at each point.
    """
    total = torch.stack(list(masks.values())).sum(0)
    if not torch.allclose(total, torch.ones_like(total), atol=1e-4):
        raise DNPError(
            f"masks sum to one at each point: here from {total.min().item():.3g} to {total.max().item():.3g}"
        )
    u, found = prediction("empty"), prediction("empty")
    for name, mask in masks.items():
        found = found + (scale * mask) * (prediction(name) - u)
    return found


def boxes(
    size: Grid, regions: Mapping[str, tuple[float, float, float, float]], rest: str = "prompt"
) -> dict[str, Tensor]:
    r"""The masks :math:`(1, 1, H, W)` of boxes; where boxes meet, the later one counts.

    Args:
        size: (height, width) of the latents.
        regions: Name → (left, top, right, bottom), as fractions of the picture.
        rest: The name of what is in no box.

    Raises:
        DNPError: A box is outside the picture, or empty.
    """
    height, width = size
    found = {rest: torch.ones(1, 1, height, width)}
    for name, (left, top, right, bottom) in regions.items():
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise DNPError(
                f"the box of {name!r} is left, top, right, bottom, fractions of the picture from 0 to 1, not empty: "
                f"not {left}, {top}, {right}, {bottom}"
            )
        rows, columns = (
            slice(round(top * height), round(bottom * height)),
            slice(round(left * width), round(right * width)),
        )
        found[name] = torch.zeros_like(found[rest])
        for other, mask in found.items():
            mask[..., rows, columns] = float(other == name)
        if not found[name].any():
            raise DNPError(
                f"the box of {name!r} is smaller than a point of the latents, {width}x{height}: make it larger"
            )
    return found


class Segmenting:
    r"""What `samplers.sample` takes as its hook in a plain pass: it sums up the attention, and changes nothing.

    Args:
        model: A text-to-image model with a `unet` and `texts`.
        prompts: As many as samples.
        regions: Name → the word that it is about: see `dnp.attention.words`.
        size: (height, width) of the maps; what the model says by default, or a quarter of the latents'.

    Raises:
        DNPError: A word is not in a prompt; the network does not attend at the resolution.
    """

    def __init__(
        self, model: Any, prompts: Sequence[str], regions: Mapping[str, str], size: Grid | None = None
    ) -> None:
        self.model, self.condition, self.regions = model, model.encode(prompts), dict(regions)
        self.words = [words_of(model.texts, prompt, list(regions.values()))[0] for prompt in prompts]
        self.grid = map_size(model, size)
        self.own, self.cross = torch.zeros(()), torch.zeros(())

    @torch.no_grad()
    def __call__(self, step: Step) -> None:
        with capture(self.model.unet, (step.x.shape[-2], step.x.shape[-1]), self.grid, own=True, stop=True) as maps:
            self.model.denoiser(step.x, step.sigma, **self.condition)
        self.own = self.own.to(step.x.device) + torch.cat(maps.own, 1).float().mean(1)
        self.cross = self.cross.to(step.x.device) + maps.mean

    def masks(self, rest: str = "prompt") -> dict[str, Tensor]:
        r"""Name of each region, and of the rest → its mask :math:`(B, 1, H, W)` on the latents."""
        found = []
        for own, cross, words in zip(self.own, self.cross, self.words, strict=True):
            read = words.maps(cross)
            heat = torch.stack([word_map(read, words.tokens(word)) for word in self.regions.values()])
            found.append(assigned(segments(own, min(_SEGMENTS, len(own))), heat / heat.amax(1, keepdim=True)))
        masks = torch.stack(found).unflatten(-1, self.grid)
        wide = F.interpolate(masks, self.model.shape[1:], mode="bilinear")
        rest_of = {rest: 1 - wide.sum(1, keepdim=True)}
        return {**rest_of, **{name: wide[:, i : i + 1] for i, name in enumerate(self.regions)}}


def segments(attention: Tensor, count: int) -> Tensor:
    r"""The segment of each point, by k-means on what points attend to :math:`(H W, H W)`.

    It begins with the point nearest to the mean, and then with what is farthest from all before: nothing is drawn.
    """
    first = (attention - attention.mean(0)).norm(dim=1).argmin()
    centres = attention[first][None]
    while len(centres) < count:
        far = torch.cdist(attention, centres).amin(1).argmax()
        centres = torch.cat([centres, attention[far][None]])
    for _ in range(_ROUNDS):
        label = torch.cdist(attention, centres).argmin(1)
        means = [attention[label == k].mean(0) if (label == k).any() else centres[k] for k in range(count)]
        centres = torch.stack(means)
    return label


def assigned(label: Tensor, heat: Tensor) -> Tensor:
    r"""The masks :math:`(R, H W)` of regions: each segment is that region's whose map is the brightest there, if it is
    more than .3 of the map's most.

    Args:
        label: The segment of each point :math:`(H W)`.
        heat: Maps of the regions' words :math:`(R, H W)`, at most 1.
    """
    masks = torch.zeros_like(heat)
    for segment in label.unique():
        here = label == segment
        share, region = heat[:, here].mean(1).max(0)
        if share > _SHARE:
            masks[region, here] = 1
    return masks
