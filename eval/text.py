"""Text that others wrote: read whatever way it was saved, shown without what a terminal or a page would act upon."""

from __future__ import annotations

import re

# Control characters, line and paragraph separators, marks that turn the direction of writing, half characters
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""The text on one line, with `\x1b` and the like where a character would act instead of show.

    >>> visible("red\x1b[31m")
    'red\\x1b[31m'
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def lines(data: bytes) -> list[str]:
    r"""The lines of a text in UTF-8, with or without a byte order mark, split at `\n` (or `\r\n`) and nothing else.

    Raises:
        UnicodeDecodeError: it is no UTF-8.
    """
    return [line.removesuffix("\r") for line in data.decode("utf-8-sig").split("\n")]
