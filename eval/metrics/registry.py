"""All metrics by name, each described once: the help, the lists of `dnp` and the docs are made of this.

A new metric is one entry here and a file beside. Nothing heavy is imported before a metric is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from eval.metrics.metric import Metric, SetMetric

if TYPE_CHECKING:
    from eval.metrics.clip import Clip


class MetricError(ValueError):
    """There is no such metric, or not for these pictures. One line that names it and the remedy."""


@dataclass
class Given:
    """What metrics may need besides pictures.

    Args:
        folder: Of the model that made the pictures, or None: `judge/` and `clip/` may stand in it.
        clip: A checkpoint; by default the one in the folder, or OpenAI's ViT-B/16 as Attend-and-Excite used it.
        classifier: torch-fidelity's weights.
    """

    folder: Path | None = None
    clip: str | None = None
    classifier: str | None = None

    def beside(self, name: str) -> Path | None:
        """A folder of that name beside the model."""
        return self.folder / name if self.folder and (self.folder / name).is_dir() else None

    @cached_property
    def shared_clip(self) -> Clip:
        """One for all metrics: they share what it makes of the pictures."""
        from eval.metrics.clip import Clip

        return Clip(self.clip or self.beside("clip") or "ViT-B-16/openai")


@dataclass(frozen=True)
class Entry:
    """A metric by name: what it measures, in a line, and how it is made."""

    says: str
    make: Callable[[Given], Metric | SetMetric]


def _judge(given: Given) -> Metric:
    from eval.metrics.adherence import Adherence

    if not (folder := given.beside("judge")):
        raise MetricError("the metric judge is for the drawn world, and there is no judge beside this model")
    return Adherence(folder)


def _min_object(given: Given) -> Metric:
    from eval.metrics.clip import MinObject

    own = given.beside("clip") and not given.clip  # of a world without photos: it knows none of the templates' words
    return MinObject(given.shared_clip, ("{}",) if own else None)


def _clip(given: Given) -> Metric:
    from eval.metrics.clip import ClipScore

    return ClipScore(given.shared_clip)


def _appearance(given: Given) -> Metric:
    from eval.metrics.appearance import Appearance

    return Appearance()


def _inception(given: Given) -> SetMetric:
    from eval.metrics.inception import Inception, InceptionScore

    if not given.classifier:
        raise MetricError("the metric inception needs a network: give torch-fidelity's weights with --classifier FILE")
    network = Inception(given.classifier)
    return InceptionScore(network, network.name)


METRICS = {
    "judge": Entry("both things right, neglected, wrong attribute, by the drawn world's judge", _judge),
    "clip-min-object": Entry(
        "Attend-and-Excite's protocol: raw cosine with 80 templates, full prompt and worst thing", _min_object
    ),
    "clip": Entry("raw cosine of picture and prompt, and Hessel's CLIPScore", _clip),
    "appearance": Entry("contrast and saturation, which high scales push up", _appearance),
    "inception": Entry(
        "Inception Score of each arm, mean and deviation over 10 splits (needs --classifier)", _inception
    ),
}


def defaults(given: Given) -> list[str]:
    """What suits the pictures of a model: the judge's verdict for the drawn world, the scores of CLIP elsewhere."""
    return ["judge", "clip-min-object"] if given.beside("judge") else ["clip-min-object", "clip"]


def make(names: Sequence[str], given: Given) -> list[Metric | SetMetric]:
    """Metrics by name.

    Raises:
        MetricError: an unknown name, or one that cannot be had for these pictures.
        ValueError: no such checkpoint.
    """
    if unknown := [name for name in names if name not in METRICS]:
        raise MetricError(f"the metric {unknown[0]!r} is none of {', '.join(METRICS)}")
    return [METRICS[name].make(given) for name in names]
