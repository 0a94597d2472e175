r"""Formulas as text, and as JSON: read by a whitelist, nothing is executed."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import torch

from ..errors import GuidanceError
from ..names import ELSEWHERE, SHORT, USUAL, did_you_mean
from .direction import Direction
from .formula import Formula, Guidance, Linear
from .notation import EPSILON, condition_name
from .scales import schedules
from .spelling import spelled, strategies
from .weights import ONE, ZERO, Scale, Weight, as_weight, total

LONGEST = 4000
_HINT = "p, n, u, prompt, negative, empty, or ε(name) for any other condition"

Value = Weight | dict[str, Weight] | Guidance


def parse(text: str, **values: Scale) -> Guidance:
    r"""Reads a guidance: a formula as the paper prints it, a strategy by its name, or both.

    .. code-block:: python

        parse("u + 7.5*(p - n)")
        parse("ε(empty) + s (ε(prompt) − ε(background))", s=lambda sigma: 7.5 * (sigma > 1))
        parse("CFG(s) + 2*(p - n)", s=3)
        parse("Rescale(Interval(NegPrompt(CosineScale(7.5, 1, 10, 0.3)), 0.3, 5), 0.7)")

    Any linear combination will do ("8.5*u - 7.5*p") as long as its weights sum to one. The names of other tools, cond
    and uncond or c and e, are prompt and empty, and rules may be written in lower case.

    Args:
        text: The formula.
        values: The scales that names in the text stand for: numbers, lists, tensors :math:`(B)`, :math:`(1)` or
            :math:`(B, C, H, W)`, or functions of :math:`\sigma`.

    Raises:
        GuidanceError: If the text is no formula, has an unknown name, or its weights do not sum to one.
    """
    if not isinstance(text, str):
        raise GuidanceError(f"a formula is a text, as in 'u + 7.5*(p - n)', not {text!r}")
    shown = repr(text if len(text) <= 60 else text[:57] + "...")
    try:
        if len(text) > LONGEST:
            raise GuidanceError(f"it is longer than {LONGEST} characters")
        reader = _Reader(spelled(text, values), values)
        value = reader.read()
        if isinstance(value, Weight):
            raise GuidanceError(f"it is a number, not a guidance: use {_HINT}")
        return value if isinstance(value, Guidance) else Formula(value)
    except (SyntaxError, RecursionError, MemoryError):
        raise GuidanceError(f"cannot read {shown}: write a formula as in 'u + 7.5*(p - n)'") from None
    except GuidanceError as error:
        raise GuidanceError(f"cannot read {shown}: {error}") from None


def from_json(data: Mapping[str, Any]) -> Guidance:
    r"""Reads what :meth:`Guidance.to_json` wrote. Lists become new float64 tensors of their shape.

    Raises:
        GuidanceError: If the data are not of that form.
    """
    if not isinstance(data, Mapping) or "guidance" not in data or not data.keys() <= {"guidance", "values"}:
        raise GuidanceError(f"JSON of a guidance is {{'guidance': text, 'values': {{name: list}}}}, not {data!r}")
    values = data.get("values", {})
    try:
        scales = {
            name: value if isinstance(value, (int, float)) else torch.tensor(value, dtype=torch.float64)
            for name, value in values.items()
        }
    except (TypeError, ValueError, AttributeError, RuntimeError):
        raise GuidanceError(f"the values in JSON of a guidance are lists of numbers, not {values!r}") from None
    return parse(data["guidance"], **scales)


class _Reader:
    r"""Evaluates the syntax tree: numbers and scales are weights, predictions are dictionaries of weights."""

    def __init__(self, source: str, values: Mapping[str, Scale]) -> None:
        self.source = source
        self.strategies = strategies()
        self.calls: dict[str, Callable[..., Any]] = {**self.strategies, **schedules()}
        self.scales = {name: as_weight(value, name) for name, value in values.items()}
        for name in self.scales:
            if name in {*EPSILON, *SHORT, *USUAL, *self.calls}:
                raise GuidanceError(f"{name} has a meaning of its own: call the scale something else")

    def read(self) -> Value:
        return self.value(ast.parse(self.source, mode="eval").body)

    def value(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Constant):
            # From the source rather than as a float: as many digits as are written.
            digits = ast.get_source_segment(self.source, node) or ""
            if digits[:1] in "0123456789." and digits:
                return Weight({frozenset(): Fraction(digits)})
        if isinstance(node, ast.Name):
            return self.name(node.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self.epsilon(node) if node.func.id in EPSILON else self.call(node, node.func.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
            return _scaled(self.value(node.operand), ONE if isinstance(node.op, ast.UAdd) else -ONE)
        if isinstance(node, ast.BinOp):
            return self.operation(node.op, self.value(node.left), self.value(node.right))
        raise GuidanceError(f"{ast.get_source_segment(self.source, node)!r} has no place in a formula")

    def name(self, name: str) -> Value:
        if name in self.scales:
            return self.scales[name]
        small = name.casefold()
        if small in {*SHORT, *USUAL, *ELSEWHERE}:
            return {condition_name(ELSEWHERE.get(small, small)): ONE}
        if name in EPSILON or name in self.calls:
            raise GuidanceError(f"{name} needs its argument, as in ε(background) or CFG(7.5)")
        if hint := did_you_mean(name, [*USUAL, *self.calls, *self.scales]):
            raise GuidanceError(f"{name!r} is unknown{hint}")
        raise GuidanceError(
            f"{name!r} is unknown: the names are {_HINT}; strategies are {', '.join(self.strategies)}; "
            f"a scale is given its value, as in parse(text, {name}=7.5)"
        )

    def epsilon(self, node: ast.Call) -> Value:
        if len(node.args) != 1 or node.keywords or not isinstance(node.args[0], ast.Name):
            raise GuidanceError("ε takes the name of one condition, as in ε(background)")
        return {condition_name(node.args[0].id): ONE}

    def call(self, node: ast.Call, name: str) -> Value:
        if name not in self.calls:
            return self.name(name)
        if any(keyword.arg is None for keyword in node.keywords):
            raise GuidanceError(f"{name} takes its arguments one by one")
        arguments = [self.argument(argument) for argument in node.args]
        named = {str(keyword.arg): self.argument(keyword.value) for keyword in node.keywords}
        try:
            made = self.calls[name](*arguments, **named)
        except TypeError:
            taken = ", ".join(inspect.signature(self.calls[name]).parameters)
            raise GuidanceError(f"{name} takes {taken}") from None
        return made if isinstance(made, Guidance) else as_weight(made)

    def argument(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        value = self.value(node)
        if isinstance(value, dict):
            return Formula(value)
        if not isinstance(value, Weight) or (number := value.constant) is None:
            return value
        if number.denominator == 1:
            return int(number)
        return float(number) if Fraction(repr(float(number))) == number else number

    def operation(self, op: ast.operator, left: Value, right: Value) -> Value:
        if isinstance(op, (ast.Add, ast.Sub)):
            return _added(left, right if isinstance(op, ast.Add) else _scaled(right, -ONE))
        if isinstance(op, ast.Mult):
            if isinstance(left, Weight):
                return _scaled(right, left)
            if isinstance(right, Weight):
                return _scaled(left, right)
            raise GuidanceError("two predictions cannot be multiplied")
        if not isinstance(op, ast.Div):
            raise GuidanceError("a formula has only +, -, * and /")
        divisor = right.constant if isinstance(right, Weight) else None
        if not divisor:
            raise GuidanceError("only a number other than zero can divide")
        return _scaled(left, Weight({frozenset(): 1 / divisor}))


def _terms(value: Value) -> dict[str, Weight]:
    if isinstance(value, dict):
        return value
    if isinstance(value, Linear):
        return dict(value.formula.weights)
    raise GuidanceError(f"{value} is no weighted sum: it can only stand alone, or before + and a difference")


def _scaled(value: Value, factor: Weight) -> Value:
    if isinstance(value, Weight):
        return value * factor
    return {name: weight * factor for name, weight in _terms(value).items()}


def _added(left: Value, right: Value) -> Value:
    if isinstance(left, Weight) and isinstance(right, Weight):
        return left + right
    if isinstance(left, Weight) or isinstance(right, Weight):
        raise GuidanceError("a number and a prediction cannot be added: scale a difference, as in 7.5*(p - n)")
    for guidance, other in ((left, right), (right, left)):
        if isinstance(guidance, Guidance) and not isinstance(guidance, Linear):
            if total((terms := _terms(other)).values()):
                raise GuidanceError(f"only a difference can be added to {guidance}, in brackets, as in + 2*(p - n)")
            return guidance + Direction(terms)
    a, b = _terms(left), _terms(right)
    return {name: a.get(name, ZERO) + b.get(name, ZERO) for name in a | b}
