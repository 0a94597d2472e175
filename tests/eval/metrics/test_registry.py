"""Metrics by name."""

import subprocess
import sys

import pytest

from dnp.models.locate import EMBEDDED
from eval.metrics.clip import ClipScore, MinObject
from eval.metrics.metric import Metric, SetMetric
from eval.metrics.registry import METRICS, Given, MetricError, defaults, make


def test_what_suits_the_pictures():
    assert defaults(Given(EMBEDDED)) == ["judge", "clip-min-object"] and defaults(Given()) == [
        "clip-min-object",
        "clip",
    ]


def test_metrics_are_made_with_what_stands_beside_the_model():
    judge, worst, clip, look = make(["judge", "clip-min-object", "clip", "appearance"], Given(EMBEDDED))
    assert isinstance(worst, MinObject) and isinstance(clip, ClipScore)
    assert worst.clip is clip.clip and worst.clip.name == "open_clip embedded/clip"
    assert worst.templates == ("{}",)  # its world has no photos
    assert all(
        isinstance(metric, Metric) and not isinstance(metric, SetMetric) for metric in (judge, worst, clip, look)
    )
    (theirs,) = make(["clip-min-object"], Given(EMBEDDED, clip="ViT-B-16/openai"))
    assert theirs.clip.name == "open_clip ViT-B-16-quickgelu/openai" and len(theirs.templates) == 80


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("best", "the metric 'best' is none of judge, clip-min-object, clip, appearance, inception"),
        ("judge", "no judge beside this model"),
        ("inception", "--classifier FILE"),
    ],
)
def test_what_cannot_be_had(name, says):
    with pytest.raises(MetricError, match=says):
        make([name], Given())


def test_every_metric_says_what_it_measures_without_loading_anything():
    assert all(entry.says for entry in METRICS.values())
    done = subprocess.run(
        [sys.executable, "-c", "import sys, eval.metrics.registry; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
