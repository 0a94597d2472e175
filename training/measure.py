"""How good the trained parts are, on pictures and prompts that were not trained on.

    python -m training.measure FOLDER [--seeds 4] [--scales 3,5,7.5,10]

tells how often plain guidance gets both things of Attend-and-Excite's prompts right, by the second judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from captioning import Transformers
from dnp.models.stable_diffusion import StableDiffusion
from dnp.recipe import Sampling, paint
from eval.metrics.adherence import Verdict, verdict
from eval.metrics.judge import Judge
from eval.prompts import Prompt, prompt_set
from eval.statistics import Factors, mean
from eval.world import Scene, Thing, describe, parse, unseen
from guidance import CFG, Guidance
from training.data import Pictures

SAMPLING: dict[str, Any] = {"sampler": "dpmpp_2m", "schedule": "karras", "steps": 12}


def pictures_of(
    model: StableDiffusion,
    guidance: Guidance,
    texts: dict[str, Sequence[str]],
    seeds: Sequence[int],
    sampling: Sampling,
    batch: int = 64,
) -> list[Image.Image]:
    """The pictures of many prompts and seeds."""
    images: list[Image.Image] = []
    for start in range(0, len(seeds), batch):
        part = {name: values[start : start + batch] for name, values in texts.items()}
        images += paint(model, guidance, part, seeds[start : start + batch], sampling)[0]
    return images


def verdicts(judge: Judge, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[Verdict]:
    return [verdict(seen, prompt) for seen, prompt in zip(judge(images), prompts, strict=True)]


def share(values: Sequence[bool], factors: Factors) -> tuple[float, float]:
    """A share and the half-width of its 95 % interval over prompts and seeds; NaN where there are too few of them."""
    found = mean([float(value) for value in values], factors, binary=True)
    return found.mean, (found.high - found.low) / 2


def agrees(caption: str, scene: Scene) -> bool:
    """Whether a caption says exactly what a scene shows."""
    try:
        return parse(caption).same_as(scene)
    except ValueError:
        return False


def groups(prompts: Sequence[Prompt]) -> dict[str, list[bool]]:
    """Which prompts are of which group: all, the three categories, "with", pairs never seen in training and others."""
    pairs = [[thing.noun for thing in parse(prompt.text).things] for prompt in prompts]
    found = {"all": [True] * len(prompts)}
    for category in dict.fromkeys(prompt.category for prompt in prompts):
        found[category] = [prompt.category == category for prompt in prompts]
    found['"with"'] = [" with " in prompt.text for prompt in prompts]
    found["unseen pairs"] = [unseen(*pair) for pair in pairs]
    found["seen pairs"] = [not unseen(*pair) for pair in pairs]
    return found


def plain(
    model: StableDiffusion, judge: Judge, prompts: Sequence[Prompt], seeds: int, scale: float
) -> dict[str, tuple[float, float]]:
    """Both right by plain guidance at a scale, by group of prompts; "neglected" of all; "worn" of those with "with"."""
    every = [prompt for prompt in prompts for _ in range(seeds)]
    texts = [prompt.text for prompt in every]
    numbers = list(range(seeds)) * len(prompts)
    images = pictures_of(model, CFG(scale), {"prompt": texts}, numbers, Sampling(**SAMPLING))
    seen = judge(images)
    found = [verdict(scene, text) for scene, text in zip(seen, texts, strict=True)]

    def of(values: Sequence[bool], members: Sequence[bool]) -> tuple[float, float]:
        chosen = [i for i, member in enumerate(members) if member]
        factors: Factors = {"prompt": [texts[i] for i in chosen], "seed": [numbers[i] for i in chosen]}
        return share([values[i] for i in chosen], factors)

    right = [v.right for v in found]
    told = groups(every)
    table = {name: of(right, members) for name, members in told.items() if any(members)}
    table["neglected"] = of([v.neglected for v in found], told["all"])
    if any(told['"with"']):
        table['worn, of "with"'] = of([scene.worn for scene in seen], told['"with"'])
    return table


@torch.no_grad()
def parts(folder: Path, drawn: Pictures) -> dict[str, float]:
    """How good the packed parts in `folder` are on drawn pictures, as shares of right answers."""
    import open_clip

    scenes = [layout.scene for layout in drawn.layouts]
    pixels = drawn.batch(torch.arange(len(scenes)))
    images = [Image.fromarray(image) for image in drawn.pixels]
    model = StableDiffusion(str(folder))
    again = torch.cat([model.autoencoder(part).sample.clamp(-1, 1) for part in pixels.split(64)])
    captions = Transformers(folder / "captioner")(images)
    clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder / 'clip'}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder / 'clip'}")
    clip.eval()
    views = torch.stack([preprocess(image) for image in images])
    seen = torch.cat([clip.encode_image(part, normalize=True) for part in views.split(64)])
    told = torch.cat(
        [clip.encode_text(part, normalize=True) for part in tokenize([describe(scene) for scene in scenes]).split(64)]
    )
    firsts = [(a @ b.T).argmax(1) == torch.arange(len(a)) for a, b in zip(seen.split(64), told.split(64), strict=True)]
    found = {"autoencoder, L1 (values −1 to 1)": float((again - pixels).abs().mean())}
    for name, label in (("judge", "judge"), ("judge2", "second judge")):
        judge = Judge(folder / name)
        for kind, shown in (("drawn", pixels), ("after the autoencoder", again)):
            read = judge.read(shown)
            pairs = list(zip(read, scenes, strict=True))
            found[f"{label}, {kind}: whole scene"] = _mean(a.same_as(b) for a, b in pairs)
            found[f"{label}, {kind}: things in their colours"] = _mean(set(a.things) == set(b.things) for a, b in pairs)
    found["captioner, whole scene"] = _mean(agrees(text, scene) for text, scene in zip(captions, scenes, strict=True))
    found["CLIP, right caption of 64"] = float(torch.cat(firsts).float().mean())
    return found | _curves(clip, tokenize, seen, scenes)


def _curves(clip: Any, tokenize: Any, seen: torch.Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """Of CLIP's minimum over objects, the area under the curve: a picture with both things against one with one.

    For each picture of two things, the prompt that names them is compared with one whose second thing is another
    picture's.
    """
    from scipy.stats import rankdata

    two = [i for i, scene in enumerate(scenes) if len(scene.things) == 2 and not scene.worn]
    values: dict[str, tuple[list[float], list[float]]] = {}
    for i, j in zip(two, two[1:] + two[:1], strict=True):
        first, second = scenes[i].things
        other = next((t for t in scenes[j].things if not scenes[i].holds(Thing(t.noun))), None)
        if other is None:
            continue
        texts = tokenize([describe(Scene((thing,))) for thing in (first, second, other)])
        a, b, c = (clip.encode_text(texts, normalize=True) @ seen[i]).tolist()
        animals = sum(thing.colour is None for thing in (first, second))
        name = ("object-object", "animal-object", "animal-animal")[animals]
        right, wrong = values.setdefault(name, ([], []))
        right.append(min(a, b))
        wrong.append(min(a, c))
    found = {}
    for name, (right, wrong) in sorted(values.items()):
        ranks = rankdata(right + wrong)[: len(right)].sum() - len(right) * (len(right) + 1) / 2
        found[f"CLIP, minimum over objects, area under the curve, {name}"] = float(ranks / (len(right) * len(wrong)))
    return found


def _mean(values: Iterable[bool]) -> float:
    return float(np.mean(list(values)))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--prompts", default="attend-and-excite", show_default=True, help="A prompt set by name, or a file.")
@click.option("--per-category", type=click.IntRange(1), help="So many prompts of each category; all unless given.")
@click.option("--seeds", type=click.IntRange(1), default=4, show_default=True, help="Seeds of each prompt, from 0.")
@click.option("--scales", default="3,5,7.5,10", show_default=True, help="Scales of plain guidance.")
@click.option("--judge", default="judge2", show_default=True, help="The judge's folder in the model's.")
def main(folder: Path, prompts: str, per_category: int | None, seeds: int, scales: str, judge: str) -> None:
    """How often plain guidance gets both things right, by category, pairs seen in training or not, and scale."""
    model, reader = StableDiffusion(str(folder)), Judge(folder / judge)
    for scale in map(float, scales.split(",")):
        rows = plain(model, reader, prompt_set(prompts, per_category), seeds, scale)
        click.echo(f"scale {scale:g}: " + ", ".join(f"{name} {p:.3f} ± {half:.3f}" for name, (p, half) in rows.items()))


if __name__ == "__main__":
    main()
