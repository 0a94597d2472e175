"""`dnp report`: what a scored folder says, as one page, as Markdown and as CSV.

- `results`: the numbers; `arms`: what the run says of its arms; `tables`, `paper`, `plots`: what is printed and drawn;
  `page`: the page made of them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from eval.manifest import write_whole
from eval.report.arms import labels
from eval.report.page import facts
from eval.report.paper import paper_tables
from eval.report.results import Results, results
from eval.report.tables import markdown
from eval.scores import cell
from eval.text import visible

__all__ = ["paper", "report", "results"]


def report(folder: Path, baseline: str = "plain") -> Path:
    """Write `report.html`, `report.md` and `report.csv` into a scored folder.

    Args:
        baseline: The arm that the others are compared with.

    Returns:
        The page.

    Raises:
        ManifestError: no manifest, no scores, or no such baseline; names the remedy.
    """
    found = results(folder, baseline)
    said = facts(found)
    write_whole(folder / "report.csv", _csv(found).encode())
    write_whole(folder / "report.md", _markdown(said).encode())
    write_whole(folder / "report.html", _html("page.html.j2", said).encode())
    return folder / "report.html"


def paper(folders: Sequence[Path], baseline: str = "plain") -> Path:
    """Write the paper's tables 1, 2a and 2b, ours beside what it prints, as `paper.html` and `paper.md`.

    Args:
        folders: Scored runs, one for each set of prompts; the tables go into the first.
        baseline: The arm that those which the paper does not have are compared with.

    Returns:
        The page.

    Raises:
        ManifestError: as `report`.
    """
    runs = [results(folder, baseline) for folder in folders]
    tables = paper_tables(runs, [labels(found) for found in runs])
    write_whole(folders[0] / "paper.md", "\n".join(table.markdown() for table in tables).encode())
    write_whole(
        folders[0] / "paper.html", _html("paper.html.j2", {"title": "The paper's tables", "tables": tables}).encode()
    )
    return folders[0] / "paper.html"


def _html(template: str, said: dict[str, Any]) -> str:
    def shown(value: object) -> object:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, autoescape=True, finalize=shown).get_template(template).render(said)


def _markdown(said: dict[str, Any]) -> str:
    lines = [f"# {markdown(said['title'])}", "", f"**{markdown(said['answer'])}**", "", markdown(said["summary"]), ""]
    lines += [f"- **{markdown(arm)}**: {markdown(text)}" for arm, text, _ in said["verdicts"]]
    for note in said["notes"]:
        lines += ["", markdown(note)]
    lines.append("")
    lines += [table.markdown() for table in [*said["tables"], said["how"]]]
    lines += [markdown(said["scale_note"]), ""]
    lines += [f"- {markdown(short)}: {markdown(name)}" for short, name in said["metrics"]]
    return "\n".join(lines) + "\n"


def _csv(found: Results) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        "arm metric category pictures mean low high difference difference_low difference_high p p_holm "
        "relative_percent won lost note".split()
    )
    for r in found.rows:
        g, v = r.against, r.value
        row = [r.arm, r.metric, r.category, v.count, v.mean, v.low, v.high]
        row += [g.difference, g.low, g.high, g.p, r.p_holm] if g else [""] * 5
        row += ["" if r.relative is None else r.relative, *(r.won_lost or ("", "")), g.too_few if g else v.too_few]
        writer.writerow(["" if isinstance(x, float) and math.isnan(x) else cell(x) for x in row])
    for (arm, metric), value in found.of_sets.items():
        writer.writerow([cell(arm), cell(metric), "", "", value, *[""] * 11])
    return text.getvalue()
