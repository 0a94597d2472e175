r"""What is said about a wrong value: one line that names the value and the remedy."""

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class SamplerError(ValueError):
    r"""A sampler, schedule, seed or option that cannot be used as given."""


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    r"""Returns `table[name]`.

    Raises:
        SamplerError: If there is no such name; it suggests the closest and lists all.
    """

    if name in table:
        return table[name]
    close = difflib.get_close_matches(str(name), table, n=1)
    suggestion = f" did you mean {close[0]!r}?" if close else ""
    raise SamplerError(f"unknown {kind} {name!r};{suggestion} known: {', '.join(table)}")


def option_defaults(function: Callable[..., Any], reserved: Collection[str]) -> dict[str, Any]:
    r"""Returns the options of a function, with their defaults: its parameters less the `reserved` ones."""

    parameters = inspect.signature(function).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name not in reserved}


def check_options(kind: str, name: str, options: Collection[str], known: Collection[str]) -> None:
    r"""Checks that `options` are among the `known` ones.

    Raises:
        SamplerError: If one is not.
    """

    for option in options:
        if option not in known:
            raise SamplerError(f"{kind} {name!r} has no option {option!r}; it has: {', '.join(known) or 'none'}")
