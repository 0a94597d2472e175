"""The judges' training: on a map of cells, which thing has its middle where, in which colour; the place; worn."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from eval.metrics.judge import CELLS, Judge, JudgeNet
from eval.world import COLOURS, NOUNS, PLACES
from training.data import Pictures
from training.loop import fit
from training.render import SIZE, Layout

_COLOURS = list(COLOURS)
_IGNORED = -100


def targets(layouts: list[Layout]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nouns (B, 24, 8, 8): 1 in the cell of a thing's middle, −1 (either will do) in the cells around it; the colours'
    indices (B, 8, 8) in those cells, −100 elsewhere; the places (B,); worn (B,)."""
    nouns = torch.zeros(len(layouts), len(NOUNS), CELLS, CELLS)
    colours = torch.full((len(layouts), CELLS, CELLS), _IGNORED)
    places = torch.tensor([PLACES.index(layout.scene.place or "white") for layout in layouts])
    worn = torch.tensor([float(layout.scene.worn) for layout in layouts])
    for i, layout in enumerate(layouts):
        for thing, (_, x, y, _) in zip(layout.scene.things, layout.places, strict=True):
            row, column = (min(int(value * CELLS / SIZE), CELLS - 1) for value in (y, x))
            around = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
            channel = nouns[i, NOUNS.index(thing.noun)]
            channel[around] = -1
            channel[row, column] = 1
            if thing.colour:
                colours[i][around] = _COLOURS.index(thing.colour)
    return nouns, colours, places, worn


def disturb(x: Tensor, rng: torch.Generator) -> Tensor:
    """What a generated picture may look like: shifted by at most two pixels, a little blur, noise, other colours."""
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    top, left = torch.randint(0, 5, (2,), generator=rng).tolist()
    x = padded[..., top : top + x.shape[-2], left : left + x.shape[-1]]
    amount = torch.rand(x.shape[0], 1, 1, 1, generator=rng)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, blurred, amount)
    x = x + 0.1 * torch.rand(x.shape[0], 1, 1, 1, generator=rng) * torch.randn(x.shape, generator=rng)
    return (x + 0.03 * torch.randn(x.shape[0], 3, 1, 1, generator=rng)).clamp(-1, 1)


def mixed(pictures: Pictures, again: Pictures | None, index: Tensor, rng: torch.Generator) -> Tensor:
    """The pictures at `index`; half of them as the autoencoder gives them back, if those are there."""
    x = pictures.batch(index)
    if again is not None:
        half = torch.rand(len(index), generator=rng) < 0.5
        x = torch.where(half[:, None, None, None], again.batch(index), x)
    return x


def train(
    pictures: Pictures,
    steps: int,
    work: Path,
    name: str = "judge",
    architecture: str = "residual",
    again: Pictures | None = None,
    start: Judge | None = None,
    lr: float = 2e-3,
) -> Judge:
    """Train on drawn pictures or, with `again`, half of the time on the same after the autoencoder.

    Args:
        again: the pictures as the autoencoder gives them back; of the first so many drawn ones.
        start: train this one further.
    """
    net = start.net if start else JudgeNet(architecture)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    count = len((again or pictures).layouts)
    batch = 32

    def loss(rng: torch.Generator, step: int) -> Tensor:
        index = torch.randint(count, (batch,), generator=rng)
        wanted, shades, places, worn = targets([pictures.layouts[i] for i in index.tolist()])
        x = disturb(mixed(pictures, again, index, rng), rng).contiguous(memory_format=torch.channels_last)
        nouns, colours, place, wears = net(x)
        there = F.binary_cross_entropy_with_logits(nouns, wanted.clamp(min=0), reduction="none")
        there = torch.where(wanted < 0, 0.0, there) * torch.where(wanted > 0, 4.0, 1.0)
        return (
            there.sum() / batch
            + F.cross_entropy(colours, shades)
            + 0.5 * F.cross_entropy(place, places)
            + 0.5 * F.binary_cross_entropy_with_logits(wears, worn)
        )

    def look(step: int) -> None:
        print(f"{name}, step {step}: {right(Judge(net=net), pictures, again):.3f} of whole scenes", flush=True)

    fit(name, net, loss, steps, work, lr=lr, ema=0.99, look=look)
    return Judge(net=net)


def right(judge: Judge, pictures: Pictures, again: Pictures | None = None, count: int = 256) -> float:
    """The share of whole scenes read right, of the last so many pictures (after the autoencoder, with `again`)."""
    shown = again or pictures
    index = torch.arange(max(len(shown.layouts) - count, 0), len(shown.layouts))
    seen = judge.read(shown.batch(index))
    return sum(a.same_as(shown.layouts[i].scene) for a, i in zip(seen, index.tolist(), strict=True)) / len(index)
