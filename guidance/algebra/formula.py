r"""Guidances, and the algebra that builds them: predictions are points, their differences are directions.

Weights of a point sum to one, those of a direction to zero. A point plus a scaled direction is a point. The sum of two
predictions is neither: it would predict twice the noise. Because weights sum to one, a formula is the same in
:math:`\epsilon`, in the denoised :math:`D = x - \sigma \epsilon` and in :math:`v`.

The operators of :class:`Guidance` build its subclasses, so these stand here together.
"""

from __future__ import annotations

import dataclasses
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn, overload

import torch
from torch import Tensor

from ..denoiser.batch import Execution
from ..denoiser.cost import cost
from ..denoiser.evaluator import Evaluator
from ..denoiser.guided import GuidedDenoiser, Trace
from ..errors import GuidanceError
from .direction import Direction, Weights, weighted_sum
from .expression import Argument, Expression
from .notation import combination, condition_name, labels, order, plain, substitution
from .weights import ONE, Atom, Scale, as_tensor, as_weight, total

_NOT_ADDED = "predictions cannot be added, weights must sum to one: add a difference, as in u + 7.5*(p - n)"
_NOT_SCALED = "a prediction cannot be scaled, weights must sum to one: scale a difference, as in u + 7.5*(p - n)"


class Guidance(Expression, ABC):
    r"""What to ask of a denoiser at one :math:`(x, \sigma)`, and how to combine the answers.

    A strategy is a frozen dataclass with :attr:`names` and :meth:`denoised`; its name and fields, which are scales and
    guidances, give it `repr`, text, JSON and equality. If it is no weighted sum, only a direction can be added to it.
    """

    # numpy's numbers must leave the multiplication to us instead of looping over us.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        for field in fields:
            if (value := _settled(getattr(self, field.name), "Scale" in str(field.type))) is not None:
                vars(self)[field.name] = value
        # What could never run fails where it is made: a wrong scale, a modifier of no guidance, sizes that do not fit.
        self.names  # noqa: B018
        self.shape  # noqa: B018

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        r"""The conditions it needs."""

    @abstractmethod
    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        r"""The guided prediction of :math:`x_0`.

        Args:
            evaluate: Evaluates the denoiser; what is not asked for is not paid.
            x: The noisy samples :math:`(B, ...)`.
            sigma: The noise levels :math:`(B)`.

        Returns:
            The denoised samples :math:`(B, ...)`. Samples must not influence each other.
        """

    @property
    def shape(self) -> tuple[int, ...]:
        r"""The shape :math:`(B, C, H, W)` that its tensors are for, 1 where any will do.

        Raises:
            GuidanceError: If they are for samples of different shapes.
        """
        tensors = [a.value for scale in self.scales() for a in scale.atoms if isinstance(a.value, Tensor)]
        ndim = max([4, *(value.ndim for value in tensors)])
        shapes = [(*value.shape, *[1] * (ndim - 1))[:ndim] if value.ndim < 2 else value.shape for value in tensors]
        if len(batches := {shape[0] for shape in shapes if shape} - {1}) > 1:
            refuse(f"the per-sample scales are for batches of {' and '.join(map(str, sorted(batches)))}")
        try:
            return torch.broadcast_shapes((1,) * ndim, *shapes)
        except RuntimeError:
            refuse(f"the scales are for samples of different shapes: {', '.join(str(tuple(s)) for s in shapes)}")

    def rename(self, **names: str) -> Guidance:
        r"""The same guidance of other conditions, all names substituted at once.

        Raises:
            GuidanceError: If a name to be replaced does not occur, and is not prompt, negative or empty.
        """
        renamed = Renamed(self, names)
        return renamed if renamed.new else self

    def wrap(
        self,
        denoiser: Callable[..., Tensor],
        execution: Execution = "batched",
        trace: Trace | None = None,
        any_sigma: bool = False,
    ) -> GuidedDenoiser:
        r"""The guided denoiser, for any k-diffusion sampler: see :class:`GuidedDenoiser`."""
        return GuidedDenoiser(denoiser, self, execution, trace, any_sigma)

    def cost(self, sigmas: Tensor | Sequence[float], **conditions: Mapping[str, Any]) -> int:
        r"""How many predictions per sample a run over `sigmas` evaluates, with one denoiser call at each.

        Found by running the guidance itself with an evaluator that only counts. The zero that ends a schedule is not
        counted, since no denoiser is called there. Samplers that call twice a step (Heun, DPM-2) pay more.

        Args:
            sigmas: The noise levels :math:`(N)`.
            conditions: If given, those that are the same are counted once, as they are when sampling.
        """
        return cost(self, sigmas, self.shape, conditions)

    def __add__(self, other: Any) -> Guidance:
        added = Added(self, other)
        return added if added.direction.weights else self

    def __sub__(self, other: Any) -> Any:
        return self + (-other if isinstance(other, Direction) else other)

    def __radd__(self, other: Any) -> Guidance:
        return self.__add__(other)

    def __rsub__(self, other: Any) -> NoReturn:
        refuse(f"a guidance cannot be subtracted from {other!r}: only predictions and directions can")

    def __mul__(self, other: Any) -> NoReturn:
        refuse(_NOT_SCALED)

    def __neg__(self) -> NoReturn:
        refuse(_NOT_SCALED)

    __rmul__ = __truediv__ = __mul__


class Linear(Guidance):
    r"""A guidance that is a weighted sum of predictions.

    .. math:: \hat\epsilon = \sum_c w_c \, \epsilon_\theta(z_t, c), \qquad \sum_c w_c = 1
    """

    @property
    @abstractmethod
    def formula(self) -> Formula:
        r"""The weighted sum."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.formula.weights)

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        return weighted_sum(self.formula.weights, evaluate, x, sigma)

    def rename(self, **names: str) -> Formula:
        new = substitution(names, self.names, self)
        return Formula(Weights((new.get(name, name), weight) for name, weight in self.formula.weights.items()))

    def latex(self) -> str:
        return combination(self.formula.weights, labels(self.scales()), latex=True)

    def __str__(self) -> str:
        return combination(self.formula.weights, labels(self.scales()))

    def key(self, values: bool = True) -> Hashable:
        return self.formula.weights.key(values)

    def __add__(self, other: Direction) -> Formula:
        if isinstance(other, Direction):
            return Formula(Weights([*self.formula.weights.items(), *other.weights.items()]))
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
            return Direction(Weights([*self.formula.weights.items(), *minus]))
        refuse(f"{other!r} cannot be subtracted from a prediction, a prediction or a direction can")


class Formula(Linear):
    r"""A point: a weighted sum of predictions in its canonical form, without zeros, in one order.

    Args:
        weights: The weight of each condition.

    Raises:
        GuidanceError: If the weights do not sum to one.
    """

    def __init__(self, weights: Mapping[str, Scale]) -> None:
        self.weights = Weights.of(weights)
        if (found := total(self.weights.values())) != ONE:
            terms = ", ".join(f"{name}: {plain(weight)}" for name, weight in self.weights.items())
            raise GuidanceError(
                f"the weights sum to {plain(found)}, not to 1 ({terms or 'no prediction'}): "
                "add differences to one prediction, as in u + 7.5*(p - n)"
            )
        self.__post_init__()

    @property
    def formula(self) -> Formula:
        return self

    def arguments(self) -> Mapping[str, Argument]:
        return self.weights

    def written(self, names: Mapping[Atom, str]) -> str:
        return combination(self.weights, names)


def prediction(name: str) -> Formula:
    r"""The prediction :math:`\epsilon_\theta(z_t, c)` under the condition called `name`.

    Raises:
        GuidanceError: If the name could not be a keyword argument.
    """
    return Formula({condition_name(name): ONE})


class Added(Guidance):
    r"""A guidance and a direction, as in ``Rescale(CFG(7.5), 0.7) + 2 * (p - n)``.

    Args:
        guidance: Any guidance; if it is a formula, the sum is one too and this class is not needed.
        direction: What is added to its prediction, the same in :math:`\epsilon`, :math:`D` and :math:`v`.

    Raises:
        GuidanceError: If the first is no guidance, or the second no direction.
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


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Renamed(Guidance):
    r"""A guidance whose conditions have other names, as in ``Renamed(APG(7.5), prompt=prediction("style"))``.

    It is what :meth:`Guidance.rename` makes of a guidance that is no weighted sum.

    Args:
        guidance: Any guidance.
        new: The names of the conditions by the names that they replace, all at once.
        names: The same by keyword, as predictions or names.

    Raises:
        GuidanceError: If a name to be replaced does not occur, and is not prompt, negative or empty.
    """

    guidance: Guidance
    new: Mapping[str, str]

    def __init__(
        self, guidance: Guidance, new: Mapping[str, str] | str | Linear | None = None, **names: str | Linear
    ) -> None:
        known = wrapped(guidance, "Renamed")
        names |= new if isinstance(new, Mapping) else {"new": new} if new is not None else {}
        plain = {old: name.names[0] if isinstance(name, Linear) else name for old, name in names.items()}
        new = {old: name for old, name in substitution(plain, known, guidance).items() if old in known and old != name}
        vars(self).update(guidance=guidance, new=new)
        self.__post_init__()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted({self.new.get(name, name) for name in self.guidance.names}, key=order))

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        return self.guidance.denoised(_Renaming(evaluate, self.guidance.names, self.new), x, sigma)

    def rename(self, **names: str) -> Guidance:
        new = substitution(names, self.names, self)
        now = {name: self.new.get(name, name) for name in self.guidance.names}
        return self.guidance.rename(**{name: new.get(now[name], now[name]) for name in now})

    def arguments(self) -> Mapping[str, Argument]:
        return {"": self.guidance} | {old: prediction(name) for old, name in self.new.items()}


class _Renaming:
    r"""An evaluator that is asked by the old names."""

    def __init__(self, evaluate: Evaluator, names: tuple[str, ...], new: Mapping[str, str]) -> None:
        self.evaluate = evaluate
        self.names = names
        self.new = new
        self.memory = evaluate.memory.part(frozenset(new.items()))

    def same(self, name: str) -> str:
        same = {self.evaluate.same(self.new.get(other, other)): other for other in reversed(self.names)}
        return same[self.evaluate.same(self.new.get(name, name))]

    def __call__(self, names: Iterable[str], x: Tensor, sigma: Tensor) -> Mapping[str, Tensor]:
        asked = {name: self.new.get(name, name) for name in names}
        found = self.evaluate(asked.values(), x, sigma)
        return {name: found[new] for name, new in asked.items()}


def _settled(value: Any, scale: bool) -> Any:
    r"""An argument as it is kept: lists and arrays as tensors, numbers as Python's; None if it is that already."""
    if isinstance(value, Tensor):
        return None if scale or value.ndim else value.item()
    if isinstance(value, (int, float, Fraction)):
        return None
    if isinstance(value, numbers.Real):
        return as_weight(value).constant  # type: ignore[arg-type]
    if scale and (isinstance(value, (list, tuple)) or hasattr(value, "__array__")):
        value = as_tensor(value)
        return value if value.ndim else as_weight(value.item()).constant
    if scale and value is not None:
        as_weight(value)  # a function, or an error
    return None


def wrapped(guidance: Any, name: str, *others: str) -> tuple[str, ...]:
    r"""The conditions of the guidance inside a modifier called `name`, and `others`.

    Raises:
        GuidanceError: If it is no guidance.
    """
    if not isinstance(guidance, Guidance):
        refuse(f"{name} wraps a guidance, as in {name}(CFG(7.5), ...), not {guidance!r}")
    return tuple(sorted({*guidance.names, *others}, key=order))


def refuse(why: str) -> NoReturn:
    raise GuidanceError(why)


def _joined(guidance: str, direction: str, minus: str) -> str:
    if direction.startswith(minus):
        return f"{guidance} {minus} {direction.removeprefix(minus)}"
    return f"{guidance} + {direction}"
