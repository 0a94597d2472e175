r"""Differences between arms on the same prompts and seeds.

References:
    A Simple Sequentially Rejective Multiple Test Procedure, Holm, 1979.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eval.statistics.crossed import Array, Crossed, Estimate, Factors


@dataclass(frozen=True)
class Gain:
    """The mean paired difference; otherwise as `Estimate`."""

    difference: float
    low: float
    high: float
    p: float
    pairs: int
    missing: int = 0
    too_few: str = ""


def mean(values: Array, factors: Factors, binary: bool = False) -> Estimate:
    """The mean of values with its interval; NaN is a value that is missing, and left out.

    Raises:
        ValueError: lengths that differ, or no values.
    """
    x = np.asarray(values, float)
    there = np.isfinite(x)
    if any(len(levels) != len(x) for levels in factors.values()) or not there.any():
        raise ValueError(f"{len(x)} values, {int(there.sum())} of them there, have no mean over {', '.join(factors)}")
    kept = {
        name: [level for level, is_there in zip(levels, there, strict=True) if is_there]
        for name, levels in factors.items()
    }
    return _crossed(tuple((name, tuple(levels)) for name, levels in kept.items())).estimate(x[there], binary)


@lru_cache(maxsize=32)
def _crossed(factors: tuple[tuple[str, tuple[Hashable, ...]], ...]) -> Crossed:
    """Arms and metrics share their prompts and seeds, so the same crossing is asked for again and again."""
    return Crossed(dict(factors))


def gain(these: Array, those: Array, factors: Factors) -> Gain:
    """These against those, pair by pair: the mean difference, as `mean`. A pair with a NaN is missing, and left out.

    Raises:
        ValueError: lengths that differ, or no pairs.
    """
    if len(these) != len(those):
        raise ValueError(f"{len(these)} and {len(those)} values are no pairs")
    found = mean(np.asarray(these, float) - np.asarray(those, float), factors)
    return Gain(found.mean, found.low, found.high, found.p, found.count, found.missing, found.too_few)


def relative(these: Array, those: Array) -> float:
    """The gain of the mean in percent, as the paper prints it: 0.258 against 0.242 is +6.61.

    It has the sign of the change, also where the mean of those is negative.
    """
    before = float(np.mean(those))
    return 100 * (float(np.mean(these)) - before) / abs(before)


def wins(these: Array, those: Array) -> tuple[int, int]:
    """Of outcomes 0 or 1: the pairs that only these got right, and those that only those did."""
    a, b = np.asarray(these) > 0.5, np.asarray(those) > 0.5
    return int((a & ~b).sum()), int((~a & b).sum())


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values for as many comparisons; NaN, where there is no test, stays and does not count."""
    adjusted = np.full(len(p), np.nan)
    tested = [place for place in np.argsort(p) if not np.isnan(p[place])]
    worst = 0.0
    for rank, place in enumerate(tested):
        worst = max(worst, min(1.0, (len(tested) - rank) * p[place]))
        adjusted[place] = worst
    return adjusted.tolist()
