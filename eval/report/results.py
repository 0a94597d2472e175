"""The numbers of a report: the scores of a folder, arm by arm and against the baseline."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eval.manifest import CAPTIONED, ManifestError, read_run
from eval.scores import read_scores
from eval.statistics import Gain, gain, holm, interval, mcnemar, relative


@dataclass(frozen=True)
class Row:
    """An arm in one metric and one category ("" is all of them)."""

    arm: str
    metric: str
    category: str
    mean: float
    low: float
    high: float
    pictures: int
    against: Gain | None = None  # the baseline, on the pairs that both have
    relative: float | None = None
    p_holm: float | None = None  # over the arms of this metric and category
    won_lost: tuple[int, int] | None = None


@dataclass
class Results:
    """Everything that a report says."""

    folder: Path
    baseline: str
    records: list[dict[str, Any]]
    settings: dict[str, Any]
    scales: dict[str, Any] | None
    metrics: dict[str, dict[str, Any]]
    values: dict[tuple[str, str], dict[tuple[str, str], float]]  # (arm, metric) → (prompt, seed) → value
    category: dict[str, str]  # of a prompt
    rows: list[Row]
    of_sets: dict[tuple[str, str], float]  # (arm, metric) of a set of pictures
    missing: dict[str, int]  # arm → pairs that lack a picture in it or the baseline

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(arm for arm, _ in self.values))

    @property
    def categories(self) -> list[str]:
        return [name for name in dict.fromkeys(self.category.values()) if name]

    def row(self, arm: str, metric: str, category: str = "") -> Row | None:
        return next((r for r in self.rows if (r.arm, r.metric, r.category) == (arm, metric, category)), None)


def results(folder: Path, baseline: str = "plain") -> Results:
    """Read a scored folder and compare its arms.

    Raises:
        ManifestError: no manifest, no scores, or no such baseline; names the remedy.
    """
    records = read_run(folder)
    scores = read_scores(folder)
    if not scores:
        raise ManifestError(f"there are no scores in {str(folder)!r}: run dnp score {folder} first")
    found = Results(
        folder,
        baseline,
        records,
        _json(folder / "run.json") or {},
        _json(folder / "scales.json"),
        _json(folder / "metrics.json") or {},
        {},
        {},
        [],
        {},
        {},
    )
    for row in scores:
        if not row["path"]:
            found.of_sets[row["arm"], row["metric"]] = float(row["value"])
            continue
        pair = row["prompt"], row["seed"]
        found.values.setdefault((row["arm"], row["metric"]), {})[pair] = float(row["value"])
        found.category[row["prompt"]] = row["category"]
    if baseline not in found.arms:
        raise ManifestError(
            f"no pictures of the arm {baseline!r} to compare with: give --baseline, one of {', '.join(found.arms)}"
        )
    for metric in dict.fromkeys(metric for _, metric in found.values):
        for category in ["", *(found.categories if len(found.categories) > 1 else [])]:
            found.rows += _compare(found, metric, category)
    return found


def _compare(found: Results, metric: str, category: str) -> list[Row]:
    those = found.values.get((found.baseline, metric), {})
    rows = []
    for arm in found.arms:
        these = found.values.get((arm, metric), {})
        mine = [value for (prompt, _), value in these.items() if category in ("", found.category[prompt])]
        if not mine:
            continue
        row = Row(arm, metric, category, *interval(mine), len(mine))
        pairs = [pair for pair in these if pair in those and category in ("", found.category[pair[0]])]
        if arm != found.baseline and pairs:
            a, b = np.array([these[pair] for pair in pairs]), np.array([those[pair] for pair in pairs])
            binary = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
            row = replace(
                row,
                against=gain(a, b, [prompt for prompt, _ in pairs]),
                relative=relative(a, b) if b.mean() else None,
                won_lost=mcnemar(a, b)[:2] if binary else None,
            )
            if not category:
                found.missing[arm] = max(found.missing.get(arm, 0), len(set(these) ^ set(those)))
        rows.append(row)
    compared = [row for row in rows if row.against]
    adjusted = dict(zip([r.arm for r in compared], holm([r.against.p for r in compared if r.against]), strict=True))
    return [replace(row, p_holm=adjusted.get(row.arm)) for row in rows]


def verdict(row: Row, higher_is_better: bool) -> str:
    """What a difference means, in words."""
    if row.against is None:
        return ""
    g = row.against
    numbers = f"{g.difference:+.3f} [{g.low:+.3f}, {g.high:+.3f}]"
    if not g.clear:
        return f"no difference that {g.pairs:,} pairs can tell: {numbers}"
    better = (g.difference > 0) == higher_is_better
    note = "" if (row.p_holm or 0) < 0.05 else "; not clear once all arms are counted (Holm)"
    return f"{'better' if better else 'worse'}: {numbers}{note}"


def extremes(found: Results, arm: str, metric: str, count: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The pairs where the arm gains and where it loses most, in a fixed random order among equals."""
    these, those = found.values.get((arm, metric), {}), found.values.get((found.baseline, metric), {})
    pairs = sorted(pair for pair in these if pair in those)
    order = np.random.default_rng(0).permutation(len(pairs))
    ranked = sorted((pairs[place] for place in order), key=lambda pair: these[pair] - those[pair])
    better = [pair for pair in reversed(ranked) if these[pair] > those[pair]][:count]
    worse = [pair for pair in ranked if these[pair] < those[pair]][:count]
    up = found.metrics.get(metric, {}).get("higher_is_better", True)
    return (better, worse) if up else (worse, better)


def leading(found: Results) -> str:
    """The metric that the report leads with: the first that was scored."""
    return next(metric for _, metric in found.values)


_NUMBER = re.compile(r"(?<![\w.])(?<!evaluations=)\d+\.?\d*")
_DNS_STEPS = "steps of the diffusion-negative"


Series = list[tuple[float, str]]


def series(found: Results) -> dict[str, dict[str, Series]]:
    """The arms that differ in one number alone: what the number is → name of the series → (number, arm), ascending.

    The numbers are the scale, the strength, the steps, the steps of the diffusion-negatives, and any that a formula
    has itself, such as the noise level of a StepScale: it is x in the name of its series.
    """
    axes: dict[str, dict[tuple[str, ...], dict[float, str]]] = {}
    for about in found.settings.get("arms", []):
        if "sampling" not in about or about["name"] not in found.arms:
            continue
        for axis, number, same in _numbers(about):
            axes.setdefault(axis, {}).setdefault(tuple(same.values()), {}).setdefault(number, about["name"])
    named = {}
    for axis, groups in axes.items():
        if lines := {same: sorted(arms.items()) for same, arms in groups.items() if len(arms) > 1}:
            named[axis] = dict(zip(_names(list(lines)), lines.values(), strict=True))
    return named


def _numbers(about: dict[str, Any]) -> Iterator[tuple[str, float, dict[str, str]]]:
    """Each number in an arm's settings: what it is, its value, and all the rest in words."""
    walk, facts = about["sampling"], {"formula": about["guidance"], "negative": about["negative"].replace("none", "")}
    numbers = {"steps": walk["steps"]}
    facts |= {"sampler": walk["sampler"], "scale s": "", "strength w": "", "steps": f"{walk['steps']} steps"}
    for axis, name, letter in (("scale s", "scale", "s"), ("strength w", "strength", "w")):
        if re.search(rf"\b{letter}\b", about["guidance"]):
            numbers[axis], facts[axis] = about[name], f"{letter} = {about[name]:g}"
    facts |= {"dns": "", _DNS_STEPS: ""}
    if about["negative"] in CAPTIONED:
        count = numbers[_DNS_STEPS] = about["dns_sampling"]["steps"]
        facts |= {"dns": about["dns"], _DNS_STEPS: f"{count} DNS steps"}
    for axis, number in numbers.items():
        yield axis, number, {**facts, axis: ""}
    for axis, fact in (("x in the formula", "formula"), ("x in the formula of the diffusion-negative", "dns")):
        for m in _NUMBER.finditer(facts[fact]):
            others = {key: value for key, value in facts.items() if key != fact}
            yield axis, float(m[0]), {fact: f"{m.string[: m.start()]}x{m.string[m.end() :]}", **others}


def _names(rows: list[tuple[str, ...]]) -> list[str]:
    """The first of each, a formula, and what is not the same in all."""
    differ = [place for place, column in enumerate(zip(*rows, strict=True)) if not place or len(set(column)) > 1]
    return [", ".join(row[place] for place in differ if row[place]) for row in rows]


def costs(found: Results) -> dict[str, dict[str, float]]:
    """Evaluations and seconds of an arm's picture, its diffusion-negative counted where it uses its caption."""
    sums: dict[str, list[Sequence[float]]] = {}
    for r in found.records:
        sums.setdefault(r["arm"], []).append((r.get("evaluations") or np.nan, r.get("seconds") or np.nan))
    means: dict[str, Any] = {arm: np.mean(values, 0) for arm, values in sums.items()}
    ways: dict[str, str] = {}  # a way of making diffusion-negative pictures → their arm: "dns", "dns2", …
    for about in found.settings.get("arms", []):
        if about["negative"] in CAPTIONED:
            way = json.dumps([about["dns"], about["dns_sampling"]])
            name = ways.setdefault(way, f"dns{len(ways) + 1 if ways else ''}")
            if about["name"] in means and name in means:
                means[about["name"]] = means[about["name"]] + means[name]
    return {arm: {"evaluations": float(value[0]), "seconds": float(value[1])} for arm, value in means.items()}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError:
        raise ManifestError(f"{path} is no JSON: take it away, or run what wrote it again") from None
