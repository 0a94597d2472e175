r"""Any guidance plus a direction."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .base import Argument, Guidance, wrapped
from .errors import GuidanceError
from .evaluator import Evaluator
from .formula import Direction, weighted_sum
from .notation import combination
from .weights import Atom


class Added(Guidance):
    r"""A guidance and a direction, as in ``Rescale(CFG(7.5), 0.7) + 2 * (p - n)``.

    Args:
        guidance: Any guidance; where it is a formula, the sum is one too and this class is not needed.
        direction: What is added to its prediction, the same in :math:`\epsilon`, :math:`D` and :math:`v`.

    Raises:
        GuidanceError: Where one is no guidance, or the other no direction.
    """

    # No dataclass, and so no strategy by name: its text is the sum.
    def __init__(self, guidance: Guidance, direction: Direction) -> None:
        if not isinstance(direction, Direction):
            raise GuidanceError(f"{direction!r} cannot be added to {guidance}: a direction can, as in 2*(p - n)")
        self.guidance = guidance
        self.direction = direction
        self.__post_init__()

    def __add__(self, other: Direction) -> Guidance:
        return self.guidance + (self.direction + other)

    @property
    def names(self) -> tuple[str, ...]:
        return wrapped(self.guidance, "Added", *self.direction.weights)

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        guided = self.guidance.denoised(evaluate, x, sigma)
        return guided + weighted_sum(self.direction.weights, evaluate, x, sigma)

    def arguments(self) -> Mapping[str, Argument]:
        return {"": self.guidance, **self.direction.weights}

    def written(self, names: Mapping[Atom, str]) -> str:
        return _joined(self.guidance.written(names), combination(self.direction.weights, names), "−")

    def latex(self) -> str:
        return _joined(self.guidance.latex(), self.direction.latex(), "-")


def _joined(guidance: str, direction: str, minus: str) -> str:
    if direction.startswith(minus):
        return f"{guidance} {minus} {direction.removeprefix(minus)}"
    return f"{guidance} + {direction}"
