"""The numbers of a report: the scores of a folder, arm by arm and against the baseline."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from eval.manifest import ManifestError, of_prompt, read_run
from eval.scores import read_scores
from eval.statistics import Estimate, Factors, Gain, gain, holm, mean, relative, wins

Pair = tuple[str, str]
"""A prompt and a seed."""

LEVEL = 0.05  # of p, adjusted for the number of arms: below it a difference is told, and coloured


@dataclass(frozen=True)
class Row:
    """An arm in one metric and one category ("" is all of them)."""

    arm: str
    metric: str
    category: str
    value: Estimate
    against: Gain | None = None  # the baseline, on the pairs that both have
    relative: float | None = None
    p_holm: float | None = None  # over the arms of this metric and category
    won_lost: tuple[int, int] | None = None

    @property
    def told(self) -> bool:
        """Whether there is a difference beyond chance."""
        return self.p_holm is not None and self.p_holm < LEVEL


@dataclass
class Results:
    """Everything that a report says."""

    folder: Path
    baseline: str
    records: list[dict[str, Any]]
    settings: dict[str, Any]
    scales: dict[str, Any] | None
    metrics: dict[str, dict[str, Any]]
    values: dict[tuple[str, str], dict[Pair, float]] = field(default_factory=dict)  # (arm, metric) → values
    category: dict[str, str] = field(default_factory=dict)  # of a prompt
    rows: list[Row] = field(default_factory=list)
    of_sets: dict[tuple[str, str], float] = field(default_factory=dict)  # (arm, metric) of a set of pictures
    missing: dict[str, int] = field(default_factory=dict)  # arm → pairs that lack a picture in it or the baseline
    notes: list[str] = field(default_factory=list)  # what a reader must know: lost lines and the like

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(arm for arm, _ in self.values))

    @property
    def others(self) -> list[str]:
        """The arms that are compared with the baseline."""
        return [arm for arm in self.arms if arm != self.baseline]

    @property
    def categories(self) -> list[str]:
        return [name for name in dict.fromkeys(self.category.values()) if name]

    @property
    def lead(self) -> str:
        """The metric that the report leads with: the first that was scored."""
        return next(metric for _, metric in self.values)

    def of(self, metric: str, fact: str, default: Any = None) -> Any:
        """What `metrics.json` says of a metric: its "name", "binary", "question", "higher_is_better"."""
        return self.metrics.get(metric, {}).get(fact, default)

    def up(self, metric: str) -> bool | None:
        """Whether more is better; None if neither is."""
        return self.of(metric, "higher_is_better", True)

    def row(self, arm: str, metric: str, category: str = "") -> Row | None:
        return next((r for r in self.rows if (r.arm, r.metric, r.category) == (arm, metric, category)), None)

    def kind(self, row: Row) -> str:
        """ "good" or "bad" where a difference is told and one way is better, else ""."""
        up = self.up(row.metric)
        if row.against is None or up is None or not row.told:
            return ""
        return "good" if (row.against.difference > 0) == up else "bad"


def results(folder: Path, baseline: str = "plain") -> Results:
    """Read a scored folder and compare its arms.

    Raises:
        ManifestError: no manifest, no scores, or no such baseline; names the remedy.
    """
    records = read_run(folder)
    scores = read_scores(folder)
    if not scores:
        raise ManifestError(f"there are no scores in {str(folder)!r}: run dnp score {folder} first")
    settings, scales, metrics = (_json(folder / name) for name in ("run.json", "scales.json", "metrics.json"))
    found = Results(folder, baseline, records, settings or {}, scales, metrics or {})
    if any(not isinstance(about, dict) for about in found.metrics.values()):
        raise ManifestError(f"{folder / 'metrics.json'} is not what dnp score writes: score the folder again")
    _fill(found, scores)
    if baseline not in found.arms:
        raise ManifestError(
            f"no scores of the arm {baseline!r} to compare with: give --baseline, one of {', '.join(found.arms)}"
        )
    for metric in dict.fromkeys(metric for _, metric in found.values):
        for category in ["", *(found.categories if len(found.categories) > 1 else [])]:
            found.rows += compare(found, metric, category, baseline)
        those = set(found.values.get((baseline, metric), {}))
        for arm in found.others:
            lacking = len(those ^ set(found.values.get((arm, metric), {})))
            found.missing[arm] = max(found.missing.get(arm, 0), lacking)
    return found


def _fill(found: Results, scores: list[dict[str, str]]) -> None:
    """The values of the scores whose lines are in the manifest; what does not fit is noted."""
    lines = {(r["path"], r["arm"], r["prompt"], str(r["seed"])) for r in found.records if of_prompt(r)}
    scored, lost = set(), set()
    values: dict[tuple[str, str], dict[Pair, list[float]]] = {}
    for row in scores:
        line = row["path"], row["arm"], row["prompt"], row["seed"]
        if not row["path"]:
            found.of_sets[row["arm"], row["metric"]] = float(row["value"])
        elif line not in lines:
            lost.add(line)
        else:
            scored.add(line)
            cell = values.setdefault((row["arm"], row["metric"]), {}).setdefault((row["prompt"], row["seed"]), [])
            cell.append(float(row["value"]))
            found.category[row["prompt"]] = row["category"]
    found.values = {key: {pair: float(np.mean(v)) for pair, v in cells.items()} for key, cells in values.items()}
    if lost:
        found.notes.append(
            f"Scores of {_count(len(lost), 'picture')} that the manifest does not name are left out: "
            "it lost lines, or another run is in the folder; score it again."
        )
    if lines - scored:
        found.notes.append(f"{_count(len(lines - scored), 'picture')} in the manifest without a score.")
    if not scored:
        raise ManifestError(f"no line of the manifest has a score in {str(found.folder)!r}: run dnp score again")
    if repeated := sum(len(v) > 1 for v in next(iter(values.values())).values()):
        found.notes.append(
            f"Several pictures of the same arm, prompt and seed in {_count(repeated, 'case')}: their mean is taken. "
            "Give each line of the manifest its seed."
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _factors(pairs: list[Pair]) -> Factors:
    return {"prompt": [prompt for prompt, _ in pairs], "seed": [seed for _, seed in pairs]}


def compare(found: Results, metric: str, category: str, baseline: str) -> list[Row]:
    """All arms in a metric and a category, against one of them."""
    those = found.values.get((baseline, metric), {})
    binary = bool(found.of(metric, "binary", False))
    rows = []
    for arm in found.arms:
        these = found.values.get((arm, metric), {})
        mine = [pair for pair in these if category in ("", found.category[pair[0]])]
        if not mine:
            continue
        row = Row(arm, metric, category, mean([these[pair] for pair in mine], _factors(mine), binary))
        pairs = [pair for pair in mine if pair in those]
        if arm != baseline and pairs:
            a, b = np.array([these[pair] for pair in pairs]), np.array([those[pair] for pair in pairs])
            row = replace(
                row,
                against=gain(a, b, _factors(pairs)),
                relative=relative(a, b) if b.mean() else None,
                won_lost=wins(a, b) if binary else None,
            )
        rows.append(row)
    compared = [row for row in rows if row.against]
    adjusted = dict(zip([r.arm for r in compared], holm([r.against.p for r in compared if r.against]), strict=True))
    return [replace(row, p_holm=adjusted.get(row.arm)) for row in rows]


def verdict(found: Results, row: Row) -> str:
    """What a difference means, in words."""
    if row.against is None:
        return ""
    g = row.against
    if g.too_few:
        return f"{g.difference:+.3f}, {g.too_few} for an interval"
    numbers = f"{g.difference:+.3f} [{g.low:+.3f}, {g.high:+.3f}]"
    if not row.told:
        if g.p < LEVEL:
            return f"not beyond chance once all {len(found.others)} arms are counted (Holm): {numbers}"
        return f"no difference that {g.pairs:,} pairs can tell: {numbers}"
    up = found.up(row.metric)
    word = (
        ("more" if g.difference > 0 else "less") if up is None else "better" if found.kind(row) == "good" else "worse"
    )
    return f"{word}: {numbers}"


def extremes(found: Results, arm: str, metric: str, count: int) -> tuple[list[Pair], list[Pair]]:
    """The pairs where the arm gains and where it loses most, in a fixed random order among equals."""
    these, those = found.values.get((arm, metric), {}), found.values.get((found.baseline, metric), {})
    pairs = sorted(pair for pair in these if pair in those)
    order = np.random.default_rng(0).permutation(len(pairs))
    ranked = sorted((pairs[place] for place in order), key=lambda pair: these[pair] - those[pair])
    better = [pair for pair in reversed(ranked) if these[pair] > those[pair]][:count]
    worse = [pair for pair in ranked if these[pair] < those[pair]][:count]
    return (better, worse) if found.up(metric) else (worse, better)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError:
        return None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ManifestError(f"{path} is no JSON object: take it away, or run what wrote it again")
    return found
