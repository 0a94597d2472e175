"""The training pictures: drawn once, kept in the work folder, the same for every part."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from training.drawings import Drawings
from training.render import SIZE, Layout, draw, random_layout


@dataclass(frozen=True)
class Pictures:
    """Drawn pictures (N, 64, 64, 3), uint8, and the layout of each."""

    pixels: np.ndarray
    layouts: list[Layout]

    def batch(self, indices: Tensor) -> Tensor:
        """The pictures at `indices` as (B, 3, 64, 64) in [−1, 1]."""
        return torch.from_numpy(self.pixels[indices.numpy()]).permute(0, 3, 1, 2).float() / 127.5 - 1


def _layout(seed: int, index: int, drawings: Drawings) -> tuple[Layout, random.Random]:
    rng = random.Random(f"{seed}/{index}")
    return random_layout(rng, drawings), rng


_drawings: Drawings = {}


def _share(drawings: Drawings) -> None:
    _drawings.update(drawings)


def _pixels(job: tuple[int, int]) -> np.ndarray:
    layout, rng = _layout(*job, _drawings)
    return np.asarray(draw(layout, rng, _drawings))


def pictures(work: Path, count: int, drawings: Callable[[], Drawings], seed: int = 0) -> Pictures:
    """`count` pictures; picture i depends on (seed, i) alone, so a stopped run draws the same ones again."""
    path = work / f"pictures-{seed}-{count}.npy"
    jobs = [(seed, index) for index in range(count)]
    art = drawings()
    if not path.exists():
        pixels = np.empty((count, SIZE, SIZE, 3), np.uint8)
        with Pool(initializer=_share, initargs=(art,)) as pool:
            for index, image in enumerate(tqdm(pool.imap(_pixels, jobs, 64), "drawing", count, mininterval=2)):
                pixels[index] = image
        with open(partial := path.with_suffix(".part"), "wb") as file:
            np.save(file, pixels)
        partial.replace(path)
    return Pictures(np.load(path), [_layout(*job, art)[0] for job in jobs])
