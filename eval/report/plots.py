"""The report's plots, as SVG that needs nothing from elsewhere."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite
from typing import Any

import matplotlib

matplotlib.use("Agg")
from markupsafe import Markup  # noqa: E402
from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from eval.text import visible  # noqa: E402

Point = tuple[float, float, float, float]
"""x, y, and the ends of y's interval, NaN where there is none."""
Difference = tuple[str, float, float, float, str]
"""A name, the difference, the ends of its interval, and "good", "bad" or "": whether it is told, and which way."""

COLOURS = {"good": "#2a7f62", "bad": "#b03a48", "": "#6b7280"}
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "dnp",
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}


def plain(text: str) -> str:
    """A label that matplotlib shows as it is: no formulas between `$`, no label left out for its first underscore."""
    shown = visible(text).replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown


def _figure(height: float, title: str, xlabel: str, ylabel: str = "") -> tuple[Figure, Axes]:
    figure, axes = pyplot.subplots(figsize=(6.4, height))
    axes.set_xlabel(plain(xlabel))
    axes.set_ylabel(plain(ylabel))
    axes.set_title(plain(title), loc="left", fontsize=10)
    return figure, axes


def _svg(figure: Figure, title: str) -> Markup:
    data = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's own fonts draw the text, not matplotlib's
        figure.savefig(data, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    text = data.getvalue()
    text = text[text.index("<svg") :].replace("#000000", "currentColor")
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(visible(title))}" ', 1))


def draw_differences(axes: Axes, rows: Sequence[Difference]) -> None:
    """A line for each difference and its interval, with zero marked."""
    for place, (_, mean, low, high, kind) in enumerate(reversed(rows)):
        if isfinite(low) and isfinite(high):
            axes.plot([low, high], [place, place], color=COLOURS[kind], lw=2, solid_capstyle="round")
        axes.plot([mean], [place], "o", color=COLOURS[kind], ms=5)
    axes.axvline(0, color="#9ca3af", lw=1)
    axes.set_yticks(range(len(rows)), [plain(row[0]) for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)


def _bars(y: Sequence[float], low: Sequence[float], high: Sequence[float]) -> list[list[float]]:
    """How far intervals reach down and up: never less than nothing, which rounding can make of an end."""
    pairs = list(zip(y, low, high, strict=True))
    return [[max(b - a, 0.0) for b, a, _ in pairs], [max(c - b, 0.0) for b, _, c in pairs]]


def draw_curves(axes: Axes, series: Mapping[str, Sequence[Point]]) -> None:
    """A curve with intervals for each name."""
    for name, points in series.items():
        x, y, low, high = zip(*sorted(points), strict=True)
        axes.errorbar(x, y, _bars(y, low, high), marker="o", ms=4, lw=1.5, capsize=2, label=plain(name))


def forest(rows: Sequence[Difference], title: str, xlabel: str) -> Markup:
    """The differences of `draw_differences` as a figure."""
    with pyplot.rc_context(_STYLE):
        figure, axes = _figure(0.7 + 0.28 * len(rows), title, xlabel)
        draw_differences(axes, rows)
        return _svg(figure, title)


def curves(series: Mapping[str, Sequence[Point]], title: str, xlabel: str, ylabel: str) -> Markup:
    """The curves of `draw_curves` as a figure."""
    with pyplot.rc_context(_STYLE):
        figure, axes = _figure(3.4, title, xlabel, ylabel)
        draw_curves(axes, series)
        beside: Any = {"loc": "upper left", "bbox_to_anchor": (0, -0.15)} if len(series) > 3 else {}
        axes.legend(frameon=False, fontsize=8, **beside)
        return _svg(figure, title)


def pareto(points: Mapping[str, Point], title: str, xlabel: str, ylabel: str) -> Markup:
    """A named point with its interval for each arm."""
    with pyplot.rc_context(_STYLE):
        figure, axes = _figure(3.4, title, xlabel, ylabel)
        for name, (x, y, low, high) in points.items():
            axes.errorbar([x], [y], _bars([y], [low], [high]), marker="o", ms=5, capsize=2)
            axes.annotate(plain(name), (x, y), textcoords="offset points", xytext=(6, 4), fontsize=8)
        return _svg(figure, title)
