"""`dnp score`: a folder of pictures and its manifest become `scores.csv`, a line for each picture and value.

What was scored before on the same bytes is kept, by this metric and by others. What cannot be scored is named, the
rest is scored.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from eval.manifest import pictures, prompt_of, read_run, write_whole
from eval.metrics.inception import Classifier, inception_score
from eval.metrics.metric import Metric

COLUMNS = ("path", "arm", "prompt", "seed", "category", "metric", "value")
BATCH = 64


def score(
    folder: Path,
    metrics: Sequence[Metric],
    classifier: tuple[str, Classifier] | None = None,
    splits: int = 10,
    label: str | None = "score",
) -> list[str]:
    """Score the pictures of a folder.

    Args:
        classifier: A name and a classifier for the Inception Score of each arm.
        label: Of the progress bar; None for none.

    Returns:
        What was left out, a line each.

    Raises:
        ManifestError: there is no manifest, or a line of it is broken.
    """
    records = [
        record for record in read_run(folder) if not record["arm"].startswith("dns")
    ]  # no pictures of the prompt
    problems: list[str] = []
    names = {short: (metric.name, kind) for metric in metrics for short, kind in metric.kinds.items()}
    before = _before(folder, records)
    rows = {
        key: row for key, row in before.rows.items() if key[1] not in names or before.names[key[1]] == names[key[1]][0]
    }
    logits: dict[str, list[torch.Tensor]] = {}
    todo = [record for record in records if classifier or any((record["path"], short) not in rows for short in names)]
    bar = tqdm(total=len(todo), desc=label, unit="picture", disable=label is None)
    batch: list[tuple[dict[str, Any], Any]] = []

    def flush() -> None:
        images, prompts = [image for _, image in batch], [prompt_of(record) for record, _ in batch]
        for metric in metrics if batch else ():
            for short, values in metric(images, prompts).items():
                for (record, _), value in zip(batch, values, strict=True):
                    if isinstance(value, str):
                        problems.append(f"{record['path']}: {value}")
                    else:
                        rows[record["path"], short] = _row(record, short, value)
        if classifier and batch:
            for (record, _), line in zip(batch, classifier[1](images), strict=True):
                logits.setdefault(record["arm"], []).append(line)
        bar.update(len(batch))
        batch.clear()

    for found in pictures(folder, todo, problems):
        batch.append(found)
        if len(batch) == BATCH:
            flush()
    flush()
    bar.close()
    others = [short for short in before.about if short not in names and any(key[1] == short for key in rows)]
    lines = [rows[key] for record in records for short in [*others, *names] if (key := (record["path"], short)) in rows]
    about: dict[str, Any] = {short: before.about[short] for short in others} | {
        short: {"name": name, "higher_is_better": kind.higher_is_better, "unit": kind.unit}
        for short, (name, kind) in names.items()
    }
    if not classifier and before.complete:
        lines += before.of_sets
        about |= {row["metric"]: before.about[row["metric"]] for row in before.of_sets}
    for arm, parts in logits.items():
        try:
            values = inception_score(torch.stack(parts), splits)
        except ValueError as error:
            problems.append(f"arm {arm}: {error}")
            continue
        for short, value in zip(("inception score", "inception score std"), values, strict=True):
            lines.append(
                {
                    "path": "",
                    "arm": arm,
                    "prompt": "",
                    "seed": "",
                    "category": "",
                    "metric": short,
                    "value": repr(value),
                }
            )
            about[short] = {
                "name": f"Inception Score, {splits} splits, {classifier[0] if classifier else ''}",
                "higher_is_better": True,
                "unit": "score",
            }
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(lines)
    write_whole(folder / "scores.csv", text.getvalue().encode())
    hashes = {record["path"]: record.get("sha256", "") for record in records}
    write_whole(folder / "metrics.json", (json.dumps(about, indent=2) + "\n").encode())
    write_whole(folder / "scored.json", (json.dumps(hashes) + "\n").encode())
    return problems


def _row(record: dict[str, Any], short: str, value: float) -> dict[str, str]:
    return {
        "path": record["path"],
        "arm": record["arm"],
        "prompt": record["prompt"],
        "seed": str(record["seed"]),
        "category": record["category"],
        "metric": short,
        "value": repr(float(value)),
    }


def read_scores(folder: Path) -> list[dict[str, str]]:
    """The lines of `scores.csv`; none where there is no such file."""
    path = folder / "scores.csv"
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@dataclass
class _Before:
    """What an earlier scoring found of the same bytes."""

    about: dict[str, Any]
    rows: dict[tuple[str, str], dict[str, str]]
    of_sets: list[dict[str, str]]
    complete: bool  # of all the pictures that there are now, and no others

    @property
    def names(self) -> dict[str, str]:
        return {short: about["name"] for short, about in self.about.items()}


def _before(folder: Path, records: Sequence[dict[str, Any]]) -> _Before:
    try:
        about = json.loads((folder / "metrics.json").read_text())
        hashes = json.loads((folder / "scored.json").read_text())
    except (OSError, ValueError):
        return _Before({}, {}, [], False)
    same = set()
    for record in records:
        path, known = folder / record["path"], record.get("sha256")
        if known and hashes.get(record["path"]) == known and path.is_file():
            if hashlib.sha256(path.read_bytes()).hexdigest() == known:
                same.add(record["path"])
    rows = [row for row in read_scores(folder) if row["metric"] in about]
    return _Before(
        about,
        {(row["path"], row["metric"]): row for row in rows if row["path"] in same},
        [row for row in rows if not row["path"]],
        same == set(hashes) == {record["path"] for record in records},
    )
