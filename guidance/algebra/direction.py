r"""Directions: weighted sums of predictions whose weights sum to zero."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import suppress

import torch
from torch import Tensor

from ..denoiser.evaluator import Evaluator
from ..errors import GuidanceError
from .expression import Expression
from .notation import combination, condition_name, order, plain
from .plan import Plan, vanishes
from .weights import Scale, Weight, as_weight, total

MOST = 256


class Weights(Mapping[str, Weight]):
    r"""The weights of a sum of predictions in its canonical form: without zeros; empty, negative, prompt, the alphabet.

    Args:
        items: Conditions with their scales, which are summed where a condition occurs twice.

    Raises:
        GuidanceError: If a name or scale is none, or there are more than 256 conditions.
    """

    def __init__(self, items: Iterable[tuple[str, Scale]]) -> None:
        found: dict[str, Weight] = {}
        for name, scale in items:
            name, weight = condition_name(name), as_weight(scale)
            found[name] = found[name] + weight if name in found else weight
            if len(found) > MOST:
                raise GuidanceError(f"a formula has at most {MOST} conditions: more could not be evaluated at a step")
        self._weights = {name: found[name] for name in sorted(found, key=order) if found[name]}
        self._plans: dict[tuple[str, ...], Plan] = {}
        with suppress(GuidanceError):  # what no float can hold is an error where it is evaluated
            self.plan(tuple(self))

    @classmethod
    def of(cls, weights: Mapping[str, Scale]) -> Weights:
        r"""The weights in their canonical form, if they are not in it yet."""
        return weights if isinstance(weights, Weights) else cls(weights.items())

    def __getitem__(self, name: str) -> Weight:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def key(self, values: bool = True) -> Hashable:
        r"""What is equal for a copy, with or without what its tensors hold."""
        return frozenset((name, weight.key(values)) for name, weight in self.items())

    def plan(self, names: tuple[str, ...]) -> Plan:
        r"""How to compute them, by the `names` under which their conditions are evaluated."""
        if names not in self._plans:
            same = names == tuple(self)
            self._plans[names] = Plan(self if same else Weights(zip(names, self.values(), strict=True)))
        return self._plans[names]


class Direction:
    r"""A difference of predictions, to be scaled and added to a guidance.

    Args:
        weights: The weight of each condition.

    Raises:
        GuidanceError: If the weights do not sum to zero.
    """

    # numpy's numbers and arrays must leave the multiplication to us instead of looping over us.
    __array_ufunc__ = None

    def __init__(self, weights: Mapping[str, Scale]) -> None:
        self.weights = Weights.of(weights)
        if found := total(self.weights.values()):
            raise GuidanceError(f"the weights of a direction sum to zero, not to {plain(found)}")

    def __add__(self, other: Direction) -> Direction:
        if isinstance(other, Expression):
            return NotImplemented  # a guidance knows how to add a direction to itself
        if isinstance(other, Direction):
            return Direction(Weights([*self.weights.items(), *other.weights.items()]))
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
        return isinstance(other, Direction) and self.weights.key() == other.weights.key()

    def __hash__(self) -> int:
        return hash(self.weights.key(values=False))


def weighted_sum(weights: Weights, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
    r"""The sum of weighted predictions. Conditions that are the same share one weight; zeros are not evaluated.

    Args:
        weights: The weight of each condition.
        evaluate: Evaluates the denoiser.
        x: The noisy samples :math:`(B, ...)`.
        sigma: The noise levels :math:`(B)`.

    Returns:
        The sum :math:`(B, ...)`.
    """
    plan = weights.plan(tuple([evaluate.same(name) for name in weights]))
    factors = {name: value for name, value in plan(x, sigma).items() if not vanishes(value)}
    predictions = evaluate(factors, x, sigma)
    terms = [predictions[name] * value for name, value in factors.items()]
    return sum(terms[1:], start=terms[0]) if terms else torch.zeros_like(x)
