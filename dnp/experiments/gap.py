r"""`dnp gap`: the semantic gap between a model and its user, as a figure.

For each prompt, from one noise: its picture; its diffusion-negative with the caption n*; the picture of no prompt at
all with n* as the negative one, :math:`u + s (u - n^*)`; and the picture of (p, n*). Where the third column shows the
prompt again, n* is what the model means by its opposite, however odd it reads.

References:
    Improving image synthesis with diffusion-negative sampling, Desai & Vasconcelos, ECCV 2024, figure 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dnp.errors import DNPError
from dnp.experiments.arms import arms
from dnp.experiments.plan import Place, Plan, path_of
from dnp.experiments.sweep import sweep
from dnp.limits import check_prompt
from dnp.models.defaults import Defaults
from dnp.models.locate import locate
from dnp.runs.contact_sheet import Cell, sheet
from dnp.runs.record import png
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
    how: Mapping[str, Any] | None = None,
    batch: int = 1,
    where: Place | None = None,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Path:
    """Make what is missing of the pictures, and the figure.

    Args:
        prompts: Texts; by default four of the drawn world's if the model is the embedded one.
        how: Fields of `Defaults` that differ from the model's own; None leaves one alone.
        where: Which workers do it; this process by default.
        options: Of the `Plan`: `captioner`, `device`, `dtype`, `loading`.

    Raises:
        DNPError, GuidanceError, SamplerError, CaptionError: something that was given cannot be used.
    """
    if not prompts and model != "embedded":
        raise DNPError('there is no prompt: dnp gap "a cat and a dog" --model DIR')
    asked = tuple(Prompt(check_prompt(text)) for text in prompts) or tuple(prompt_set("world")[-4:])
    defaults = Defaults.of(locate(model)).but(**how or {})
    found = arms(["plain", "dnp"], [("alone", "u + s*(u - n)", "auto")], defaults)
    plan = Plan(model, asked, tuple(found), batch=batch, **options)
    ledger = sweep(plan, seeds, out, where, label="gap")
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
    title = f"What the model {model} takes for the opposite of a prompt, by {defaults.dns}"
    write_whole(figure, png(sheet(title, rows)))
    say(f"look at {figure}")
    return figure
