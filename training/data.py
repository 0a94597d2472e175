"""The training pictures: drawn once, kept in the work folder, the same for every stage."""

from __future__ import annotations

import random
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from training.render import SIZE, Layout, draw, random_layout


@dataclass(frozen=True)
class Pictures:
    """Drawn pictures (N, 64, 64, 3), uint8, and the layout of each."""

    pixels: np.ndarray
    layouts: list[Layout]

    def batch(self, indices: Tensor, flip: Tensor | None = None) -> Tensor:
        """The pictures at `indices` as (B, 3, 64, 64) in [−1, 1]; those with `flip` set are mirrored."""
        x = torch.from_numpy(self.pixels[indices.numpy()]).permute(0, 3, 1, 2).float() / 127.5 - 1
        return x if flip is None else torch.where(flip[:, None, None, None], x.flip(-1), x)


def _layout(seed: int, index: int) -> tuple[Layout, random.Random]:
    rng = random.Random(f"{seed}/{index}")
    return random_layout(rng), rng


def _pixels(job: tuple[int, int]) -> np.ndarray:
    return np.asarray(draw(*_layout(*job)))


def pictures(work: Path, count: int, seed: int = 0) -> Pictures:
    """`count` pictures; picture i depends on (seed, i) alone, so a cut-off run draws the same ones again."""
    path = work / f"pictures-{seed}-{count}.npy"
    jobs = [(seed, index) for index in range(count)]
    if not path.exists():
        pixels = np.empty((count, SIZE, SIZE, 3), np.uint8)
        with Pool() as pool:
            for index, image in enumerate(tqdm(pool.imap(_pixels, jobs, 64), "drawing", count, mininterval=2)):
                pixels[index] = image
        partial = path.with_suffix(".part.npy")
        np.save(partial, pixels)
        partial.replace(path)
    return Pictures(np.load(path), [_layout(*job)[0] for job in jobs])
