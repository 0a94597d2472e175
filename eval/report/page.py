"""The page: its answer first, then a table for each question, the plots, the pictures, and how it was made."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

from markupsafe import Markup
from PIL import Image

from eval.manifest import of_prompt
from eval.pictures import PictureError, decode, read_bytes
from eval.report.arms import Series, costs, described, labels, series
from eval.report.plots import Difference, Point, curves, forest, pareto
from eval.report.results import Pair, Results, Row, extremes, verdict
from eval.report.tables import Cell, Line, Table, by_category, questions

_PAIRS = 6  # pictures of an arm that won, and that lost
_SHOWN = 6  # arms whose verdicts and pictures are shown one by one
_FOREST = 24  # lines of a plot of differences


def facts(found: Results) -> dict[str, Any]:
    """Everything that the template and the Markdown say."""
    names = labels(found)
    others = _foremost(found)
    scored = [record for record in found.records if of_prompt(record)]
    models = sorted({record.get("model") or "an unnamed model" for record in scored})
    prompts, seeds = {r["prompt"] for r in scored}, {r["seed"] for r in scored}
    lacking = [f"{names[arm]}: {count:,}" for arm, count in found.missing.items() if count]
    missing = f"Pairs without a picture or a score in both arms, left out: {', '.join(lacking)}." if lacking else ""
    rows = [(arm, found.row(arm, found.lead)) for arm in others]
    noise = " All arms of a prompt and seed start from the same noise." if described(found) else ""
    said = {
        "title": f"What does better than {names[found.baseline]}?",
        "answer": answer(found, names),
        "summary": f"{len(scored):,} pictures by {', '.join(models)}: {_count(len(prompts), 'prompt')}, "
        f"{_count(len(seeds), 'seed')}, {_count(len(found.arms), 'arm')}.{noise}",
        "lead": found.lead,
        "baseline": names[found.baseline],
        "verdicts": [(names[arm], _verdict(found, row), found.kind(row)) for arm, row in rows if row],
        "all_verdicts": len(others) == len(found.others),
        "tables": [*questions(found, names), *by_category(found, names)],
        "forests": _forests(found, names),
        "plots": _curves(found, names),
        "grids": _grids(found),
        "sheets": [block for arm in others for block in _sheets(found, arm, names)],
        "how": how(found, names),
        "scale_note": _scale_note(found),
        "metrics": [(short, about.get("name", "")) for short, about in found.metrics.items()],
    }
    return said | {"notes": [*([missing] if missing else []), *dict.fromkeys(found.notes)]}  # pictures had their say


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _and(names: list[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), *names[-1:]])


def answer(found: Results, names: dict[str, str]) -> str:
    """What the leading metric says, in a sentence or two."""
    rows = [row for arm in found.others if (row := found.row(arm, found.lead)) and row.against]
    if not rows:
        return f"There is nothing to compare with {names[found.baseline]}: score a folder with several arms."
    if few := next((row.against.too_few for row in rows if row.against and row.against.too_few), ""):
        return f"It cannot be told: {few}. The differences are given without intervals; at least 4 of each are needed."
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(found.kind(row) or ("other" if row.told else "none"), []).append(row)
    said = []
    for kind, words in (("good", "better"), ("bad", "worse"), ("other", "differently")):
        if told := groups.get(kind):
            told.sort(key=lambda row: -abs(row.against.difference if row.against else 0))
            shown = [f"{names[row.arm]} ({row.against.difference:+.3f})" for row in told[:2] if row.against]
            shown += [f"{len(told) - 2} more"] if len(told) > 2 else []
            said.append(f"{_and(shown)} {'does' if len(told) == 1 else 'do'} {words}")
    equal = len(groups.get("none", []))
    if not said:
        whom = f"any of {equal} arms" if equal > 1 else names[rows[0].arm]
        return f"In {found.lead}, no difference between {names[found.baseline]} and {whom} can be told from chance."
    rest = f"; {_count(equal, 'arm')} cannot be told from it" if equal else ""
    return f"In {found.lead}, compared with {names[found.baseline]}: {'; '.join(said)}{rest}."


def _foremost(found: Results) -> list[str]:
    """The arms to show one by one: all, or those whose differences are the greatest either way."""
    if len(found.others) <= _SHOWN:
        return found.others
    rows = [row for arm in found.others if (row := found.row(arm, found.lead)) and row.against]
    rows.sort(key=lambda row: -row.against.difference if row.against else 0)
    return list(dict.fromkeys(row.arm for row in [*rows[: _SHOWN // 2], *rows[-_SHOWN // 2 :]]))


def _verdict(found: Results, row: Row) -> str:
    text = verdict(found, row)
    if row.won_lost and found.up(row.metric):
        won, lost = row.won_lost
        text += f"; it alone is right in {_count(won, 'pair')}, {found.baseline} alone in {lost:,}"
    return text


def _drawn(found: Results) -> list[str]:
    """The columns that are drawn: the first of each metric. All are in the tables."""
    first: dict[str, str] = {}
    for column in dict.fromkeys(row.metric for row in found.rows):
        first.setdefault(found.of(column, "name", column), column)
    return list(first.values())


def _forests(found: Results, names: dict[str, str]) -> list[Markup]:
    plots = []
    for metric in _drawn(found):
        compared = [row for arm in found.others for row in found.rows if row.metric == metric and row.arm == arm]
        if metric != found.lead or len(compared) > _FOREST:
            compared = [row for row in compared if not row.category]
        rows: list[Difference] = [
            (
                f"{names[row.arm]}{f', {row.category}' if row.category else ''}",
                row.against.difference,
                row.against.low,
                row.against.high,
                found.kind(row),
            )
            for row in compared
            if row.against
        ]
        if rows:
            better = " (less is better)" if found.up(metric) is False else ""
            plots.append(forest(rows, f"{metric}{better}", f"difference to {names[found.baseline]}"))
    return plots


def _curves(found: Results, names: dict[str, str]) -> list[Markup]:
    plots = []
    if found.scales:
        plots += _tried(found.scales)
    by_axis = series(found)
    for metric in _drawn(found):
        for axis, lines in by_axis.items():
            drawn = {name: _points(found, line, metric) for name, line in lines.items()}
            if drawn := {name: line for name, line in drawn.items() if len(line) > 1}:
                plots.append(curves(drawn, f"{metric} by {axis}", axis, metric))
    cost = costs(found)
    points = {
        names[row.arm]: (cost[row.arm]["evaluations"], row.value.mean, row.value.low, row.value.high)
        for row in found.rows
        if row.metric == found.lead and not row.category and cost[row.arm]["evaluations"] > 0
    }
    if len({point[0] for point in points.values()}) > 1:  # where all cost the same there is nothing to weigh
        plots.append(
            pareto(points, "What it costs", "evaluations a picture, its diffusion-negative included", found.lead)
        )
    return plots


def _tried(scales: dict[str, Any]) -> list[Markup]:
    """The curve of the scales that were tried, in the metric that chose among them."""
    nan = float("nan")
    try:
        tried = {
            arm: [(t["scale"], t["value"], t.get("low", nan), t.get("high", nan)) for t in about["tried"]]
            for arm, about in scales["arms"].items()
        }
        metric = str(scales["metric"])
    except (KeyError, TypeError, AttributeError):
        return []
    return [curves(tried, "Scales tried on held-out prompts", "scale", metric)] if any(tried.values()) else []


def _points(found: Results, line: Series, metric: str) -> list[Point]:
    rows = [(number, found.row(arm, metric)) for number, arm in line]
    return [(number, row.value.mean, row.value.low, row.value.high) for number, row in rows if row]


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
                    src, big = _embed(found, by.get((arms.get(number, ""), prompt, seed)))
                    cells.append({"src": src, "alt": f"{name}, {axis} {number:g}: {prompt}"})
                    large = large or big
                rows.append({"name": name, "cells": cells})
            head = [f"{number:g}" for number in numbers]
            grids.append({"axis": axis, "prompt": prompt, "seed": seed, "head": head, "rows": rows, "large": large})
    return grids


def _sheets(found: Results, arm: str, names: dict[str, str]) -> list[dict[str, Any]]:
    """The pairs that an arm wins and loses most clearly: the baseline's picture, the diffusion-negative, the arm's."""
    by = {(r["arm"], r["prompt"], str(r["seed"])): r for r in found.records}
    negatives: dict[Pair, list[dict[str, Any]]] = {}
    for record in found.records:
        if not of_prompt(record):
            negatives.setdefault((record["prompt"], str(record["seed"])), []).append(record)
    blocks = []
    for word, pairs in zip(("wins", "loses"), extremes(found, arm, found.lead, _PAIRS), strict=True):
        shown = []
        for prompt, seed in pairs:
            mine, caption = by[arm, prompt, seed], by[arm, prompt, seed].get("caption")
            negative = next(
                (r for r in negatives.get((prompt, seed), []) if caption and r.get("caption") == caption), None
            )
            cells: list[dict[str, Any]] = []
            three = ((by[found.baseline, prompt, seed], found.baseline), (negative, "dns"), (mine, arm))
            for one, head in three:
                if one is None:
                    continue
                value = found.values.get((head, found.lead), {}).get((prompt, seed))
                text = f"“{caption}”" if one is negative else f"{found.lead} {value:.3g}" if value is not None else ""
                if one is mine and one.get("negative_prompt"):
                    text += f", negative prompt “{one['negative_prompt']}”"
                src, large = _embed(found, one)
                title = "diffusion-negative" if one is negative else names[head]
                cells.append({"src": src, "alt": f"{title}: {prompt}", "head": title, "text": text, "large": large})
            shown.append({"prompt": prompt, "seed": seed, "cells": cells, "large": any(c["large"] for c in cells)})
        if shown:
            blocks.append({"title": f"{names[arm]} {word}", "pairs": shown})
    return blocks


def _embed(found: Results, record: dict[str, Any] | None) -> tuple[str, bool]:
    """A picture as a data URI, without its record ("" where it cannot be read); and whether it is large."""
    if record is None:
        return "", False
    try:
        shown = decode(read_bytes(found.folder, record["path"]), record["path"])
    except PictureError as error:
        found.notes.append(str(error))
        return "", False
    large = max(shown.size) > 128
    shown.thumbnail((384, 384), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    shown.save(data, "JPEG" if large else "PNG")
    kind = "jpeg" if large else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}", large


def how(found: Results, names: dict[str, str]) -> Table:
    """What made each arm; what is the same in all of them is said once, below."""
    cost = costs(found)
    first: dict[str, dict[str, Any]] = {}
    for record in found.records:
        first.setdefault(record["arm"], record)
    head = ("formula", "scale", "sampler", "schedule", "steps", "evaluations a picture", "seconds a picture")
    rows = []
    for arm, record in first.items():
        scale = record.get("scale")
        facts = [str(record.get("guidance", "")), "" if scale is None else f"{scale:g}"]
        facts += [str(record.get(key, "")) for key in ("sampler", "schedule", "steps")]
        spent = [cost[arm]["evaluations"], cost[arm]["seconds"]]
        facts += ["" if math.isnan(value) else text for value, text in zip(spent, _spent(*spent), strict=True)]
        rows.append((names[arm], facts))
    columns = list(zip(*(facts for _, facts in rows), strict=True))
    same = [
        f"{name} {column[0]}" for name, column in zip(head, columns, strict=True) if len(set(column)) == 1 and column[0]
    ]
    kept = [place for place, column in enumerate(columns) if len(set(column)) > 1]
    lines = tuple(Line(name, tuple(Cell(facts[place]) for place in kept)) for name, facts in rows)
    notes = (f"The same for all: {', '.join(same)}.",) if same else ()
    return Table("The arms", "arm", tuple(("", head[place]) for place in kept), lines, notes)


def _spent(evaluations: float, seconds: float) -> tuple[str, str]:
    return f"{evaluations:.0f}", f"{seconds:.2f}"


def _scale_note(found: Results) -> str:
    note = "Evaluations and seconds of arms with a caption include the diffusion-negative picture. "
    try:
        s = found.scales or {}
        arms = ", ".join(f"{arm} {about['chosen']:g}" for arm, about in s["arms"].items())
        return (
            f"{note}Scales were chosen by {s['metric']} on {_count(s['prompts'], 'held-out prompt')} "
            f"with {_count(s['seeds'], 'seed')} each: {arms}. Arms that are not named had theirs given."
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return f"{note}Scales were given."
