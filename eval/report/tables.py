"""Tables: made once, printed as HTML (by `page.html.j2`), as Markdown, and as the paper's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from eval.report.results import Results, Row
from eval.text import visible

NONE = "–"
WIDEST = 5  # columns of values that fit a page of 1,200 pixels


@dataclass(frozen=True)
class Cell:
    """A value, what stands below or beside it, and "good", "bad" or ""."""

    text: str = NONE
    note: str = ""
    kind: str = ""

    @property
    def parts(self) -> list[str]:
        """The note as short lines: a difference with its interval, and its p."""
        return re.split(", (?=p )", self.note) if self.note else []


@dataclass(frozen=True)
class Line:
    """A row: its name and its cells; `paper` for what is printed there, not measured here."""

    name: str
    cells: tuple[Cell, ...]
    paper: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        head: What the rows are, then the columns: (group, name), the group "" if it stands alone.
    """

    title: str
    corner: str
    head: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The row above the columns' names: each group and how many columns it spans; nothing if no column has one."""
        spans = [(name, len(list(columns))) for name, columns in groupby(self.head, lambda column: column[0])]
        return spans if any(name for name, _ in spans) else []

    def lean(self) -> Table:
        """Without columns that are empty, and without those that say the same as an earlier one, which is noted."""
        kept: list[int] = []
        notes = list(self.notes)
        for place, (_, name) in enumerate(self.head):
            column = [line.cells[place] for line in self.lines]
            if all(cell.text == NONE for cell in column):
                continue
            twin = next((p for p in kept if [line.cells[p] for line in self.lines] == column), None)
            if twin is not None:
                notes.append(f"{name} is the same as {self.head[twin][1]} in every row.")
                continue
            kept.append(place)
        lines = tuple(replace(line, cells=tuple(line.cells[p] for p in kept)) for line in self.lines)
        return replace(self, head=tuple(self.head[p] for p in kept), lines=lines, notes=tuple(notes))

    def narrow(self) -> list[Table]:
        """As many tables of at most `WIDEST` columns; none where there are no columns."""
        starts = range(0, len(self.head), WIDEST)
        return [
            replace(
                self,
                title=self.title if not start else f"{self.title} (continued)",
                head=self.head[start : start + WIDEST],
                lines=tuple(replace(line, cells=line.cells[start : start + WIDEST]) for line in self.lines),
                notes=self.notes if start == starts[-1] else (),
            )
            for start in starts
        ]

    def markdown(self) -> str:
        """The table in GitHub's Markdown, under its title."""
        head = [self.corner, *(f"{group}: {name}" if group else name for group, name in self.head)]
        body = [[line.name, *(f"{cell.text} {cell.note}".strip() for cell in line.cells)] for line in self.lines]
        lines = [f"## {markdown(self.title)}", "", _row(head), "| " + " | ".join(["---"] * len(head)) + " |"]
        return "\n".join([*lines, *map(_row, body), *(f"\n{markdown(note)}" for note in self.notes)]) + "\n"


def markdown(text: str) -> str:
    """Text as Markdown that shows it as it is."""
    shown = re.sub(r"([\\`*_|~]|<(?=[A-Za-z/!?])|(?<=\])\()", r"\\\1", visible(text))
    return shown.replace("&", "&amp;")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"


def number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"


def p_value(value: float) -> str:
    return "< .001" if value < 0.001 else f"= {value:.3f}".replace("0.", ".", 1)


def cell(found: Results, row: Row | None) -> Cell:
    """A mean with its gain over the baseline in percent, as the paper prints it; the paired difference below it."""
    if row is None:
        return Cell()
    value, g = row.value, row.against
    if g is None:
        return Cell(number(value.mean), value.too_few or f"[{number(value.low)}, {number(value.high)}]")
    text = number(value.mean) + (f" ({row.relative:+.2f}%)" if row.relative is not None else "")
    if g.too_few or row.p_holm is None:
        return Cell(text, f"{g.difference:+.3f}, {g.too_few}")
    note = f"{g.difference:+.3f} [{g.low:+.3f}, {g.high:+.3f}], p {p_value(row.p_holm)}"
    return Cell(text, note, found.kind(row))


def questions(found: Results, names: dict[str, str]) -> list[Table]:
    """A table for each question that the scores help to answer: arms by metrics."""
    metrics = list(dict.fromkeys(row.metric for row in found.rows))
    sets = list(dict.fromkeys(metric for _, metric in found.of_sets))
    asked: dict[str, list[str]] = {}
    for metric in [*metrics, *sets]:
        asked.setdefault(found.of(metric, "question", "Other measures"), []).append(metric)
    tables = []
    for question, columns in asked.items():
        lines = []
        for arm in found.arms:
            cells = [cell(found, found.row(arm, m)) if m in metrics else _of_set(found, arm, m) for m in columns]
            lines.append(Line(names.get(arm, arm), tuple(cells)))
        head = tuple(("", f"{metric} ↓" if found.up(metric) is False else metric) for metric in columns)
        tables += Table(question, "arm", head, tuple(lines)).lean().narrow()
    return tables


def _of_set(found: Results, arm: str, metric: str) -> Cell:
    value = found.of_sets.get((arm, metric))
    if value is None:
        return Cell()
    base = found.of_sets.get((found.baseline, metric))
    gain = f" ({100 * (value - base) / abs(base):+.2f}%)" if base and arm != found.baseline else ""
    return Cell(number(value) + gain)


def by_category(found: Results, names: dict[str, str]) -> list[Table]:
    """The leading metric by category of the prompts."""
    if len(found.categories) < 2:
        return []
    lines = [
        Line(names.get(arm, arm), tuple(cell(found, found.row(arm, found.lead, c)) for c in found.categories))
        for arm in found.arms
    ]
    head = tuple(("", category) for category in found.categories)
    return Table(f"Does it depend on the kind of prompt? ({found.lead})", "arm", head, tuple(lines)).lean().narrow()
