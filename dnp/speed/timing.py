r"""How long one thing takes beside another, on a machine that does other things too."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from scipy.stats import quantile_test


@dataclass(frozen=True)
class Ratio:
    r"""The median of paired ratios, with an interval that holds whatever their distribution is.

    Attributes:
        low, high: The order statistics between which the median lies with 95 % confidence; 0 and infinity where
            there are too few pairs (fewer than 6) for any.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        bounds = f"[{self.low:.3f}, {self.high:.3f}]" if self.high < math.inf else "[too few]"
        return f"{self.median:.3f} {bounds}"


def ratio(a: list[float], b: list[float]) -> Ratio:
    r"""Of `a` to `b`, pair by pair."""
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    ends = quantile_test(ratios, p=0.5).confidence_interval(0.95)
    low, high = (0.0, math.inf) if math.isnan(ends.low + ends.high) else (ends.low, ends.high)
    return Ratio(median(ratios), float(low), float(high))


@dataclass(frozen=True)
class Pair:
    r"""Seconds of runs by pairs, on the wall's clock, and on that of this process's processor time."""

    wall: tuple[list[float], list[float]]
    cpu: tuple[list[float], list[float]]


def interleave(
    a: Callable[[], object], b: Callable[[], object], repeats: int, tick: Callable[[], object] = lambda: None
) -> Pair:
    r"""Times `a` and `b` in turns in one process, the first of each pair in turns too.

    The two runs of a pair see nearly the same machine, so that their ratio means something where the seconds do not.
    Both should have run once before, since first runs load and compile.
    """
    wall: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    for number in range(repeats):
        for which in (0, 1) if number % 2 else (1, 0):
            start, start_cpu = _now(), time.process_time()
            (a, b)[which]()
            wall[which].append(_now() - start)
            cpu[which].append(time.process_time() - start_cpu)
        tick()
    return Pair(wall, cpu)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
