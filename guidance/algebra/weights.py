r"""Weights: exact polynomials in the scales whose values are only known at run time."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import GuidanceError
from ..host import on_host, peek

_KINDS = "a number, a list, an array or tensor of shape (B,), (1,) or (B, C, H, W), or a function of sigma"


class Schedule(ABC):
    r"""A function of :math:`\sigma` that is written by its name and numbers, and compared by them."""

    @abstractmethod
    def __call__(self, sigma: Tensor) -> Tensor:
        r"""The scale at the noise levels `sigma`, of the same shape."""


class Array(Protocol):
    r"""An array of numpy, or of anything that becomes one."""

    def __array__(self) -> Any: ...


class Atom:
    r"""A scale that is not a number: a tensor or a function of :math:`\sigma`.

    It is the same as another of the same tensor, function or schedule. Two tensors of equal values are two scales, of
    which one may change.
    """

    __slots__ = ("name", "value")

    def __init__(self, value: Tensor | Callable[[Tensor], Any], name: str | None = None) -> None:
        self.value = value
        self.name = str(name or getattr(value, "__name__", "s"))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Atom):
            return False
        return self.value is other.value or (isinstance(self.value, Schedule) and self.value == other.value)

    def __hash__(self) -> int:
        return hash(self.value) if isinstance(self.value, Schedule) else id(self.value)

    def key(self, values: bool) -> Hashable:
        r"""What is equal for a copy: a tensor's shape, and with `values` its values; a function or schedule itself."""
        if not isinstance(self.value, Tensor):
            return self.value
        return tuple(self.value.shape), tuple(self.value.flatten().tolist()) if values else None

    def at(self, x: Tensor, sigma: Tensor) -> float | Tensor:
        r"""The scale's value.

        Args:
            x: The noisy samples :math:`(B, ...)`.
            sigma: The noise levels :math:`(B)`.

        Returns:
            A number, or a tensor that broadcasts to `x`; a schedule's is on the host if `sigma` is known there.

        Raises:
            GuidanceError: If the value is not finite, not a number, or does not fit `x`.
        """
        if isinstance(self.value, Tensor):
            value = self.value
        else:
            value = self.value(on_host(sigma) if isinstance(self.value, Schedule) else sigma)
            if isinstance(value, (list, tuple)):
                value = as_tensor(value)
            if not isinstance(value, Tensor):
                return float(as_weight(value, self.name))
        shape = (*value.shape, *[1] * (x.ndim - 1)) if value.ndim == 1 else tuple(value.shape)
        fits = len(shape) in (0, x.ndim) and all(a in (1, b) for a, b in zip(shape, x.shape, strict=bool(shape)))
        if not fits:
            raise GuidanceError(
                f"the scale {self.name} has the shape {tuple(value.shape)}, but the batch has {len(x)} samples: "
                f"make it a number, of shape ({len(x)},) or one that broadcasts to {tuple(x.shape)}"
            )
        if value.is_cpu and peek(value.isfinite().all()) is False:
            raise GuidanceError(f"the scale {self.name} is not finite at sigma {sigma.tolist()}: {value.tolist()}")
        return value.to(torch.promote_types(x.dtype, torch.float32)).view(shape)


class Weight:
    r"""The weight of one prediction, a polynomial with rational coefficients in run-time scales.

    .. math:: w = \sum_m c_m \prod_{a \in m} a

    Numbers enter by their shortest decimal (0.1 is 1/10), so that sums are exact and equal formulas compare
    equal.

    Args:
        terms: The coefficient :math:`c_m` of each monomial :math:`m`, a set of atoms with their powers.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[frozenset[tuple[Atom, int]], Fraction]) -> None:
        self.terms = {monomial: c for monomial, c in terms.items() if c}

    @property
    def products(self) -> list[tuple[Fraction, list[Atom]]]:
        r"""Each coefficient with its atoms, one of power 2 twice."""
        return [(c, [atom for atom, power in m for _ in range(power)]) for m, c in self.terms.items()]

    @property
    def atoms(self) -> set[Atom]:
        return {atom for monomial in self.terms for atom, _ in monomial}

    @property
    def constant(self) -> Fraction | None:
        r"""The weight as a number, None if it depends on a run-time scale."""
        return None if any(self.terms) else self.terms.get(frozenset(), Fraction(0))

    def key(self, values: bool) -> Hashable:
        r"""What is equal for a copy: the polynomial of its atoms' keys."""
        found: Counter[Hashable] = Counter()
        for c, atoms in self.products:
            found[frozenset(Counter(atom.key(values) for atom in atoms).items())] += c  # type: ignore[assignment]
        return frozenset(item for item in found.items() if item[1])

    def __add__(self, other: Weight) -> Weight:
        keys = self.terms | other.terms
        return Weight({m: self.terms.get(m, Fraction(0)) + other.terms.get(m, Fraction(0)) for m in keys})

    def __neg__(self) -> Weight:
        return Weight({m: -c for m, c in self.terms.items()})

    def __sub__(self, other: Weight) -> Weight:
        return self + -other

    def __mul__(self, other: Weight) -> Weight:
        product: dict[frozenset[tuple[Atom, int]], Fraction] = {}
        for m, c in self.terms.items():
            for n, d in other.terms.items():
                monomial = frozenset((Counter(dict(m)) + Counter(dict(n))).items())
                product[monomial] = product.get(monomial, Fraction(0)) + c * d
        return Weight(product)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weight) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __float__(self) -> float:
        if self.constant is None:
            raise GuidanceError(f"the weight {self!r} depends on the sample or on sigma, it is no number")
        return as_float(self.constant)

    def __repr__(self) -> str:
        return " + ".join(" ".join([str(c), *(atom.name for atom in atoms)]) for c, atoms in self.products) or "0"


Scale = int | float | Fraction | Tensor | Sequence[float] | Array | Callable[[Tensor], Any] | Weight
r"""A number; a list, array or tensor :math:`(B)`, :math:`(1)` or of four dimensions that broadcasts to `x`; or a
function of :math:`\sigma` :math:`(B)` that gives one of these. A tensor stays live: what it holds at a step is what
counts there, it gets gradients, and its predictions are evaluated even if it is zero."""

ZERO, ONE = Weight({}), Weight({frozenset(): Fraction(1)})


def total(weights: Iterable[Weight]) -> Weight:
    r"""The sum of `weights`."""
    return sum(weights, start=ZERO)


def as_number(value: Scale, what: str, low: float | None = None, high: float | None = None) -> float:
    r"""A number that is the same for all samples and noise levels, within bounds.

    Raises:
        GuidanceError: If it is not; `what` says what it should have been.
    """
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    number = as_weight(value).constant
    if number is None or (low is not None and number < low) or (high is not None and number > high):
        bounds = {(False, True): f" of {low} or more", (False, False): f" from {low} to {high}"}
        raise GuidanceError(f"{what} is one number{bounds.get((low is None, high is None), '')}, not {value!r}")
    return float(number)


def as_tensor(scale: Any) -> Tensor:
    r"""A list or array of numbers as a tensor.

    Raises:
        GuidanceError: If it holds anything else.
    """
    try:
        return torch.as_tensor(scale, dtype=torch.float64 if isinstance(scale, (list, tuple)) else None)
    except (TypeError, ValueError, RuntimeError):
        raise GuidanceError(f"a scale is {_KINDS}, not {scale!r}") from None


def as_weight(scale: Scale, name: str | None = None) -> Weight:
    r"""The scale as a weight; `name` is what a tensor or function is called in print.

    Raises:
        GuidanceError: If it is no scale: a bool, a text, NaN, infinite, a tensor of another shape.
    """
    if isinstance(scale, Weight):
        return scale
    if isinstance(scale, numbers.Real) and not isinstance(scale, bool):
        if isinstance(scale, numbers.Rational):
            return Weight({frozenset(): Fraction(int(scale.numerator), int(scale.denominator))})
        if not math.isfinite(scale):
            raise GuidanceError(f"a scale must be finite, not {scale}")
        return Weight({frozenset(): Fraction(str(scale))})
    if isinstance(scale, (list, tuple)) or (hasattr(scale, "__array__") and not isinstance(scale, Tensor)):
        scale = as_tensor(scale)
    if isinstance(scale, Tensor):
        if scale.ndim in (2, 3) or not scale.numel() or scale.dtype == torch.bool or scale.is_complex():
            kind = f"{scale.dtype} of shape {tuple(scale.shape)}"
            raise GuidanceError(f"a scale tensor holds real numbers, of shape (B,), (1,) or (B, C, H, W), not {kind}")
        if scale.is_cpu and peek(scale.isfinite().all()) is False:
            raise GuidanceError(f"a scale must be finite, not {scale.tolist()}")
    elif not callable(scale):
        raise GuidanceError(f"a scale is {_KINDS}, not {scale!r}")
    return Weight({frozenset({(Atom(scale, name), 1)}): Fraction(1)})


def as_float(number: Fraction) -> float:
    try:
        return float(number)
    except OverflowError:
        raise GuidanceError("a weight is larger than a float can hold: use smaller scales") from None
