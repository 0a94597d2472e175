r"""`dnp gap`: the semantic gap between a model and its user, as a figure.

For each prompt, from one noise: its picture; its diffusion-negative with the caption n*; the picture of no prompt at
all with n* as the negative one, :math:`u + s (u - n^*)`; and the picture of (p, n*). Where the third column shows the
prompt again, n* is what the model means by its opposite, however odd it reads.

References:
    Improving image synthesis with diffusion-negative sampling, Desai & Vasconcelos, ECCV 2024, figure 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dnp.errors import DNPError
from dnp.experiments.arms import arms
from dnp.experiments.plan import Plan, path_of
from dnp.experiments.sweep import sweep
from dnp.models.defaults import Defaults
from dnp.models.locate import locate
from dnp.runs.contact_sheet import Cell, sheet
from dnp.runs.run import png
from eval.manifest import write_whole
from eval.prompts import Prompt, prompt_set

_COLUMNS = {
    "plain": "the prompt",
    "dns": "its diffusion-negative",
    "alone": "no prompt, the caption as negative",
    "dnp": "the prompt, the caption as negative",
}


def gap(
    prompts: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    model: str = "embedded",
    captioner: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Path:
    """Make what is missing of the pictures, and the figure.

    Args:
        prompts: Texts; four of the drawn world's where there are none and the model is the embedded one.
        options: Of `Defaults`, those that are not to be the model's own; None leaves one alone.

    Raises:
        DNPError, GuidanceError, SamplerError, CaptionError: what a person can mend.
    """
    if not prompts and model != "embedded":
        raise DNPError('there is no prompt: dnp gap "a cat and a dog" --model DIR')
    asked = tuple(map(Prompt, prompts)) or tuple(prompt_set("world")[-4:])
    if not all(prompt.text.strip() for prompt in asked):
        raise DNPError("the prompt is empty: say what the picture should show")
    how = Defaults.of(locate(model)).but(**options)
    found = arms(["plain", "dnp"], [("alone", "u + s*(u - n)", "auto")], how)
    plan = Plan(model, asked, tuple(found), captioner=captioner, batch=1, device=device, dtype=dtype)
    ledger = sweep(plan, seeds, out, label="gap")
    rows = []
    for place, prompt in enumerate(asked):
        for seed in dict.fromkeys(seeds):
            cells = []
            for arm, heading in _COLUMNS.items():
                record = ledger.records[path_of(arm, place, seed)]
                text = {"plain": prompt.text, "dns": f"“{record['caption']}”"}.get(arm, "")
                with Image.open(out / record["path"]) as image:
                    cells.append(Cell(image.convert("RGB"), f"{heading}, seed {seed}", text))
            rows.append(cells)
    figure = out / "gap.png"
    title = f"What the model {model} takes for the opposite of a prompt, by {how.dns}"
    write_whole(figure, png(sheet(title, rows)))
    say(f"look at {figure}")
    return figure
