r"""What every guidance is as a text: written, as LaTeX and JSON, and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Union

from torch import Tensor

from ..errors import GuidanceError
from .notation import labels, scalar
from .weights import Atom, Schedule, Weight, as_weight

Argument = Union[Weight, "Expression"]


class Expression:
    r"""Something made of scales and other expressions, with a text that :func:`parse` reads back.

    It is written by the name of its class and its :meth:`arguments`, and equal to another of the same class and
    arguments.
    """

    def arguments(self) -> Mapping[str, Argument]:
        r"""What it is made of, by keyword ("" for the first); arguments that have their default are left out."""
        found: dict[str, Argument] = {}
        for index, field in enumerate(dataclasses.fields(self)):  # type: ignore[arg-type]
            if (value := _argument(getattr(self, field.name))) not in (None, _argument(field.default)):
                found[field.metadata.get("argument", field.name) if index else ""] = value
        return found

    def scales(self) -> Iterator[Weight]:
        r"""All scales, those of the expressions inside it too."""
        for value in self.arguments().values():
            if isinstance(value, Expression):
                yield from value.scales()
            else:
                yield value

    def source(self) -> tuple[str, dict[str, Any]]:
        r"""The text that :func:`parse` reads back, and the values of its scales that are not numbers."""
        names = labels(self.scales())
        values = {label: atom.value for atom, label in names.items() if not isinstance(atom.value, Schedule)}
        return self.written(names), values

    def written(self, names: Mapping[Atom, str]) -> str:
        r"""The text, with these `names` for the scales that are not numbers."""
        arguments = []
        for keyword, value in self.arguments().items():
            text = value.written(names) if isinstance(value, Expression) else "".join(scalar(value, names))
            arguments.append(f"{keyword}={text}" if keyword else text)
        return f"{type(self).__name__}({', '.join(arguments)})"

    def latex(self) -> str:
        r"""The formula in LaTeX's mathematics, without dollars."""
        names = labels(self.scales())
        arguments = []
        for keyword, value in self.arguments().items():
            text = value.latex() if isinstance(value, Expression) else "".join(scalar(value, names, latex=True))
            arguments.append(rf"\mathrm{{{keyword}}} = {text}" if keyword else text)
        return rf"\operatorname{{{type(self).__name__}}}\left({', '.join(arguments)}\right)"

    def to_json(self) -> dict[str, Any]:
        r"""A dictionary for :func:`json.dumps`; :func:`from_json` reads it back.

        Raises:
            GuidanceError: If a scale is a function, which has no JSON.
        """
        text, values = self.source()
        for name, value in values.items():
            if not isinstance(value, Tensor):
                raise GuidanceError(f"the scale {name} of {text!r} is a function and has no JSON: use numbers")
        listed = {name: value.tolist() for name, value in values.items()}
        return {"guidance": text} | ({"values": listed} if listed else {})

    def __str__(self) -> str:
        return self.source()[0]

    def __repr__(self) -> str:
        text, values = self.source()
        if not values and not {"/", "ε"} & {*text}:  # 1/3 is exact for parse, not for Python
            return text
        return f"parse({', '.join([repr(text), *(f'{name}={value!r}' for name, value in values.items())])})"

    def _repr_latex_(self) -> str:
        return f"${self.latex()}$"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Expression):
            return NotImplemented
        return type(self) is type(other) and self.arguments() == other.arguments()

    def __hash__(self) -> int:
        return hash((type(self), frozenset(self.arguments().items())))


def _argument(value: Any) -> Argument | None:
    r"""The value of a field, to be compared and written; None if it has no value."""
    if value is None or value is dataclasses.MISSING or isinstance(value, Expression):
        return value if isinstance(value, Expression) else None
    return as_weight(value)
