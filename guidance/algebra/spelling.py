r"""The text of a formula in Python's spelling, and the names that it may use."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container

from ..errors import GuidanceError
from .formula import Guidance
from .notation import EPSILON
from .scales import schedules

_SIGNS = str.maketrans({"−": "-", "·": "*", "⋅": "*", "×": "*", "∅": " empty ", "ϵ": "ε"})
_NUMBER, _NAME = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3}(?!\d))?", r"[^\W\d]\w*"
_TOKEN = re.compile(rf"\s*(?:({_NUMBER})|({_NAME})|([-+*/(),=])|([\"']\w*[\"']))")


def strategies() -> dict[str, type[Guidance]]:
    r"""The strategies that a text may name: all dataclasses that are guidances."""
    found: dict[str, type[Guidance]] = {}
    queue = Guidance.__subclasses__()
    for kind in queue:
        queue += kind.__subclasses__()
        if dataclasses.is_dataclass(kind):
            found[kind.__name__] = kind
    return dict(sorted(found.items()))


def spelled(text: str, scales: Container[str] = ()) -> str:
    r"""The text in Python's spelling, one space between tokens, with implicit multiplication written out.

    The names of rules get their capitals, unless they are those of `scales`.
    """
    text = text.translate(_SIGNS).strip()
    calls = EPSILON | strategies().keys() | schedules().keys()
    plain = {_plain(name): name for name in calls}
    tokens: list[str] = []
    position, product = 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise GuidanceError(f"{text[position:].strip()[0]!r} has no place in a formula")
        number, name, sign, word = match.groups()
        if product and (number or name or sign == "(") and not (sign and tokens[-1] in calls):
            tokens.append("*")
        position = match.end()
        if name and name not in scales and text[position:].lstrip().startswith("("):
            name = plain.get(_plain(name), name)
        tokens.append(name or number or sign or word)
        product = bool(number or name or sign == ")")
    return " ".join(tokens)


def _plain(name: str) -> str:
    r"""A rule's name as people type it: cfg, neg_prompt."""
    return name.casefold().replace("_", "")
