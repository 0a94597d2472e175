r"""What every guidance is as a text: written, as LaTeX and JSON, and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, ClassVar, Union

from torch import Tensor

from ..errors import GuidanceError
from .notation import labels, scalar
from .weights import Atom, Schedule, Weight, as_weight

Argument = Union[Weight, "Expression", str]


class Expression:
    r"""Something made of scales and other expressions, with a text that :func:`parse` reads back.

    It is written by the name of its class and its :meth:`arguments`, and equal to another of the same class and
    arguments.
    """

    fixed: ClassVar[tuple[str, ...]] = ()
    r"""The arguments that its paper fixes: they are written only if they are not the default."""

    def arguments(self) -> Mapping[str, Argument]:
        r"""What it is made of, by keyword ("" for the first), but for what is None or :attr:`fixed`."""
        found: dict[str, Argument] = {}
        for index, field in enumerate(dataclasses.fields(self)):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            usual = field.name in self.fixed and not isinstance(value, Tensor) and value == field.default
            if value is not None and not usual:
                argument = value if isinstance(value, (Expression, str)) else as_weight(value)
                found[field.name if index else ""] = argument
        return found

    def key(self, values: bool = True) -> Hashable:
        r"""What is equal for a copy, with or without what its tensors hold."""
        arguments = self.arguments().items()
        return type(self), frozenset((k, v if isinstance(v, str) else v.key(values)) for k, v in arguments)

    def scales(self) -> Iterator[Weight]:
        r"""All scales, those of the expressions inside it too."""
        for value in self.arguments().values():
            if isinstance(value, Expression):
                yield from value.scales()
            elif isinstance(value, Weight):
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
            if isinstance(value, Weight):
                text = "".join(scalar(value, names))
            else:
                text = value.written(names) if isinstance(value, Expression) else repr(value)
            arguments.append(f"{keyword}={text}" if keyword else text)
        return f"{type(self).__name__}({', '.join(arguments)})"

    def latex(self) -> str:
        r"""The formula in LaTeX's mathematics, without dollars."""
        names = labels(self.scales())
        arguments = []
        for keyword, value in self.arguments().items():
            if isinstance(value, Weight):
                text = "".join(scalar(value, names, latex=True))
            else:
                text = value.latex() if isinstance(value, Expression) else rf"\text{{{value}}}"
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
        return self.key() == other.key() if isinstance(other, Expression) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key(values=False))
