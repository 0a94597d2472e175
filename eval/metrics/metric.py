"""What every metric is: a callable on pictures and prompts that carries its full name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from eval.prompts import Prompt

Values = dict[str, list[float | str]]
"""Short name → a value for each picture, or a line that says why there is none."""

ADHERENCE = "Do the pictures show what their prompts say?"
QUALITY = "Are they good pictures?"
LOOK = "What does guidance do to their look?"


@dataclass(frozen=True)
class Kind:
    """One column of a metric.

    Args:
        unit: In a word: "cosine", "share".
        higher_is_better: None if neither is.
        binary: Every value is 0 or 1, so the mean is a share.
        question: That it helps to answer; a report has a table for each.
    """

    unit: str
    higher_is_better: bool | None = True
    binary: bool = False
    question: str = "Other measures"

    def facts(self) -> dict[str, Any]:
        """For `metrics.json`."""
        return asdict(self)


@runtime_checkable
class Metric(Protocol):
    """`metric(images, prompts)` → `Values`. The value of a picture depends on no other picture."""

    @property
    def name(self) -> str:
        """Variant and checkpoint, as printed beside every result."""
        ...

    @property
    def kinds(self) -> Mapping[str, Kind]: ...

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> Values: ...


@runtime_checkable
class SetMetric(Protocol):
    """A metric of all pictures of an arm together."""

    @property
    def name(self) -> str: ...

    @property
    def kinds(self) -> Mapping[str, Kind]: ...

    def features(self, images: Sequence[Image.Image]) -> Sequence[Any]:
        """What the score is made of, for each picture."""
        ...

    def of_set(self, features: Sequence[Any]) -> dict[str, float]:
        """Short name → the value for the set.

        Raises:
            ValueError: the set is too small.
        """
        ...
