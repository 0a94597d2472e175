"""The judge's training: heat maps of where the shapes are, the colour at each, the background's colour and pattern."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from eval.metrics.judge import Judge, JudgeNet
from eval.world import COLOURS, PATTERNS, SHAPES
from training.data import Pictures
from training.loop import fit
from training.render import SIZE, Layout

_COLOURS = list(COLOURS)


def targets(layouts: list[Layout], flip: Tensor, cells: int = SIZE // 4) -> tuple[Tensor, Tensor, Tensor]:
    """Where things are: heat (B, shapes, h, w) with a bump at each centre, the colour's index at each centre
    (B, h, w; −100 elsewhere), and the background's colour and pattern (B, 2)."""
    heat = torch.zeros(len(layouts), len(SHAPES), cells, cells)
    colour = torch.full((len(layouts), cells, cells), -100)
    ground = torch.zeros(len(layouts), 2, dtype=torch.long)
    axis = torch.arange(cells)
    for i, layout in enumerate(layouts):
        ground[i, 0] = _COLOURS.index(layout.scene.colour or "white")
        ground[i, 1] = PATTERNS.index(layout.scene.pattern or "plain")
        for thing, (x, y, _) in zip(layout.scene.things, layout.places, strict=True):
            x = SIZE - x if flip[i] else x
            cx, cy = min(int(x * cells / SIZE), cells - 1), min(int(y * cells / SIZE), cells - 1)
            far = (axis[:, None] - cy).square() + (axis[None] - cx).square()
            channel = SHAPES.index(thing.shape)
            heat[i, channel] = torch.maximum(heat[i, channel], torch.exp(-far / 2.0))
            colour[i, max(cy - 1, 0) : cy + 2, max(cx - 1, 0) : cx + 2] = _COLOURS.index(thing.colour or "black")
    return heat, colour, ground


def disturb(x: Tensor, rng: torch.Generator) -> Tensor:
    """What a generated picture may look like: a little blur, noise and a shift of colours."""
    amount = torch.rand(x.shape[0], 1, 1, 1, generator=rng)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, blurred, amount)
    x = x + 0.1 * torch.rand(x.shape[0], 1, 1, 1, generator=rng) * torch.randn(x.shape, generator=rng)
    return (x + 0.05 * torch.randn(x.shape[0], 3, 1, 1, generator=rng)).clamp(-1, 1)


def train(pictures: Pictures, steps: int, work: Path) -> Judge:
    net = JudgeNet()

    def loss(rng: torch.Generator, step: int) -> Tensor:
        index = torch.randint(len(pictures.layouts), (32,), generator=rng)
        flip = torch.rand(32, generator=rng) < 0.5
        heat, colour, ground = targets([pictures.layouts[i] for i in index.tolist()], flip)
        maps, grounds = net(disturb(pictures.batch(index, flip), rng))
        place = maps[:, : len(SHAPES)]
        probability = place.sigmoid()
        # CenterNet's focal loss (Zhou et al. 2019, https://arxiv.org/abs/1904.07850): few cells hold a centre
        peak = heat == 1
        focal = torch.where(
            peak,
            (1 - probability).square() * -F.logsigmoid(place),
            (1 - heat) ** 4 * probability.square() * -F.logsigmoid(-place),
        )
        return (
            focal.sum() / peak.sum().clamp(min=1)
            + F.cross_entropy(maps[:, len(SHAPES) :], colour)
            + F.cross_entropy(grounds[:, : len(COLOURS)], ground[:, 0])
            + F.cross_entropy(grounds[:, len(COLOURS) :], ground[:, 1])
        )

    fit("judge", net, loss, steps, work, lr=2e-3, ema=0.99)
    return Judge(net=net)
