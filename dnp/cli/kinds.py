"""What the value of an option may be, and how it is read: one line says what is wrong and what to write."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import click

from dnp.limits import MOST_SEEDS, MOST_STEPS


class _Kind(click.ParamType):
    """A text that becomes a value; defaults may be texts as well."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.read(value)
        except ValueError as error:
            self.fail(f"{value[:40]!r} {error}", param, ctx)

    def read(self, text: str) -> Any:
        raise NotImplementedError

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return self.name


class Seeds(_Kind):
    """`3`, `0-7` or `1,3,8-11`: a list of seeds, each once."""

    name = "N|A-B|N,A-B,…"

    def read(self, text: str) -> list[int]:
        ranges = []
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdecimal() or not (last.isdecimal() or not dash):
                raise ValueError("is neither a number, a range nor a list of them: write 3, 0-7 or 1,3,8-11")
            low, high = int(first), int(last if dash else first)
            if high < low:
                raise ValueError("is an empty range: write the smaller seed first, as in 0-7")
            if high >= 2**63:
                raise ValueError("is too large: seeds go from 0 to 2**63 - 1")
            ranges.append(range(low, high + 1))
        if (count := sum(map(len, ranges))) > MOST_SEEDS:
            raise ValueError(f"are {count:,} seeds: give {MOST_SEEDS:,} at most, and more of them in another run")
        return list(dict.fromkeys(seed for seeds in ranges for seed in seeds))


class Size(_Kind):
    """`768x512`: width and height."""

    name = "WxH"

    def read(self, text: str) -> tuple[int, int]:
        width, _, height = text.partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise ValueError("is not a width and a height: write 768x512")
        return int(width), int(height)


class Scales(_Kind):
    """`7.5` for all arms, `dnp=5` for one: the arm's name or None, and the number."""

    name = "S|ARM=S"

    def read(self, text: str) -> tuple[str | None, float]:
        name, _, value = text.rpartition("=")
        try:
            return name.strip() or None, _number(value)
        except ValueError:
            raise ValueError("is neither a number nor ARM=NUMBER, as in dnp=5") from None


class Names(_Kind):
    """`a,b,c`: a list of texts."""

    name = "NAME,NAME,…"

    def read(self, text: str) -> list[str]:
        if not (found := [part.strip() for part in text.split(",") if part.strip()]):
            raise ValueError("names nothing: leave the option out, or write names with commas")
        return found


class Numbers(_Kind):
    """`3,5,7.5`: a list of numbers."""

    name = "S,S,…"

    def read(self, text: str) -> list[float]:
        try:
            return [_number(part) for part in text.split(",")]
        except ValueError:
            raise ValueError("is not a list of numbers: write one as in 3,5,7.5") from None


class Steps(_Kind):
    """`4,8,16`: a list of whole numbers from `least` to `most`."""

    name = "N,N,…"

    def __init__(self, least: int = 1, most: int = MOST_STEPS) -> None:
        self.least, self.most = least, most

    def read(self, text: str) -> list[int]:
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isdecimal() and self.least <= int(part) <= self.most for part in parts):
            raise ValueError(f"is not a list of whole numbers from {self.least} to {self.most:,}: write one as in 4,8")
        return [int(part) for part in parts]


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError
    return number


def refuse(message: str) -> NoReturn:
    """End the command: options do not go together."""
    raise click.UsageError(message, click.get_current_context(silent=True))
