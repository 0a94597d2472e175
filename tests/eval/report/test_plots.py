"""Plots: labels that others wrote, and intervals that rounding turned over."""

import re

import numpy as np
from matplotlib import pyplot

from eval.report.plots import COLOURS, curves, draw_curves, draw_differences, forest, pareto

HOSTILE = """"><script>$x$ $\\frac{ & 'y'"""


def texts(svg):
    return [
        found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        for found in re.findall(r"<text[^>]*>([^<]*)", svg)
    ]


def test_labels_are_shown_as_they_are():
    point = (1.0, 0.5, 0.4, 0.6)
    for svg in (
        curves({HOSTILE: [point], "_hidden": [point]}, HOSTILE, HOSTILE, HOSTILE),
        pareto({HOSTILE: point}, HOSTILE, HOSTILE, HOSTILE),
        forest([(HOSTILE, 0.1, 0.0, 0.2, "")], HOSTILE, HOSTILE),
    ):
        assert "<script>" not in svg and texts(svg).count(HOSTILE) >= 3
        assert re.match(r'<svg role="img" aria-label="&quot;&gt;&lt;script&gt;\$x\$', svg)
    assert any("_hidden" in text for text in texts(curves({"_hidden": [point, point]}, "", "", "")))
    assert "\\x1b[31m" in str(texts(curves({"a\x1b[31m": [point]}, "", "", "")))


def test_intervals_never_reach_the_wrong_way():
    figure, axes = pyplot.subplots()
    draw_curves(axes, {"all right": [(0, 1.0, 1.0 + 1e-16, 1.0), (1, 0.0, 1e-17, 0.0), (2, 0.5, np.nan, np.nan)]})
    (bars,) = axes.containers[0][2]
    heights = [segment[:, 1] for segment in bars.get_segments() if len(segment)]
    np.testing.assert_allclose(heights, [[1, 1], [0, 0]], atol=1e-12)
    pyplot.close(figure)


def test_differences_are_coloured_by_what_is_told():
    figure, axes = pyplot.subplots()
    draw_differences(
        axes, [("a", 0.2, 0.1, 0.3, "good"), ("b", -0.2, -0.3, -0.1, ""), ("c", 0.1, np.nan, np.nan, "bad")]
    )
    found = [(line.get_color(), line.get_xdata()[0]) for line in axes.lines[:-1]]
    assert found == [
        (COLOURS["bad"], 0.1),
        (COLOURS[""], -0.3),
        (COLOURS[""], -0.2),
        (COLOURS["good"], 0.1),
        (COLOURS["good"], 0.2),
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "b", "a"]
    pyplot.close(figure)
