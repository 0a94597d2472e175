"""What every metric is: a callable on pictures and prompts that carries its full name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from eval.prompts import Prompt

Values = dict[str, list[float | str]]
"""Short name → a value for each picture, or a line that says why there is none."""


@dataclass(frozen=True)
class Kind:
    """Of one column: its unit, and which way is better (None: neither)."""

    unit: str
    higher_is_better: bool | None = True


class Metric(Protocol):
    """`metric(images, prompts)` → `Values`. The value of a picture depends on no other picture."""

    @property
    def name(self) -> str:
        """Variant and checkpoint, as printed beside every result."""
        ...

    @property
    def kinds(self) -> Mapping[str, Kind]: ...

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> Values: ...
