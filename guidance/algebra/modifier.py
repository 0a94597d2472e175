r"""What modifies any guidance."""

from __future__ import annotations

from typing import ClassVar

from .formula import Guidance, wrapped
from .parsing import parse


class Modifier(Guidance):
    r"""A frozen dataclass whose first field is any guidance, or its text, as in ``Rescale("CFG(7.5)", 0.7)``.

    Raises:
        GuidanceError: If the first argument is no guidance.
    """

    guidance: Guidance
    needs: ClassVar[tuple[str, ...]] = ()
    r"""The conditions it needs beside those of the guidance."""

    def __post_init__(self) -> None:
        if isinstance(self.guidance, str):
            vars(self)["guidance"] = parse(self.guidance)
        super().__post_init__()

    @property
    def names(self) -> tuple[str, ...]:
        return wrapped(self.guidance, type(self).__name__, *self.needs)
