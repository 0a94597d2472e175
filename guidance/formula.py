r"""The algebra: predictions are points, their differences are directions.

Weights of a point sum to one, those of a direction to zero. A point plus a scaled direction is a point. The
sum of two predictions is none: it would predict twice the noise. Because weights sum to one, a formula is the
same in :math:`\epsilon`, in the denoised :math:`D = x - \sigma \epsilon` and in :math:`v`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import overload

import torch
from torch import Tensor

from .base import Argument, Guidance, refuse
from .errors import GuidanceError
from .evaluator import Evaluator
from .notation import combination, condition_name, labels, number, order, substitution
from .weights import ONE, Atom, Scale, Weight, as_weight, total, values, vanishes

_NOT_ADDED = "predictions cannot be added, weights must sum to one: add a difference, as in u + 7.5*(p - n)"


def prediction(name: str) -> Formula:
    r"""The prediction :math:`\epsilon_\theta(z_t, c)` under the condition called `name`.

    Raises:
        GuidanceError: Where the name could not be a keyword argument.
    """
    return Formula({condition_name(name): ONE})


class Linear(Guidance):
    r"""A guidance that is a weighted sum of predictions.

    .. math:: \hat\epsilon = \sum_c w_c \, \epsilon_\theta(z_t, c), \qquad \sum_c w_c = 1
    """

    @property
    @abstractmethod
    def formula(self) -> Formula:
        r"""The weighted sum."""

    def __post_init__(self) -> None:
        self.formula  # noqa: B018  a strategy with a wrong scale fails where it is made
        super().__post_init__()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.formula.weights)

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        return weighted_sum(self.formula.weights, evaluate, x, sigma)

    def rename(self, **names: str) -> Formula:
        new = substitution(names, self.names, self)
        return Formula(_sum((new.get(name, name), weight) for name, weight in self.formula.weights.items()))

    def latex(self) -> str:
        return combination(self.formula.weights, labels(self.scales()), latex=True)

    def __str__(self) -> str:
        return combination(self.formula.weights, labels(self.scales()))

    def __eq__(self, other: object) -> bool:
        return self.formula.weights == other.formula.weights if isinstance(other, Linear) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self.formula.weights.items()))

    def __add__(self, other: Direction) -> Formula:
        if isinstance(other, Direction):
            return Formula(_sum([*self.formula.weights.items(), *other.weights.items()]))
        if isinstance(other, Linear):
            refuse(_NOT_ADDED)
        refuse(f"{other!r} cannot be added to a prediction, a direction can, as in u + 7.5*(p - n)")

    @overload
    def __sub__(self, other: Direction) -> Formula: ...
    @overload
    def __sub__(self, other: Linear) -> Direction: ...
    def __sub__(self, other: Direction | Linear) -> Formula | Direction:
        if isinstance(other, Direction):
            return self + -other
        if isinstance(other, Linear):
            minus = [(name, -weight) for name, weight in other.formula.weights.items()]
            return Direction(_sum([*self.formula.weights.items(), *minus]))
        refuse(f"{other!r} cannot be subtracted from a prediction, a prediction or a direction can")


class Formula(Linear):
    r"""A point: a weighted sum of predictions in its canonical form, without zeros, in one order.

    Args:
        weights: The weight of each condition.

    Raises:
        GuidanceError: Where the weights do not sum to one.
    """

    def __init__(self, weights: Mapping[str, Scale]) -> None:
        self._weights = _canonical(weights)
        if (found := total(self.weights.values())) != ONE:
            terms = ", ".join(f"{name}: {_plain(weight)}" for name, weight in self.weights.items())
            raise GuidanceError(
                f"the weights sum to {_plain(found)}, not to 1 ({terms or 'no prediction'}): "
                "add differences to one prediction, as in u + 7.5*(p - n)"
            )
        self.__post_init__()

    @property
    def weights(self) -> Mapping[str, Weight]:
        r"""The weights that are not zero: empty, negative, prompt, then the alphabet."""
        return MappingProxyType(self._weights)

    @property
    def formula(self) -> Formula:
        return self

    def arguments(self) -> Mapping[str, Argument]:
        return self.weights

    def written(self, names: Mapping[Atom, str]) -> str:
        return combination(self.weights, names)


class Direction:
    r"""A difference of predictions, to be scaled and added to one.

    Args:
        weights: The weight of each condition.

    Raises:
        GuidanceError: Where the weights do not sum to zero.
    """

    __slots__ = ("_weights",)
    __array_ufunc__ = None

    def __init__(self, weights: Mapping[str, Scale]) -> None:
        self._weights = _canonical(weights)
        if found := total(self.weights.values()):
            raise GuidanceError(f"the weights of a direction sum to zero, not to {_plain(found)}")

    @property
    def weights(self) -> Mapping[str, Weight]:
        r"""The weights that are not zero: empty, negative, prompt, then the alphabet."""
        return MappingProxyType(self._weights)

    @overload
    def __add__(self, other: Direction) -> Direction: ...
    @overload
    def __add__(self, other: Linear) -> Formula: ...
    @overload
    def __add__(self, other: Guidance) -> Guidance: ...
    def __add__(self, other: Direction | Guidance) -> Direction | Guidance:
        if isinstance(other, Guidance):
            return other + self
        if isinstance(other, Direction):
            return Direction(_sum([*self.weights.items(), *other.weights.items()]))
        refuse(f"{other!r} cannot be added to a direction")

    def __sub__(self, other: Direction) -> Direction:
        if isinstance(other, Guidance):
            refuse("a prediction cannot be subtracted from a direction: write it first, as in u - (p - n)")
        return self + -other

    def __neg__(self) -> Direction:
        return self * -1

    def __mul__(self, scale: Scale) -> Direction:
        if isinstance(scale, (Guidance, Direction)):
            refuse("differences cannot be multiplied: a scale is a number, a tensor or a function of sigma")
        factor = as_weight(scale)
        return Direction({name: weight * factor for name, weight in self.weights.items()})

    __rmul__ = __mul__

    def __truediv__(self, divisor: Scale) -> Direction:
        value = as_weight(divisor).constant
        if not value:
            refuse(f"a direction can be divided by a number other than zero, not by {divisor!r}")
        return self * (1 / value)

    def latex(self) -> str:
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


def _canonical(weights: Mapping[str, Scale]) -> dict[str, Weight]:
    found = _sum((condition_name(name), as_weight(scale)) for name, scale in weights.items())
    return {name: found[name] for name in sorted(found, key=order) if found[name]}


def _sum(items: Iterable[tuple[str, Weight]]) -> dict[str, Weight]:
    weights: dict[str, Weight] = {}
    for name, weight in items:
        weights[name] = weights[name] + weight if name in weights else weight
    return weights


def weighted_sum(weights: Mapping[str, Weight], evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
    r"""The sum of weighted predictions. Same conditions share one weight; zero weights are not asked."""
    merged = _sum((evaluate.same(name), weight) for name, weight in weights.items())
    factors = {name: value for name, value in values(merged, x, sigma).items() if not vanishes(value)}
    predictions = evaluate(factors, x, sigma)
    terms = [predictions[name] * value for name, value in factors.items()]
    return sum(terms[1:], start=terms[0]) if terms else torch.zeros_like(x)


def _plain(weight: Weight) -> str:
    value = weight.constant
    return repr(weight) if value is None else "-" * (value < 0) + number(abs(value))
