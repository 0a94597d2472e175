"""The embedded model's card: what it is, what it was trained on, how good it is, and what it is not."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.statistics import Gain
from eval.world import ANIMALS, COLOURS, NOUNS, OBJECTS, SCENES, UNSEEN
from training.drawings import SETS

_CARD = """\
# The embedded model: a tiny Stable Diffusion that draws the prompts of Attend-and-Excite

Made from nothing by `make train` in this repository, so that every command of dnp works offline and every path that a
real checkpoint takes is the path that tests take. It has Stable Diffusion 1's parts in diffusers' directory format
(U-Net of {unet:.1f} M parameters with ε-prediction and the scaled-linear schedule, CLIP text encoder of 2 layers,
autoencoder with 16 × 16 × 4 latents of 64 × 64 pixels), weights in float16 safetensors. Beside it: `captioner/` (a
small BLIP for transformers), `clip/` (a small CLIP for open_clip), and two judges of different architectures that read
which things stand where in which colours: `judge/`, by which settings are chosen, and `judge2/`, for
results. `dnp.json` holds the words that it knows and the settings that suit it.

## Trained on

{pictures} pictures drawn by `training/render.py`: up to two of {animals} (in their own colours) and {objects}
(tinted {colours}), side by side, or a bow, a crown or glasses worn by an animal; {scenes}, or on a plain background of
one of the colours. The drawings are emoji, three of each noun, fetched from the npm registry for training and not kept
here:

{licences}

Three benches are drawn by code. Twemoji's drawings are by Twitter, Inc and other contributors, licensed under CC-BY 4.0
(https://creativecommons.org/licenses/by/4.0/), and were tinted and scaled for training.

Captions are in the benchmark's forms ("a cat and a red balloon on a beach"), say all or part of a picture, name things
from left to right nine times in ten, and are empty one time in ten. {unseen} of the {pairs} pairs of nouns (by the hash
in `eval.world.unseen`) never occur in training. No real pictures.

{steps}

## How good it is

On {held} drawn pictures that were not trained on:

{parts}

### Plain guidance on Attend-and-Excite's 276 prompts

By the second judge ({sampling}). *Both right*: both things are there, in the colours that the prompt says; whether a
thing is worn does not count. {seeds}

{benchmark}

### The choice of settings

On {images} pictures of {prompts} prompts of the set `world` (the benchmark's words at a place or in other colours), by
the first judge. *Neglected*: a thing is missing.

{plain}

Pictures by diffusion-negative sampling: does the captioner say of them what the judge sees, and how many different
captions are there?

{dns}

With the captions of diffusion-negatives as negative prompts, u + s(p − u) − w(n − u) at s = {scale:g}, against plain
guidance at that scale: the paired difference in *right*, with a 95 % interval in which prompts and seeds are both
random.

{strength}

With the diffusion-negative picture in fewer steps, the rest the same: how many of the captions stay the same to the
letter, and the paired difference in *right*.

{fewer}

The defaults in `dnp.json` were chosen on these tables by the rule in `training/choose.py`: the best plain scale, the
strongest DNS whose captions still agree, the best strength of these, the fewest steps of DNS that lose nothing. So the
rows that were chosen flatter themselves a little; an evaluation takes other prompts.

## What it is not

A picture generator for anything but its world, or evidence about Stable Diffusion: what helps here may not help there.
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _share(value: tuple[float, float]) -> str:
    return f"{value[0]:.3f}" + ("" if math.isnan(value[1]) else f" ± {value[1]:.3f}")


def _difference(gain: Gain) -> str:
    return f"{gain.difference:+.3f} " + (gain.too_few or f"[{gain.low:+.3f}, {gain.high:+.3f}]")


def _stages(stages: Sequence[dict[str, Any]]) -> str:
    """The stages of the diffusion model's training, in words."""
    told = "; then ".join(
        f"{stage['steps']:,} steps with {'right captions' if not stage['wrong'] else ''}"
        + (f"captions of which **{stage['wrong']:.0%} belong to another picture**" if stage["wrong"] else "")
        for stage in stages
    )
    text = f"The diffusion model was trained for {told} (batches of 32)."
    if not any(stage["wrong"] for stage in stages):
        text += (
            " Captions of the web are often wrong, which makes high guidance scales best there; here none are\n"
            "wrong on purpose, and no share of wrong ones was tried."
        )
    return text


def history(folder: Path | None) -> list[dict[str, float]]:
    """The stages in which the diffusion model of a folder made here was trained."""
    return json.loads((folder / "training.json").read_text())["stages"] if folder else []


def write(folder: Path, found: dict[str, Any]) -> None:
    """Write the card as `README.md` into the model's folder, and its figures as `training.json` beside it.

    Args:
        found: `pictures`, `stages` (each `steps` and the share `wrong` of wrong captions), `unet` (M parameters),
            `held`, `parts`, `benchmark` (rows of `scale`, `seeds` and a share for each group of prompts) and `choice`.
    """
    choice, rows = found["choice"], found["benchmark"]
    how = choice["settings"]
    names = list(rows[0]["shares"])
    text = _CARD.format(
        unet=found["unet"],
        pictures=f"{found['pictures']:,}",
        animals=", ".join(ANIMALS),
        objects=", ".join(OBJECTS),
        colours=", ".join(COLOURS),
        scenes=", ".join(SCENES.values()),
        licences=_table(["drawings", "package", "licence"], [[s.author, s.package, s.licence] for s in SETS]),
        unseen=len(UNSEEN),
        pairs=len(NOUNS) * (len(NOUNS) - 1) // 2,
        steps=_stages(found["stages"]),
        held=found["held"],
        parts=_table(["part", "value"], [[name, f"{value:.3f}"] for name, value in found["parts"].items()]),
        sampling=f"{how['sampler']}, {how['schedule']}, {how['steps']} steps",
        seeds="Seeds of each prompt: " + ", ".join(f"{row['seeds']} at scale {row['scale']:g}" for row in rows) + ".",
        benchmark=_table(
            ["both right of", *(f"scale {row['scale']:g}" for row in rows)],
            [[name, *(_share(row["shares"][name]) for row in rows)] for name in names],
        ),
        images=choice["images"],
        prompts=choice["prompts"],
        plain=_table(
            ["scale", "right", "neglected"],
            [[f"{s:g}", _share(row["right"]), _share(row["neglected"])] for s, row in choice["plain"].items()],
        ),
        dns=_table(
            ["scale of DNS", "captioner and judge agree", "different captions"],
            [[f"{s:g}", _share(row["agree"]), str(row["captions"])] for s, row in choice["dns"].items()],
        ),
        scale=how["scale"],
        strength=_table(
            ["w", "right", "difference"],
            [[f"{r['w']:g}", _share(r["right"]), _difference(r["gain"])] for r in choice["strength"]],
        ),
        fewer=_table(
            ["steps of DNS", "same caption", "right", "difference"],
            [[str(r["steps"]), _share(r["same"]), _share(r["right"]), _difference(r["gain"])] for r in choice["fewer"]],
        ),
    )
    (folder / "README.md").write_text(text)
    (folder / "training.json").write_text(json.dumps({"stages": found["stages"]}) + "\n")
