r"""Weights: exact polynomials in the scales that are only known at run time."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import GuidanceError
from ..samplewise import per_sample

# Below this, a weight computed at run time (1 - s for a float32 s) counts as zero and saves its evaluation.
NEGLIGIBLE = 1e-6


Key = TypeVar("Key")


class Schedule(ABC):
    r"""A function of :math:`\sigma` that is written by its name and numbers, and compared by them."""

    @abstractmethod
    def __call__(self, sigma: Tensor) -> Tensor:
        r"""The scale at the noise levels `sigma`, of the same shape."""


class Atom:
    r"""A scale that is not a number: a tensor :math:`(B)` or a function of :math:`\sigma`."""

    # Equal only to itself: what a function computes, or a tensor will hold, cannot be compared; a schedule can.
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

    def at(self, sigma: Tensor, dtype: torch.dtype) -> float | Tensor:
        r"""The scale's value at the noise levels `sigma` :math:`(B)`: a number, or a tensor :math:`(B)`.

        Raises:
            GuidanceError: Where the value is not finite, not a number, or not one number per sample.
        """
        value = self.value if isinstance(self.value, Tensor) else self.value(sigma)
        if not isinstance(value, Tensor):
            return float(as_weight(value, self.name))
        if value.ndim and value.shape != sigma.shape:
            raise GuidanceError(
                f"the scale {self.name} has the shape {tuple(value.shape)}, "
                f"but the batch has {len(sigma)} samples: make it a number or of shape ({len(sigma)},)"
            )
        if not value.isfinite().all():
            levels = f"at sigma {sigma.tolist()}"
            raise GuidanceError(f"the scale {self.name} is not finite {levels}: {value.tolist()}")
        return value.to(sigma.device, dtype)


class Weight:
    r"""The weight of one prediction, a polynomial with rational coefficients in run-time scales.

    .. math:: w = \sum_m c_m \prod_{a \in m} a

    Numbers enter by their shortest decimal (0.1 is 1/10), so that sums are exact and equal formulas compare
    equal.

    Args:
        terms: The coefficient :math:`c_m` of each monomial :math:`m`, a tuple of atoms sorted by identity.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[tuple[Atom, ...], Fraction]) -> None:
        self.terms = {monomial: c for monomial, c in terms.items() if c}

    @property
    def atoms(self) -> set[Atom]:
        return {atom for monomial in self.terms for atom in monomial}

    @property
    def constant(self) -> Fraction | None:
        r"""The weight as a number, None where it depends on a run-time scale."""
        return None if self.atoms else self.terms.get((), Fraction(0))

    def __add__(self, other: Weight) -> Weight:
        keys = self.terms | other.terms
        return Weight({m: self.terms.get(m, Fraction(0)) + other.terms.get(m, Fraction(0)) for m in keys})

    def __neg__(self) -> Weight:
        return Weight({m: -c for m, c in self.terms.items()})

    def __sub__(self, other: Weight) -> Weight:
        return self + -other

    def __mul__(self, other: Weight) -> Weight:
        product: dict[tuple[Atom, ...], Fraction] = {}
        for m, c in self.terms.items():
            for n, d in other.terms.items():
                monomial = tuple(sorted(m + n, key=hash))
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
        try:
            return float(self.constant)
        except OverflowError:
            raise GuidanceError("a weight is larger than a float can hold: use smaller scales") from None

    def __repr__(self) -> str:
        terms = (" ".join([str(c), *(atom.name for atom in m)]) for m, c in self.terms.items())
        return " + ".join(terms) or "0"

    def at(self, values: Mapping[Atom, float | Tensor]) -> float | Tensor:
        r"""The weight where its atoms have the given `values`: a number, or a tensor :math:`(B)`."""
        if not self.atoms:
            return float(self)
        result: float | Tensor = 0.0
        for monomial, coefficient in self.terms.items():
            term: float | Tensor = float(coefficient)
            for atom in monomial:
                term = term * values[atom]
            result = result + term
        if isinstance(result, Tensor):
            # Per sample, so that a sample's result does not depend on its neighbours' scales.
            return result.where(result.abs() > NEGLIGIBLE, 0.0)
        return result if abs(result) > NEGLIGIBLE else 0.0


Scale = int | float | Fraction | Tensor | Callable[[Tensor], Any] | Weight
r"""A number, one per sample :math:`(B)`, or a function of :math:`\sigma` :math:`(B)` that gives either."""

ZERO, ONE = Weight({}), Weight({(): Fraction(1)})


def total(weights: Iterable[Weight]) -> Weight:
    r"""The sum of `weights`."""
    return sum(weights, start=ZERO)


def values(weights: Mapping[Key, Weight], x: Tensor, sigma: Tensor) -> dict[Key, float | Tensor]:
    r"""Each weight at the noise levels `sigma` :math:`(B)`: a number, or :math:`(B, 1, ...)` to multiply `x`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    atoms = {atom for weight in weights.values() for atom in weight.atoms}
    scales = {atom: atom.at(sigma, dtype) for atom in atoms}
    found = {key: weight.at(scales) for key, weight in weights.items()}
    return {key: per_sample(v, x) if isinstance(v, Tensor) and v.ndim else v for key, v in found.items()}


def at(scale: Scale, x: Tensor, sigma: Tensor) -> float | Tensor:
    r"""One scale, as :func:`values` gives it."""
    return values({"": as_weight(scale)}, x, sigma)[""]


def vanishes(value: float | Tensor) -> bool:
    r"""Whether a weight is zero for all samples, so that what it multiplies need not be evaluated."""
    return not (value.any() if isinstance(value, Tensor) else value)


def as_number(value: Scale, what: str, low: float | None = None, high: float | None = None) -> float:
    r"""A number that is the same for all samples and noise levels, within bounds.

    Raises:
        GuidanceError: Where it is none; `what` says what it should have been.
    """
    number = as_weight(value).constant
    if number is None or (low is not None and number < low) or (high is not None and number > high):
        bounds = {(False, True): f" of {low} or more", (False, False): f" from {low} to {high}"}
        raise GuidanceError(f"{what} is one number{bounds.get((low is None, high is None), '')}, not {value!r}")
    return float(number)


def as_weight(scale: Scale, name: str | None = None) -> Weight:
    r"""The scale as a weight; `name` is what a tensor or function is called in print.

    Raises:
        GuidanceError: Where it is no scale: a bool, a text, NaN, infinite, a tensor that is not :math:`(B)`.
    """
    if isinstance(scale, Weight):
        return scale
    if isinstance(scale, Tensor) and scale.ndim == 0:
        scale = scale.item()
    if isinstance(scale, Tensor):
        if scale.ndim != 1 or scale.dtype == torch.bool or scale.is_complex():
            kind = f"{scale.dtype} of shape {tuple(scale.shape)}"
            raise GuidanceError(f"a scale tensor holds one real number per sample, shape (B,), not {kind}")
        if not scale.isfinite().all():
            raise GuidanceError(f"a scale must be finite, not {scale.tolist()}")
        return Weight({(Atom(scale, name),): Fraction(1)})
    if isinstance(scale, numbers.Real) and not isinstance(scale, bool):
        if isinstance(scale, numbers.Rational):
            return Weight({(): Fraction(int(scale.numerator), int(scale.denominator))})
        if not math.isfinite(scale):
            raise GuidanceError(f"a scale must be finite, not {scale}")
        return Weight({(): Fraction(str(scale))})
    if callable(scale):
        return Weight({(Atom(scale, name),): Fraction(1)})
    raise GuidanceError(f"a scale is a number, a tensor of shape (B,) or a function of sigma, not {scale!r}")
