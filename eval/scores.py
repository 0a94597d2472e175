"""`dnp score`: a folder of pictures and its manifest become `scores.csv`, a row for each picture and value.

What was scored before on the same bytes is kept, by this metric and by others. What cannot be scored is named, the
rest is scored.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from eval.manifest import ManifestError, of_prompt, prompt_of, read_run, write_whole
from eval.metrics.metric import Metric, SetMetric
from eval.pictures import PictureError, pictures, read_bytes
from eval.text import visible

COLUMNS = ("path", "arm", "prompt", "seed", "category", "metric", "value")
BATCH = 64
Line = tuple[str, ...]
"""What a line of a manifest is known by: the first four columns. Two lines may name one picture."""
Row = dict[str, str]


def score(folder: Path, metrics: Sequence[Metric | SetMetric], label: str | None = "score") -> list[str]:
    """Score the pictures of a folder.

    Args:
        label: Of the progress bar; None for none.

    Returns:
        What was left out, a line each.

    Raises:
        ManifestError: there is no manifest, or a line of it is broken.
    """
    records = [record for record in read_run(folder) if of_prompt(record)]
    problems: list[str] = []
    single = [metric for metric in metrics if isinstance(metric, Metric)]
    of_sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
    about = {short: {"name": metric.name, **kind.facts()} for metric in metrics for short, kind in metric.kinds.items()}
    names = [short for metric in single for short in metric.kinds]
    before = _before(folder, records)
    rows = {
        key: row
        for key, row in before.rows.items()
        if key[1] not in about or before.about[key[1]]["name"] == about[key[1]]["name"]
    }
    features: dict[str, dict[str, list[Any]]] = {}
    todo = [record for record in records if of_sets or any((_line(record), short) not in rows for short in names)]
    batch: list[tuple[dict[str, Any], Image.Image]] = []

    def flush() -> None:
        images, prompts = [image for _, image in batch], [prompt_of(record) for record, _ in batch]
        for metric in single if batch else ():
            for short, values in metric(images, prompts).items():
                for (record, _), value in zip(batch, values, strict=True):
                    if isinstance(value, str):
                        problems.append(f"{record['path']}: {value}")
                    elif not math.isfinite(value):
                        problems.append(f"{record['path']}: its {short} is {value}, no number that can be averaged")
                    else:
                        rows[_line(record), short] = _row(_line(record), record["category"], short, value)
        for part in of_sets if batch else ():
            for (record, _), found in zip(batch, part.features(images), strict=True):
                features.setdefault(record["arm"], {}).setdefault(part.name, []).append(found)
        bar.update(len(batch))
        batch.clear()

    with tqdm(total=len(todo), desc=label, unit="picture", disable=None if label else True) as bar:
        for found in pictures(folder, todo, problems):
            batch.append(found)
            if len(batch) == BATCH:
                flush()
        flush()
    others = [short for short in before.about if short not in about and any(key[1] == short for key in rows)]
    keys = [(_line(record), short) for record in records for short in [*others, *names]]
    written = [rows[key] for key in keys if key in rows]
    about = {short: before.about[short] for short in others} | about
    if before.complete:
        kept = [row for row in before.of_sets if row["metric"] not in about]
        written += kept
        about |= {row["metric"]: before.about[row["metric"]] for row in kept}
    for arm, parts in features.items():
        for part in of_sets:
            try:
                values = part.of_set(parts[part.name])
            except ValueError as error:
                problems.append(f"arm {arm}: {error}")
                continue
            written += [_row(("", arm, "", ""), "", short, value) for short, value in values.items()]
    about = {short: facts for short, facts in about.items() if any(row["metric"] == short for row in written)}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in row.items()} for row in written)
    write_whole(folder / "scores.csv", text.getvalue().encode())
    hashes = {record["path"]: record.get("sha256", "") for record in records}
    write_whole(folder / "metrics.json", (json.dumps(about, indent=2) + "\n").encode())
    write_whole(folder / "scored.json", (json.dumps(hashes) + "\n").encode())
    return [visible(problem) for problem in problems]


def _line(record: Mapping[str, Any]) -> Line:
    return record["path"], record["arm"], record["prompt"], str(record["seed"])


def _row(line: Line, category: str, short: str, value: float) -> Row:
    return dict(zip(COLUMNS, (*line, category, short, repr(float(value))), strict=True))


_ACTIVE = ("=", "+", "-", "@", "\t", "\r", "'")


def cell(value: object) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula: what begins like one gets an apostrophe first."""
    text = str(value)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(_ACTIVE) else text
    return text


def read_scores(folder: Path) -> list[Row]:
    """The rows of `scores.csv`; none where there is no such file.

    Raises:
        ManifestError: it is not what `dnp score` writes.
    """
    path = folder / "scores.csv"
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        found = [{name: row[name].removeprefix("'") for name in COLUMNS} for row in rows]
        if all(math.isfinite(float(row["value"])) for row in found):
            return found
    except (KeyError, AttributeError, ValueError, csv.Error):  # columns or cells that lack, no numbers, no UTF-8
        pass
    raise ManifestError(f"{path} is not what dnp score writes: take it away and score the folder again")


@dataclass
class _Before:
    """What an earlier scoring found in the same bytes."""

    about: dict[str, Any] = field(default_factory=dict)
    rows: dict[tuple[Line, str], Row] = field(default_factory=dict)
    of_sets: list[Row] = field(default_factory=list)
    complete: bool = False  # all the pictures that there are now, and no others


def _before(folder: Path, records: Sequence[dict[str, Any]]) -> _Before:
    try:
        about = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        hashes = json.loads((folder / "scored.json").read_text(encoding="utf-8"))
        rows = [row for row in read_scores(folder) if row["metric"] in about]
        if not all(isinstance(facts["name"], str) for facts in about.values()) or not isinstance(hashes, dict):
            return _Before()
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return _Before()  # then everything is scored
    same = set()
    for record in records:
        path, known = record["path"], record.get("sha256")
        if known and hashes.get(path) == known:
            try:
                if hashlib.sha256(read_bytes(folder, path)).hexdigest() == known:
                    same.add(path)
            except PictureError:
                continue
    return _Before(
        about,
        {(_line(row), row["metric"]): row for row in rows if row["path"] in same},
        [row for row in rows if not row["path"]],
        same == set(hashes) == {record["path"] for record in records},
    )
