"""The paper's tables 1, 2a and 2b, ours beside what it prints (Desai & Vasconcelos, ECCV 2024).

A later row is one entry of `METHODS` and an arm of that name in a scored folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.report.results import Results, Row, compare
from eval.report.tables import Cell, Line, Table, number

TWO_THINGS = "attend-and-excite"
NO_WINNER = "No Clear Winner"


@dataclass(frozen=True)
class Method:
    """A row of the paper's tables.

    Args:
        arm: That has its pictures.
        against: The arm that its gains are over; "" for none.
    """

    title: str
    arm: str
    against: str = ""


METHODS = (
    Method("Stable Diffusion (SD)", "plain"),
    Method("SD+auto-DNP", "dnp", "plain"),
    Method("SD+DNP", "dnp-person", "plain"),
    Method("Attend & Excite (A&E)", "ae"),
    Method("A&E+auto-DNP", "ae+dnp", "ae"),
)
_SD, _AUTO, _PERSON, _AE, _AE_AUTO = (method.title for method in METHODS)

# Columns: (group, name) → metrics that may stand there, the first that was scored
_MIN, _FULL = ("CLIP Score", "Min. Object"), ("CLIP Score", "Full Prompt")
_CLIP, _IS = ("", "CLIP Score"), ("", "IS")
_CORRECT, _QUALITY = ("Human Evaluation", "Correctness"), ("Human Evaluation", "Quality")
_METRICS = {
    _MIN: ("clip cosine min object",),
    _FULL: ("clip cosine full prompt", "clip cosine"),
    _CLIP: ("clip cosine", "clip cosine full prompt"),
    _IS: ("inception score",),
}
_A = (_MIN, _FULL, _IS, _CORRECT, _QUALITY)
_B = (_CLIP, _IS, _CORRECT, _QUALITY)
Column = tuple[str, str]

PRINTED: dict[str, dict[str, dict[Column, str]]] = {
    TWO_THINGS: {
        NO_WINNER: {_CORRECT: "16.88%", _QUALITY: "10.46%"},
        _SD: {_MIN: "0.242", _FULL: "0.335", _IS: "13.17", _CORRECT: "18.90%", _QUALITY: "25.73%"},
        _AUTO: {
            _MIN: "0.258 (+6.61%)",
            _FULL: "0.346 (+3.28%)",
            _IS: "13.35 (+1.37%)",
            _CORRECT: "64.22%",
            _QUALITY: "63.81%",
        },
        f"{NO_WINNER} (A&E)": {_CORRECT: "16.95%", _QUALITY: "7.35%"},
        _AE: {_MIN: "0.264", _FULL: "0.349", _IS: "11.86", _CORRECT: "30.06%", _QUALITY: "33.12%"},
        _AE_AUTO: {
            _MIN: "0.276 (+4.54%)",
            _FULL: "0.362 (+3.72%)",
            _IS: "13.12 (+10.62%)",
            _CORRECT: "52.99%",
            _QUALITY: "59.53%",
        },
    },
    "humans": {
        NO_WINNER: {_CORRECT: "14.42%", _QUALITY: "5.10%"},
        _SD: {_CLIP: "0.322", _IS: "9.95", _CORRECT: "27.60%", _QUALITY: "29.0%"},
        _AUTO: {_CLIP: "0.331 (+2.80%)", _IS: "10.13 (+1.80%)", _CORRECT: "57.98%", _QUALITY: "65.80%"},
    },
    "hands": {
        NO_WINNER: {_CORRECT: "19.89%", _QUALITY: "8.18%"},
        _SD: {_CLIP: "0.309", _IS: "12.04", _CORRECT: "20.45%", _QUALITY: "22.47%"},
        _AUTO: {_CLIP: "0.321 (+3.88%)", _IS: "12.39 (+2.94%)", _CORRECT: "59.66%", _QUALITY: "69.35%"},
    },
}
_TABLE_1: dict[str, dict[Column, str]] = {
    _AUTO: {
        ("", "Human"): "0.330",
        ("", "Hand"): "0.323",
        ("A&E", "Min. Object"): "0.250",
        ("A&E", "Full Prompt"): "0.344",
    },
    _PERSON: {
        ("", "Human"): "0.331",
        ("", "Hand"): "0.324",
        ("A&E", "Min. Object"): "0.253",
        ("A&E", "Full Prompt"): "0.345",
    },
}
_SETS = {
    ("", "Human"): ("humans", _CLIP),
    ("", "Hand"): ("hands", _CLIP),
    ("A&E", "Min. Object"): (TWO_THINGS, _MIN),
    ("A&E", "Full Prompt"): (TWO_THINGS, _FULL),
}
_NOTE = (
    "The paper's rows are what it prints, for its models and prompts. Ours: the mean with its gain in percent, and the "
    "paired difference with its 95 % interval over prompts and seeds."
)


def setting(found: Results) -> str | None:
    """The paper's set that a run's prompts belong to."""
    categories = set(found.categories)
    if categories and categories <= {"animal-animal", "animal-object", "object-object"}:
        return TWO_THINGS
    return next((name for name in ("humans", "hands") if categories == {name}), None)


def paper_tables(runs: Sequence[Results], names: Sequence[dict[str, str]] | None = None) -> list[Table]:
    """Tables 1, 2a and 2b of scored runs, each with the set of prompts that it has.

    A run on prompts of another set that names two things has a table in the layout of 2a, without the paper's rows.

    Args:
        names: For each run how its arms are called.
    """
    labels = names or [{} for _ in runs]
    of_set = {setting(found): found for found in runs}
    tables = []
    if any((found := of_set.get(name)) and "dnp-person" in found.arms for name in PRINTED):
        lines = []
        for method in METHODS:
            if method.title in _TABLE_1:
                printed = tuple(Cell(_TABLE_1[method.title][column]) for column in _SETS)
                lines.append(Line(f"paper: {method.title}", printed, True))
                ours = [_cell(of_set.get(name), method.arm, "", column) for name, column in _SETS.values()]
                lines.append(Line(method.title, tuple(ours)))
        tables.append(Table("Table 1: DNP and auto-DNP by CLIP Score", "Method", tuple(_SETS), tuple(lines)))
    for found, label in zip(runs, labels, strict=True):
        if (name := setting(found)) in (TWO_THINGS, None):
            title = "Table 2a: the A&E dataset" if name else f"In the layout of Table 2a: {found.folder.name}"
            tables.append(Table(title, "Method", _A, tuple(_lines(found, name, _A, label)), (_NOTE,)).lean())
    rows = [
        Line(f"{name.capitalize()}: {line.name}", line.cells, line.paper)
        for name in ("humans", "hands")
        for found, label in zip(runs, labels, strict=True)
        if setting(found) == name
        for line in _lines(found, name, _B, label)
    ]
    if rows:
        tables.append(Table("Table 2b: the H&H dataset", "Dataset: Method", _B, tuple(rows), (_NOTE,)).lean())
    return tables


def _lines(found: Results, name: str | None, columns: Sequence[Column], label: dict[str, str]) -> list[Line]:
    """The paper's rows, then ours: its methods in its order, then all other arms."""
    printed = PRINTED[name] if name else {}
    lines = [
        Line(f"paper: {title}", tuple(Cell(values.get(column, Cell().text)) for column in columns), True)
        for title, values in printed.items()
    ]
    methods = [method for method in METHODS if method.arm in found.arms]
    known = {method.arm for method in methods}
    methods += [Method(label.get(arm, arm), arm, found.baseline) for arm in found.arms if arm not in known]
    for method in methods:
        cells = tuple(_cell(found, method.arm, method.against, column) for column in columns)
        lines.append(Line(method.title, cells))
    return lines


def _cell(found: Results | None, arm: str, against: str, column: Column) -> Cell:
    metric = next((m for m in _METRICS.get(column, ()) if found and _has(found, arm, m)), None)
    if not found or not metric:
        return Cell()
    if (arm, metric) in found.of_sets:
        value, base = found.of_sets[arm, metric], found.of_sets.get((against, metric))
        return Cell(number(value) + (f" ({100 * (value - base) / abs(base):+.2f}%)" if base else ""))
    row = found.row(arm, metric)
    assert row is not None
    compared = _against(found, row, against) if against and against in found.arms else None
    if compared is None or compared.against is None:
        return Cell(number(row.value.mean))
    g = compared.against
    percent = f" ({compared.relative:+.2f}%)" if compared.relative is not None else ""
    ends = g.too_few or f"[{g.low:+.3f}, {g.high:+.3f}]"
    return Cell(number(row.value.mean) + percent, f"{g.difference:+.3f} {ends}")


def _has(found: Results, arm: str, metric: str) -> bool:
    return (arm, metric) in found.of_sets or found.row(arm, metric) is not None


def _against(found: Results, row: Row, against: str) -> Row | None:
    """The row compared with an arm that need not be the run's baseline."""
    if against == found.baseline:
        return row
    return next((r for r in compare(found, row.metric, "", against) if r.arm == row.arm), None)
