"""Words of messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "picture"), counted(1200, "picture")
    ('1 picture', '1,200 pictures')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
