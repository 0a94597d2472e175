r"""The algebra: predictions are points, their differences are directions.

Weights of a point sum to one, those of a direction to zero. A point plus a scaled direction is a point. The
sum of two predictions is none: it would predict twice the noise. Because weights sum to one, a formula is the
same in :math:`\epsilon`, in the denoised :math:`D = x - \sigma \epsilon` and in :math:`v`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, overload

import torch
from torch import Tensor

from .base import Evaluator, Guidance
from .errors import GuidanceError
from .notation import SHORT, combination, condition_name, labels, number, order
from .weights import ONE, ZERO, Scale, Weight, as_weight, total

_NOT_SCALED = "a prediction cannot be scaled, weights must sum to one: scale a difference, as in u + 7.5*(p - n)"
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

    # numpy's numbers must leave the multiplication to us instead of looping over us.
    __array_ufunc__ = None

    @property
    @abstractmethod
    def formula(self) -> Formula:
        r"""The weighted sum."""

    def __post_init__(self) -> None:
        self.formula  # noqa: B018  a strategy with a wrong scale fails where it is made

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.formula.weights)

    @property
    def samples(self) -> int:
        atoms = (atom.value for weight in self.formula.weights.values() for atom in weight.atoms)
        return max((len(value) for value in atoms if isinstance(value, Tensor)), default=1)

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        r"""See :meth:`Guidance.denoised`. Same conditions share one weight; zero weights are not asked."""
        merged: dict[str, Weight] = {}
        for name, weight in self.formula.weights.items():
            name = evaluate.same(name)
            merged[name] = merged.get(name, ZERO) + weight
        dtype = torch.promote_types(x.dtype, torch.float32)
        atoms = {atom for weight in merged.values() for atom in weight.atoms}
        scales = {atom: atom.at(sigma, dtype) for atom in atoms}
        values = {name: weight.at(scales) for name, weight in merged.items()}
        values = {name: w for name, w in values.items() if (bool(w.any()) if isinstance(w, Tensor) else w)}
        predictions = evaluate(values, x, sigma)
        terms = [predictions[name] * _per_sample(value, x) for name, value in values.items()]
        return sum(terms[1:], start=terms[0])

    def rename(self, **names: str) -> Formula:
        weights = self.formula.weights
        new = {condition_name(old): condition_name(name) for old, name in names.items()}
        for old in new:
            # The weights of prompt, negative and empty vanish at some scales, which is no mistake.
            if old not in weights and old not in SHORT.values():
                raise GuidanceError(f"there is no {old!r} to rename in {self}: it has {', '.join(weights)}")
        return Formula(_sum((new.get(name, name), weight) for name, weight in weights.items()))

    def latex(self) -> str:
        return combination(self.formula.weights, latex=True)

    def __str__(self) -> str:
        return combination(self.formula.weights)

    def __eq__(self, other: object) -> bool:
        return self.formula.weights == other.formula.weights if isinstance(other, Linear) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self.formula.weights.items()))

    def __add__(self, other: Direction) -> Formula:
        if isinstance(other, Direction):
            return Formula(_sum([*self.formula.weights.items(), *other.weights.items()]))
        if isinstance(other, Linear):
            _refuse(_NOT_ADDED)
        _refuse(f"{other!r} cannot be added to a prediction, a direction can, as in u + 7.5*(p - n)")

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
        _refuse(f"{other!r} cannot be subtracted from a prediction, a prediction or a direction can")

    def __radd__(self, other: Any) -> Formula:
        return self.__add__(other)

    def __rsub__(self, other: Any) -> NoReturn:
        _refuse(f"a prediction cannot be subtracted from {other!r}, only from a prediction")

    def __mul__(self, other: Any) -> NoReturn:
        _refuse(_NOT_SCALED)

    def __neg__(self) -> NoReturn:
        _refuse(_NOT_SCALED)

    __rmul__ = __truediv__ = __mul__


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

    @property
    def weights(self) -> Mapping[str, Weight]:
        r"""The weights that are not zero: empty, negative, prompt, then the alphabet."""
        return MappingProxyType(self._weights)

    @property
    def formula(self) -> Formula:
        return self

    def source(self) -> tuple[str, dict[str, Any]]:
        names = labels(self.weights.values())
        return str(self), {label: atom.value for atom, label in names.items()}

    def __repr__(self) -> str:
        text, values = self.source()
        return f"parse({', '.join([repr(text), *(f'{name}={value!r}' for name, value in values.items())])})"


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
    def __add__(self, other: Direction | Linear) -> Direction | Formula:
        if isinstance(other, Linear):
            return other + self
        if isinstance(other, Direction):
            return Direction(_sum([*self.weights.items(), *other.weights.items()]))
        _refuse(f"{other!r} cannot be added to a direction")

    def __sub__(self, other: Direction) -> Direction:
        if isinstance(other, Linear):
            _refuse("a prediction cannot be subtracted from a direction: write it first, as in u - (p - n)")
        return self + -other

    def __neg__(self) -> Direction:
        return self * -1

    def __mul__(self, scale: Scale) -> Direction:
        if isinstance(scale, (Linear, Direction)):
            _refuse("differences cannot be multiplied: a scale is a number, a tensor or a function of sigma")
        factor = as_weight(scale)
        return Direction({name: weight * factor for name, weight in self.weights.items()})

    __rmul__ = __mul__

    def __truediv__(self, divisor: Scale) -> Direction:
        value = as_weight(divisor).constant
        if not value:
            _refuse(f"a direction can be divided by a number other than zero, not by {divisor!r}")
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
        weights[name] = weights.get(name, ZERO) + weight
    return weights


def _per_sample(value: float | Tensor, x: Tensor) -> float | Tensor:
    r"""A weight :math:`(B)` in the shape :math:`(B, 1, ...)` that multiplies `x`."""
    return value.view(-1, *[1] * (x.ndim - 1)) if isinstance(value, Tensor) and value.ndim else value


def _plain(weight: Weight) -> str:
    value = weight.constant
    return repr(weight) if value is None else "-" * (value < 0) + number(abs(value))


def _refuse(why: str) -> NoReturn:
    raise GuidanceError(why)
