"""`dnp report`: what a scored folder says, as one page, as Markdown and as CSV.

- `results`: the numbers; `plots`: SVG; `paper`: the paper's own rows; here: the page made of them.
"""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from PIL import Image

from eval.manifest import write_whole
from eval.report.paper import PAPER, setting
from eval.report.plots import Point, curves, forest, pareto
from eval.report.results import Results, Row, Series, costs, extremes, leading, results, series, verdict

__all__ = ["report", "results"]

_PAIRS = 6  # of each arm, won and lost


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
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=False)
    facts = _facts(found)
    write_whole(folder / "report.csv", _csv(found).encode())
    write_whole(folder / "report.md", _markdown(found, facts).encode())
    write_whole(folder / "report.html", environment.get_template("page.html.j2").render(facts).encode())
    return folder / "report.html"


def _facts(found: Results) -> dict[str, Any]:
    lead = leading(found)
    up = bool(_up(found, lead))
    others = [arm for arm in found.arms if arm != found.baseline]
    models = sorted({record.get("model", "unknown") for record in found.records})
    prompts = {record["prompt"] for record in found.records}
    seeds = {record["seed"] for record in found.records}
    verdicts = []
    for arm in others:
        if row := found.row(arm, lead):
            g = row.against
            kind = "" if g is None or not g.clear else "good" if (g.difference > 0) == up else "bad"
            text = verdict(row, up)
            if row.won_lost and up:
                won, lost = row.won_lost
                text += f"; it alone is right in {won:,} pairs, {found.baseline} alone in {lost:,}"
            verdicts.append((arm, text, kind))
    lacking = [f"{arm}: {count:,}" for arm, count in found.missing.items() if count]
    return {
        "title": "Guidance arms compared",
        "summary": f"{len(found.records):,} pictures by {', '.join(models)}: {len(prompts):,} prompts, "
        f"{len(seeds):,} seeds, {len(found.arms)} arms. All arms of a prompt and seed start from the same noise.",
        "lead": lead,
        "baseline": found.baseline,
        "verdicts": verdicts,
        "missing": f"Pairs without a picture or score in both arms, left out: {', '.join(lacking)}." if lacking else "",
        "tables": [_table(found, category) for category in dict.fromkeys(r.category for r in found.rows)],
        "forests": _forests(found),
        "plots": _curves(found, lead),
        "grids": _grids(found),
        "sheets": [block for arm in others for block in _sheets(found, arm, lead)],
        "how": _how(found),
        "scale_note": _scale_note(found),
        "metrics": [(short, about["name"]) for short, about in found.metrics.items()],
    }


def _up(found: Results, metric: str) -> bool | None:
    return found.metrics.get(metric, {}).get("higher_is_better", True)


def _metrics(found: Results) -> list[str]:
    return list(dict.fromkeys(row.metric for row in found.rows))


def _cell(found: Results, row: Row | None) -> dict[str, str]:
    if row is None:
        return {"text": "–", "note": "", "kind": ""}
    text = f"{row.mean:.3f}"
    if row.against is None:
        return {"text": text, "note": f"[{row.low:.3f}, {row.high:.3f}]", "kind": ""}
    g = row.against
    if row.relative is not None:
        text += f" ({row.relative:+.2f}%)"
    up = _up(found, row.metric)
    kind = "" if not g.clear or up is None else "good" if (g.difference > 0) == up else "bad"
    return {
        "text": text,
        "note": f"{g.difference:+.3f} [{g.low:+.3f}, {g.high:+.3f}], p {_p(row.p_holm)}",
        "kind": kind,
    }


def _p(value: float | None) -> str:
    return "–" if value is None else "< .001" if value < 0.001 else f"= {value:.3f}".replace("0.", ".")


def _table(found: Results, category: str) -> dict[str, Any]:
    metrics = _metrics(found)
    sets = list(dict.fromkeys(metric for _, metric in found.of_sets)) if not category else []
    count = max((r.pictures for r in found.rows if r.category == category), default=0)
    rows = []
    for arm in found.arms:
        cells = [_cell(found, found.row(arm, metric, category)) for metric in metrics]
        for metric in sets:
            value = found.of_sets.get((arm, metric))
            cells.append({"text": "–" if value is None else f"{value:.3f}", "note": "", "kind": ""})
        rows.append({"cells": [{"text": arm, "note": "", "kind": ""}, *cells], "paper": False})
    known = setting(set(found.categories)) if not category else None
    for name, printed in PAPER[known].items() if known else ():
        cells = [{"text": printed.get(metric, "–"), "note": "", "kind": ""} for metric in [*metrics, *sets]]
        rows.append({"cells": [{"text": f"paper: {name}", "note": "", "kind": ""}, *cells], "paper": True})
    title = f"{category or 'All prompts'}, {count:,} pictures of each arm"
    return {"title": title, "head": ["arm", *metrics, *sets], "rows": rows}


def _forests(found: Results) -> list[str]:
    plots = []
    for metric in _metrics(found):
        rows = [
            (
                f"{row.arm}{f', {row.category}' if row.category else ''}",
                row.against.difference,
                row.against.low,
                row.against.high,
            )
            for arm in found.arms
            for row in found.rows
            if row.arm == arm and row.metric == metric and row.against
        ]
        if rows:
            better = " (less is better)" if _up(found, metric) is False else ""
            plots.append(forest(rows, f"{metric}{better}", f"difference to {found.baseline}", _up(found, metric)))
    return plots


def _curves(found: Results, lead: str) -> list[str]:
    plots = []
    if found.scales:
        tried = {
            arm: [(t["scale"], t["value"], t["low"], t["high"]) for t in about["tried"]]
            for arm, about in found.scales["arms"].items()
        }
        plots.append(curves(tried, "Scales tried on held-out prompts", "scale", lead))
    by_axis = series(found)
    for metric in _metrics(found):
        for axis, lines in by_axis.items():
            drawn = {name: _points(found, line, metric) for name, line in lines.items()}
            if drawn := {name: line for name, line in drawn.items() if len(line) > 1}:
                plots.append(curves(drawn, f"{metric} by {axis}", axis, metric))
    cost = costs(found)
    points = {
        row.arm: (cost[row.arm]["evaluations"], row.mean, row.low, row.high)
        for row in found.rows
        if row.metric == lead and not row.category and cost.get(row.arm, {}).get("evaluations", 0) > 0
    }
    if points:
        plots.append(pareto(points, "What it costs", "evaluations a picture, its diffusion-negative included", lead))
    return plots


def _points(found: Results, line: Series, metric: str) -> list[Point]:
    rows = [(number, found.row(arm, metric)) for number, arm in line]
    return [(number, row.mean, row.low, row.high) for number, row in rows if row]


def _grids(found: Results) -> list[dict[str, Any]]:
    """For each number that arms differ in, the pictures of two prompts and seeds: a line for each series."""
    by = {(r["arm"], r["prompt"], str(r["seed"])): r for r in found.records}
    pairs = [(prompt, seed) for arm, prompt, seed in by if arm == found.baseline]
    grids = []
    for axis, lines in series(found).items():
        numbers = sorted({number for line in lines.values() for number, _ in line})
        for prompt, seed in dict.fromkeys([pairs[0], pairs[-1]]):
            rows, large = [], False
            for name, line in lines.items():
                arms, cells = dict(line), []
                for number in numbers:
                    record = by.get((arms.get(number, ""), prompt, seed))
                    src, big = _embed(found.folder / record["path"]) if record else ("", False)
                    cells.append({"src": src, "alt": f"{name}, {axis} {number:g}: {prompt}"})
                    large = large or big
                rows.append({"name": name, "cells": cells})
            head = [f"{number:g}" for number in numbers]
            grids.append({"axis": axis, "prompt": prompt, "seed": seed, "head": head, "rows": rows, "large": large})
    return grids


def _sheets(found: Results, arm: str, metric: str) -> list[dict[str, Any]]:
    by = {(r["arm"], r["prompt"], str(r["seed"])): r for r in found.records}
    blocks = []
    for name, pairs in zip(("wins", "loses"), extremes(found, arm, metric, _PAIRS), strict=True):
        shown = []
        for prompt, seed in pairs:
            cells = []
            for which in (found.baseline, "dns", arm):
                record = by.get((which, prompt, seed))
                if record is None or (which == "dns" and by[arm, prompt, seed].get("caption") != record.get("caption")):
                    continue
                value = found.values.get((which, metric), {}).get((prompt, seed))
                text = (
                    f"“{record.get('caption')}”"
                    if which == "dns"
                    else f"{metric} {value:.3g}"
                    if value is not None
                    else ""
                )
                if which == arm and record.get("negative_prompt"):
                    text += f", negative prompt “{record['negative_prompt']}”"
                image, large = _embed(found.folder / record["path"])
                cells.append({"src": image, "alt": f"{which}: {prompt}", "head": which, "text": text, "large": large})
            shown.append({"prompt": prompt, "seed": seed, "cells": cells, "large": any(c["large"] for c in cells)})
        blocks.append({"title": f"{arm} {name}", "pairs": shown})
    return blocks


def _embed(path: Path) -> tuple[str, bool]:
    """A picture as a data URI, without its record; and whether it is large."""
    with Image.open(path) as image:
        shown = image.convert("RGB")
    large = max(shown.size) > 128
    shown.thumbnail((384, 384))
    data = io.BytesIO()
    shown.save(data, "JPEG" if large else "PNG")
    kind = "jpeg" if large else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}", large


def _how(found: Results) -> dict[str, Any]:
    cost = costs(found)
    first: dict[str, dict[str, Any]] = {}
    for record in found.records:
        first.setdefault(record["arm"], record)
    rows = []
    for arm, record in first.items():
        scale = record.get("scale")
        rows.append(
            [
                arm,
                record.get("guidance", ""),
                "" if scale is None else f"{scale:g}",
                f"{record.get('sampler', '')} {record.get('schedule', '')} {record.get('steps', '')}",
                f"{cost[arm]['evaluations']:.0f}",
                f"{cost[arm]['seconds']:.2f}",
            ]
        )
    return {"head": ["arm", "formula", "scale", "walk", "evaluations a picture", "seconds a picture"], "rows": rows}


def _scale_note(found: Results) -> str:
    costs_note = "Evaluations and seconds of arms with a caption include the diffusion-negative picture. "
    if not found.scales:
        return costs_note + "Scales were given."
    s = found.scales
    arms = ", ".join(f"{arm} {about['chosen']:g}" for arm, about in s["arms"].items())
    return (
        f"{costs_note}Scales were chosen on {s['prompts']} held-out prompts with {s['seeds']} seeds each, "
        f"by {s['metric']}: "
        f"{arms}. Arms that are not named had theirs given."
    )


def _markdown(found: Results, facts: dict[str, Any]) -> str:
    lines = [f"# {facts['title']}", "", facts["summary"], "", f"In **{facts['lead']}**, against {found.baseline}:", ""]
    lines += [f"- **{arm}**: {text}" for arm, text, _ in facts["verdicts"]]
    if facts["missing"]:
        lines += ["", facts["missing"]]
    for table in facts["tables"]:
        lines += ["", f"## {table['title']}", ""]
        rows = [[f"{c['text']} {c['note']}".strip() for c in row["cells"]] for row in table["rows"]]
        lines += [_line(table["head"]), _line(["---"] * len(table["head"])), *map(_line, rows)]
    lines += ["", "## How it was made", "", _line(facts["how"]["head"]), _line(["---"] * len(facts["how"]["head"]))]
    lines += [_line(row) for row in facts["how"]["rows"]]
    lines += ["", facts["scale_note"], "", *(f"- {short}: {name}" for short, name in facts["metrics"])]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _csv(found: Results) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        "arm metric category pictures mean low high difference difference_low difference_high p p_holm "
        "relative_percent won lost".split()
    )
    for r in found.rows:
        g = r.against
        writer.writerow(
            [r.arm, r.metric, r.category, r.pictures, r.mean, r.low, r.high]
            + ([g.difference, g.low, g.high, g.p, r.p_holm] if g else [""] * 5)
            + ["" if r.relative is None else r.relative, *(r.won_lost or ("", ""))]
        )
    for (arm, metric), value in found.of_sets.items():
        writer.writerow([arm, metric, "", "", value, *[""] * 10])
    return text.getvalue()
