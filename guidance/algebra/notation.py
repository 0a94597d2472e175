r"""How formulas are written, in plain text and in LaTeX: one way for each formula."""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction

from ..errors import GuidanceError
from ..names import SHORT, USUAL, did_you_mean
from .weights import ONE, Atom, Schedule, Weight, total

EPSILON = frozenset({"ε", "eps", "epsilon"})
_LATEX = {"prompt": "p", "negative": "n", "empty": r"\varnothing"}


def condition_name(name: str) -> str:
    r"""The full name of a condition (p, n, u are short for prompt, negative, empty).

    Raises:
        GuidanceError: If it could not be a keyword argument.
    """
    valid = isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)
    if not valid or unicodedata.normalize("NFKC", name) != name:
        raise GuidanceError(f"{name!r} cannot name a condition: use a Python identifier, such as 'background'")
    return SHORT.get(name, name)


def substitution(names: Mapping[str, str], known: Iterable[str], where: object) -> dict[str, str]:
    r"""Full names of conditions by the full names that they replace.

    Raises:
        GuidanceError: If a name to be replaced is not `known`, and is not prompt, negative or empty.
    """
    new = {condition_name(old): condition_name(name) for old, name in names.items()}
    for old in new:
        # The weights of prompt, negative and empty vanish at some scales, which is no mistake.
        if old not in {*known, *USUAL}:
            names_ = ", ".join(known)
            raise GuidanceError(f"there is no {old!r} to rename in {where}: it has {names_}{did_you_mean(old, known)}")
    return new


def order(name: str) -> tuple[int, str]:
    r"""The sort key of conditions: empty, negative, prompt, then the alphabet."""
    return (USUAL.index(name) if name in USUAL else len(USUAL), name)


def labels(weights: Iterable[Weight]) -> dict[Atom, str]:
    r"""A distinct identifier for each run-time scale in `weights`; a schedule is called what it is."""
    found: dict[Atom, str] = {}
    reserved = {*EPSILON, *SHORT, *SHORT.values()}
    # By where they first occur: the same text for the same guidance, whenever it is written.
    atoms = (atom for weight in weights for atom in sorted(weight.atoms, key=lambda atom: (atom.name, hash(atom))))
    for atom in dict.fromkeys(atoms):
        if isinstance(atom.value, Schedule):
            found[atom] = str(atom.value)
            continue
        usable = atom.name.isidentifier() and not keyword.iskeyword(atom.name) and atom.name not in reserved
        label = stem = atom.name if usable else "s"
        count = 1
        while label in found.values():
            count += 1
            label = f"{stem}{count}"
        found[atom] = label
    return found


def number(value: Fraction, latex: bool = False) -> str:
    r"""A non-negative number, exactly: 7.5, 1/3, 5e-324."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest, count = rest // prime, count + 1
        places = max(places, count)
    if rest != 1:
        return rf"\tfrac{{{value.numerator}}}{{{value.denominator}}}" if latex else str(value)
    digits = str(int(value * 10**places))
    kept = digits.rstrip("0") or "0"
    exponent = len(digits) - len(kept) - places
    if 0 < exponent <= 15:
        kept, exponent = kept + "0" * exponent, 0
    text = str(Decimal((0, tuple(map(int, kept)), exponent))).lower().replace("e+", "e")
    mantissa, e, power = text.partition("e")
    return rf"{mantissa} \cdot 10^{{{power}}}" if latex and e else text


def plain(weight: Weight) -> str:
    r"""A weight that is a number as its text, for messages."""
    value = weight.constant
    return repr(weight) if value is None else "-" * (value < 0) + number(abs(value))


def scalar(weight: Weight, names: Mapping[Atom, str], latex: bool = False) -> tuple[str, str]:
    r"""A weight as its sign ('' or '-') and the rest; the term of highest degree comes first."""
    terms = sorted((-len(atoms), sorted(names[atom] for atom in atoms), c) for c, atoms in weight.products)
    if not terms:
        return "", "0"
    sign = -1 if terms[0][2] < 0 else 1
    body = ""
    for _, atoms, c in terms:
        c *= sign
        factors = [number(abs(c), latex)] if abs(c) != 1 or not atoms else []
        factors += [_upright(a) if latex else a for a in atoms]
        joint = "" if not body else (" + " if c > 0 else (" - " if latex else " − "))
        body += joint + (r"\," if latex else " ").join(factors)
    return ("-" if sign < 0 else ""), body if len(terms) == 1 else f"({body})"


def combination(weights: Mapping[str, Weight], names: Mapping[Atom, str] | None = None, latex: bool = False) -> str:
    r"""The weighted sum as one prediction and its directions, or as directions alone.

    The prediction is the first of empty, negative, prompt and the rest of the alphabet; what is left is
    :math:`c (a - b)` if it has two members, else a sum of :math:`c (x - \text{first})`.
    """
    names = labels(weights.values()) if names is None else names
    text, rest = "", dict(weights)
    base = min(rest, key=order, default="")
    if total(rest.values()) == ONE:
        text = prediction_text(base, latex)
        rest[base] = rest[base] - ONE
    members = sorted((name for name, weight in rest.items() if weight), key=order)
    if len(members) == 2:
        a, b = members
        pairs = [(b, a)] if scalar(rest[a], names)[0] else [(a, b)]
    else:
        pairs = [(name, base) for name in members if name != base]
        pairs.sort(key=lambda pair: scalar(rest[pair[0]], names)[0])  # what is sought, then what is avoided
    for a, b in pairs:
        sign, body = scalar(rest[a], names, latex)
        minus = "-" if latex else "−"
        body = "" if body == "1" else body + (r"\," if latex else " ")
        joint = f" {minus if sign else '+'} " if text else minus * bool(sign)
        text += f"{joint}{body}({prediction_text(a, latex)} {minus} {prediction_text(b, latex)})"
    return text or "0"


def prediction_text(name: str, latex: bool = False) -> str:
    r"""One prediction: ε(prompt), :math:`\epsilon_\theta(z_t, p)`."""
    if not latex:
        return f"ε({name})"
    return rf"\epsilon_\theta(z_t, {_LATEX.get(name) or _upright(name)})"


def _upright(name: str) -> str:
    escaped = name.replace("_", r"\_")
    return rf"\mathrm{{{escaped}}}" if len(name) > 1 else name
