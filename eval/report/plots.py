"""The report's plots, as SVG that needs nothing from elsewhere."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

Point = tuple[float, float, float, float]
"""x, y, and the ends of y's interval."""

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "dnp",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}


def _svg(figure: Figure, title: str) -> str:
    data = io.StringIO()
    figure.savefig(data, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    text = data.getvalue()
    text = text[text.index("<svg") :].replace("#000000", "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def draw_differences(axes: Axes, rows: Sequence[tuple[str, float, float, float]], up: bool | None = True) -> None:
    """A line for each difference and its interval, with zero marked; `up`: whether more is better (None: neither)."""
    for place, (_, mean, low, high) in enumerate(reversed(rows)):
        clear = low > 0 or high < 0
        colour = "#6b7280" if not clear or up is None else "#2a7f62" if (mean > 0) == up else "#b03a48"
        axes.plot([low, high], [place, place], color=colour, lw=2, solid_capstyle="round")
        axes.plot([mean], [place], "o", color=colour, ms=5)
    axes.axvline(0, color="#9ca3af", lw=1)
    axes.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)


def draw_curves(axes: Axes, series: Mapping[str, Sequence[Point]]) -> None:
    """A curve with intervals for each name."""
    for name, points in series.items():
        x, y, low, high = zip(*sorted(points), strict=True)
        bars = [[b - a for a, b in zip(low, y, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
        axes.errorbar(x, y, bars, marker="o", ms=4, lw=1.5, capsize=2, label=name)


def forest(rows: Sequence[tuple[str, float, float, float]], title: str, xlabel: str, up: bool | None = True) -> str:
    """The differences of `draw_differences` as a figure."""
    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 0.7 + 0.28 * len(rows)))
        draw_differences(axes, rows, up)
        axes.set_xlabel(xlabel)
        axes.set_title(title, loc="left", fontsize=10)
        return _svg(figure, title)


def curves(series: Mapping[str, Sequence[Point]], title: str, xlabel: str, ylabel: str) -> str:
    """The curves of `draw_curves` as a figure."""
    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 3.4))
        draw_curves(axes, series)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_title(title, loc="left", fontsize=10)
        beside: Any = {"loc": "upper left", "bbox_to_anchor": (0, -0.15)} if len(series) > 3 else {}
        axes.legend(frameon=False, fontsize=8, **beside)
        return _svg(figure, title)


def pareto(points: Mapping[str, Point], title: str, xlabel: str, ylabel: str) -> str:
    """A named point with its interval for each arm."""
    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 3.4))
        for name, (x, y, low, high) in points.items():
            axes.errorbar([x], [y], [[y - low], [high - y]], marker="o", ms=5, capsize=2)
            axes.annotate(name, (x, y), textcoords="offset points", xytext=(6, 4), fontsize=8)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_title(title, loc="left", fontsize=10)
        return _svg(figure, title)
