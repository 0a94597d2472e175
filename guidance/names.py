r"""The names of conditions: full, short, and those that other tools give them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHORT = {"p": "prompt", "n": "negative", "u": "empty"}
USUAL = ("empty", "negative", "prompt")
r"""What every call may give, even if a guidance does not need it."""
ELSEWHERE = {"cond": "prompt", "c": "prompt", "positive": "prompt", "uncond": "empty", "e": "empty", "neg": "negative"}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    r"""A question that ends a message about an unknown `name`, "" if nothing is close to it."""
    plain = {other.casefold().replace("_", ""): other for other in known}
    word = name.casefold().replace("_", "")
    for guess in (SHORT.get(word), ELSEWHERE.get(word), word, *difflib.get_close_matches(word, plain, 1)):
        if guess in plain:
            return f": did you mean {plain[guess]}?"
    return ""
