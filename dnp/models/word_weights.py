r"""Weights of words in a prompt, in the notation that people know from A1111 and ComfyUI.

``(a cat:1.2)`` gives words a weight; ``(cat)`` is ``(cat:1.1)``; inside each other they multiply, so that ``((cat))``
is 1.21. ``\(`` and ``\)`` are brackets, and a colon outside of brackets is a colon.
"""

from __future__ import annotations

import math
import re

from dnp.errors import DNPError

_DEFAULT = 1.1
_TOKEN = re.compile(r"\\[()\\]|[()]|[^()\\]+|\\")
_WEIGHT = re.compile(r"^(.*):([^:]*)$", re.S)


def parse_weights(prompt: str) -> list[tuple[str, float]]:
    r"""The pieces of a prompt with their weights; a prompt without brackets is one piece of weight 1.

    >>> parse_weights(r"a (big (cat:1.5):1.2) \(tabby\)")
    [('a ', 1.0), ('big ', 1.2), ('cat', 1.7999999999999998), (' (tabby)', 1.0)]

    Raises:
        DNPError: A bracket is not closed or not opened, or a weight is not a finite number of 0 or more.
    """
    if "(" not in prompt and ")" not in prompt:
        return [(prompt, 1.0)]
    levels: list[list[tuple[str, float]]] = [[]]
    for token in _TOKEN.findall(prompt):
        if token == "(":
            levels.append([])
        elif token == ")":
            if len(levels) == 1:
                raise DNPError(rf"the prompt {prompt!r} closes a bracket that it did not open: write \) for a bracket")
            inner = _weighted(levels.pop(), prompt)
            levels[-1] += inner  # after the pop: an augmented assignment would look the place up before it
        else:
            levels[-1].append((token[1:] if token[0] == "\\" and len(token) > 1 else token, 1.0))
    if len(levels) > 1:
        raise DNPError(rf"the prompt {prompt!r} does not close a bracket: write (words:1.2), or \( for a bracket")
    pieces: list[tuple[str, float]] = []
    for text, weight in levels[0]:
        if pieces and pieces[-1][1] == weight:
            pieces[-1] = (pieces[-1][0] + text, weight)
        elif text:
            pieces.append((text, weight))
    return pieces or [("", 1.0)]


def _weighted(pieces: list[tuple[str, float]], prompt: str) -> list[tuple[str, float]]:
    weight = _DEFAULT
    if pieces and pieces[-1][1] == 1.0 and (found := _WEIGHT.match(pieces[-1][0])):
        try:
            weight = float(found[2])
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf:
            raise DNPError(f"the weight {found[2]!r} in {prompt!r} is not a number of 0 or more: write (words:1.2)")
        pieces[-1] = (found[1], 1.0)
    return [(text, weight * inner) for text, inner in pieces]
