"""The embedded model's card: what it is, what it was trained on, how good it is, and what it is not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from eval.statistics import Gain
from eval.world import COLOURS, PATTERNS, SHAPES

_CARD = """\
# The embedded model: a tiny Stable Diffusion of a drawn world

Made from nothing by `make train` in this repository, so that every command of dnp works offline and every path that a
real checkpoint takes is the path that tests take. It has Stable Diffusion 1's parts in diffusers' directory format
(U-Net of 4 M parameters with ε-prediction and the scaled-linear schedule, CLIP text encoder of 2 layers, autoencoder
with 16 × 16 × 4 latents of 64 × 64 pixels), weights in float16 safetensors. Beside it: `captioner/` (a small BLIP for
transformers), `clip/` (a small CLIP for open_clip) and `judge/` (reads which things stand on which background).
`dnp.json` holds the words that it knows and the settings that suit it.

## Trained on

{pictures} pictures drawn by `training/render.py`: up to two of {shapes}
in {colours}, on a
{patterns} background in one of these colours; no real pictures and no one else's data. Captions
say all or part of it ("a red circle and a star on a dotted background"), a tenth are empty.

{steps}

Captions of the web are unreliable too. Wrong ones weaken the pull of a prompt, which makes high guidance scales best
and leaves something for a negative prompt to mend: the situation of Stable Diffusion, which is what this model stands
in for.

## How good it is

On 512 drawn pictures that were not trained on, the share of right answers:

{parts}

On {images} pictures of {prompts} prompts with two coloured things ({seeds} seeds each; prompts that are in no
evaluation; {sampling}), by the judge. *Right*: both things are there in their colours;
*neglected*: a shape is missing.

{plain}

Pictures by diffusion-negative sampling: does the captioner say of them what the judge sees, and how many different
captions are there?

{dns}

With a negative prompt, u + s(p − u) − w(n − u) at s = {scale:g}, against plain guidance at that scale: the paired
difference in *right*, with a 95 % interval in which prompts and seeds are both random. "Universal" is "{universal}".

{strength}

With the diffusion-negative picture in fewer steps than 16, the rest the same: how many of the captions stay the same to
the letter, and the paired difference in *right* to 16 steps.

{fewer}

The defaults in `dnp.json` were chosen on these tables by the rule in `training/choose.py`: the best plain scale, the
strongest DNS whose captions still agree, the best strength of these for the picture's own caption, the fewest steps of
DNS that lose nothing. So the rows that were chosen flatter themselves a little; an evaluation takes other prompts.

## What it is not

A picture generator for anything but its world, or evidence about Stable Diffusion: what helps here may not help there.
"""


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _share(value: tuple[float, float]) -> str:
    return f"{value[0]:.3f}" if math.isnan(value[1]) else f"{value[0]:.3f} ± {value[1]:.3f}"


def _difference(gain: Gain) -> str:
    return f"{gain.difference:+.3f} " + (gain.too_few or f"[{gain.low:+.3f}, {gain.high:+.3f}]")


def history(folder: Path | None) -> list[tuple[int, int, float]]:
    """Of each cycle of a model made here, the steps with right captions, those with unreliable ones, and the share of
    these that belonged to another picture."""
    path = (folder or Path()) / "training.json"
    return [tuple(cycle) for cycle in json.loads(path.read_text())["steps"]] if folder else []  # type: ignore[misc]


def write(
    folder: Path, parts: dict[str, float], found: dict[str, Any], budget: Any, steps: list[tuple[int, int, float]]
) -> None:
    """Write the card as `README.md` into the model's folder, and the steps of its training beside it."""
    (folder / "training.json").write_text(json.dumps({"steps": steps}) + "\n")
    how = found["settings"]
    text = _CARD.format(
        pictures=f"{budget.pictures:,}",
        shapes=", ".join(SHAPES),
        colours=", ".join(COLOURS),
        patterns=", ".join(PATTERNS[:-1]) + " or " + PATTERNS[-1],
        steps=", then again ".join(
            f"{clean:,} steps with right captions"
            + (f" and {noisy:,} in which **{share:.0%} of them belong to another picture**" if noisy else "")
            for clean, noisy, share in steps
        )
        + ".",
        parts=_table(["part", "right"], [[name, f"{value:.3f}"] for name, value in parts.items()]),
        images=found["images"],
        prompts=budget.prompts,
        seeds=budget.seeds,
        sampling=f"{how['sampler']}, {how['schedule']}, {how['steps']} steps",
        plain=_table(
            ["scale", "right", "neglected"],
            [[f"{s:g}", _share(row["right"]), _share(row["neglected"])] for s, row in found["plain"].items()],
        ),
        dns=_table(
            ["scale of DNS", "captioner and judge agree", "different captions"],
            [[f"{s:g}", _share(row["agree"]), str(row["captions"])] for s, row in found["dns"].items()],
        ),
        strength=_table(
            ["w", "negative", "right", "difference"],
            [
                [
                    f"{row['w']:g}",
                    row["negative"],
                    _share(row["right"]),
                    _difference(row["gain"]),
                ]
                for row in found["strength"]
            ],
        ),
        fewer=_table(
            ["steps of DNS", "same caption", "right", "difference"],
            [
                [str(row["steps"]), _share(row["same"]), _share(row["right"]), _difference(row["gain"])]
                for row in found["fewer"]
            ],
        ),
        scale=how["scale"],
        universal=how["universal"],
    )
    (folder / "README.md").write_text(text)
