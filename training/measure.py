"""How good the trained parts are, by the world's judge, on pictures and prompts that were not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from captioning import Transformers
from dnp.models.stable_diffusion import StableDiffusion
from dnp.recipe import Sampling, paint
from eval.adherence import Verdict, verdict
from eval.judge import Judge
from eval.statistics import interval
from eval.world import Scene, describe, parse
from guidance import Guidance
from training.data import Pictures


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
    """A share and the half-width of its 95 % interval (Wilson's)."""
    p, low, high = interval([float(value) for value in values])
    return p, (high - low) / 2


def agrees(caption: str, scene: Scene) -> bool:
    """Whether a caption says exactly what a scene shows."""
    try:
        return parse(caption).same_as(scene)
    except ValueError:
        return False


@torch.no_grad()
def parts(folder: Path, drawn: Pictures) -> dict[str, float]:
    """How good the packed parts in `folder` are on drawn pictures, as shares of right answers."""
    import open_clip

    scenes = [layout.scene for layout in drawn.layouts]
    pixels = drawn.batch(torch.arange(len(scenes)))
    images = [Image.fromarray(image) for image in drawn.pixels]
    judge, model = Judge(folder / "judge"), StableDiffusion(str(folder))
    again = torch.cat([model.autoencoder(part).sample.clamp(-1, 1) for part in pixels.split(32)])
    captions = Transformers(folder / "captioner")(images)
    clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder / 'clip'}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder / 'clip'}")([describe(scene) for scene in scenes])
    views = torch.stack([preprocess(image) for image in images])
    clip.eval()
    firsts = [
        (clip.encode_image(view, normalize=True) @ clip.encode_text(text, normalize=True).T).argmax(1)
        == torch.arange(len(view))
        for view, text in zip(views.split(64), tokens.split(64), strict=True)
    ]
    return {
        "judge, whole scene": _share(
            read.same_as(scene) for read, scene in zip(judge.read(pixels), scenes, strict=True)
        ),
        "autoencoder, whole scene as judged": _share(
            read.same_as(scene) for read, scene in zip(judge.read(again), scenes, strict=True)
        ),
        "autoencoder, things as judged": _share(
            set(read.things) == set(scene.things) for read, scene in zip(judge.read(again), scenes, strict=True)
        ),
        "captioner, whole scene": _share(agrees(text, scene) for text, scene in zip(captions, scenes, strict=True)),
        "CLIP, right caption of 64": float(torch.cat(firsts).float().mean()),
    }


def _share(values: Iterable[bool]) -> float:
    return float(np.mean(list(values)))
