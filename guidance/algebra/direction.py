r"""Directions: weighted sums of predictions whose weights sum to zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ..denoiser.evaluator import Evaluator
from ..errors import GuidanceError
from .expression import Expression
from .notation import combination, condition_name, order, plain
from .weights import Scale, Weight, as_weight, total, values, vanishes


class Direction:
    r"""A difference of predictions, to be scaled and added to a guidance.

    Args:
        weights: The weight of each condition.

    Raises:
        GuidanceError: If the weights do not sum to zero.
    """

    __slots__ = ("_weights",)
    # numpy's numbers must leave the multiplication to us instead of looping over us.
    __array_ufunc__ = None

    def __init__(self, weights: Mapping[str, Scale]) -> None:
        self._weights = canonical(weights)
        if found := total(self.weights.values()):
            raise GuidanceError(f"the weights of a direction sum to zero, not to {plain(found)}")

    @property
    def weights(self) -> Mapping[str, Weight]:
        r"""The weights that are not zero: empty, negative, prompt, then the alphabet."""
        return MappingProxyType(self._weights)

    def __add__(self, other: Direction) -> Direction:
        if isinstance(other, Expression):
            return NotImplemented  # a guidance knows how to add a direction to itself
        if isinstance(other, Direction):
            return Direction(added([*self.weights.items(), *other.weights.items()]))
        raise GuidanceError(f"{other!r} cannot be added to a direction")

    def __sub__(self, other: Direction) -> Direction:
        if isinstance(other, Expression):
            raise GuidanceError("a prediction cannot be subtracted from a direction: write it first, as in u - (p - n)")
        return self + -other

    def __neg__(self) -> Direction:
        return self * -1

    def __mul__(self, scale: Scale) -> Direction:
        if isinstance(scale, (Expression, Direction)):
            why = "differences cannot be multiplied: a scale is a number, a tensor or a function of sigma"
            raise GuidanceError(why)
        factor = as_weight(scale)
        return Direction({name: weight * factor for name, weight in self.weights.items()})

    __rmul__ = __mul__

    def __truediv__(self, divisor: Scale) -> Direction:
        value = as_weight(divisor).constant
        if not value:
            raise GuidanceError(f"a direction can be divided by a number other than zero, not by {divisor!r}")
        return self * (1 / value)

    def latex(self) -> str:
        r"""The difference in LaTeX's mathematics, without dollars."""
        return combination(self.weights, latex=True)

    def _repr_latex_(self) -> str:
        return f"${self.latex()}$"

    def __str__(self) -> str:
        return combination(self.weights)

    def __repr__(self) -> str:
        return f"<direction {self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Direction) and self.weights == other.weights

    def __hash__(self) -> int:
        return hash(frozenset(self.weights.items()))


def weighted_sum(weights: Mapping[str, Weight], evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
    r"""The sum of weighted predictions. Conditions that are the same share one weight; zeros are not evaluated.

    Args:
        weights: The weight of each condition.
        evaluate: Evaluates the denoiser.
        x: The noisy samples :math:`(B, ...)`.
        sigma: The noise levels :math:`(B)`.

    Returns:
        The sum :math:`(B, ...)`.
    """
    merged = added((evaluate.same(name), weight) for name, weight in weights.items())
    factors = {name: value for name, value in values(merged, x, sigma).items() if not vanishes(value)}
    predictions = evaluate(factors, x, sigma)
    terms = [predictions[name] * value for name, value in factors.items()]
    return sum(terms[1:], start=terms[0]) if terms else torch.zeros_like(x)


def canonical(weights: Mapping[str, Scale]) -> dict[str, Weight]:
    r"""Weights by full names of conditions, without zeros, in one order."""
    found = added((condition_name(name), as_weight(scale)) for name, scale in weights.items())
    return {name: found[name] for name in sorted(found, key=order) if found[name]}


def added(items: Iterable[tuple[str, Weight]]) -> dict[str, Weight]:
    r"""The sum of the weights of each condition."""
    weights: dict[str, Weight] = {}
    for name, weight in items:
        weights[name] = weights[name] + weight if name in weights else weight
    return weights
