"""How good the trained parts are, by the world's judge, on pictures and prompts that were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from dnp.recipe import Sampling, paint
from dnp.stable_diffusion import StableDiffusion
from eval.judge import Judge
from eval.world import Scene, parse
from guidance import Guidance


@dataclass(frozen=True)
class Verdict:
    """What the judge says of a picture against its prompt."""

    right: bool  # everything that the prompt names is there, in its colour
    neglected: bool  # a shape that the prompt names is not there at all


def verdict(seen: Scene, prompt: str) -> Verdict:
    wanted = parse(prompt).things
    return Verdict(all(map(seen.holds, wanted)), any(map(seen.neglects, wanted)))


def adherence(
    model: StableDiffusion,
    judge: Judge,
    guidance: Guidance,
    texts: dict[str, Sequence[str]],
    seeds: Sequence[int],
    sampling: Sampling,
    batch: int = 50,
) -> tuple[list[Verdict], list[Image.Image]]:
    """The verdicts on the pictures of many prompts and seeds, and the pictures."""
    images: list[Image.Image] = []
    for start in range(0, len(seeds), batch):
        part = {name: values[start : start + batch] for name, values in texts.items()}
        images += paint(model, guidance, part, seeds[start : start + batch], sampling)[0]
    return [verdict(seen, prompt) for seen, prompt in zip(judge(images), texts["prompt"], strict=True)], images


def share(values: Sequence[bool]) -> tuple[float, float]:
    """A share and the half-width of its 95 % interval."""
    p = float(np.mean(values))
    return p, 1.96 * (p * (1 - p) / len(values)) ** 0.5


def gain(
    these: Sequence[bool], those: Sequence[bool], clusters: Sequence[str], draws: int = 2000
) -> tuple[float, float, float]:
    """The mean paired difference with its 95 % interval, by a bootstrap of whole prompts."""
    difference = np.asarray(these, float) - np.asarray(those, float)
    groups = [difference[np.asarray(clusters) == name] for name in dict.fromkeys(clusters)]
    sums, sizes = np.array([g.sum() for g in groups]), np.array([len(g) for g in groups])
    picks = np.random.default_rng(0).integers(len(groups), size=(draws, len(groups)))
    low, high = np.quantile(sums[picks].sum(1) / sizes[picks].sum(1), [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)


@torch.no_grad()
def scene_share(judge: Judge, pixels: torch.Tensor, scenes: Sequence[Scene]) -> float:
    """The share of pictures (N, 3, 64, 64) whose whole scene the judge reads right."""
    read = [scene for part in pixels.split(256) for scene in judge.read(part)]
    return float(np.mean([a.same_as(b) for a, b in zip(read, scenes, strict=True)]))
