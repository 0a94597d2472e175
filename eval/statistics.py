"""Statistics of pictures that are paired by (prompt, seed): intervals, differences, tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Array = Sequence[float] | np.ndarray


def interval(values: Array, level: float = 0.95) -> tuple[float, float, float]:
    """The mean with its normal interval; Wilson's where all values are 0 or 1, which holds near the ends too."""
    x = np.asarray(values, float)
    mean = float(x.mean())
    z = float(stats.norm.ppf((1 + level) / 2))
    if np.isin(x, (0, 1)).all():
        n = len(x)
        middle = (mean + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (mean * (1 - mean) / n + z * z / (4 * n * n)) ** 0.5
        return mean, float(middle - half), float(middle + half)
    half = z * float(x.std(ddof=1)) / len(x) ** 0.5 if len(x) > 1 else float("nan")
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Gain:
    """The mean paired difference, its interval, and the probability of one as large by chance."""

    difference: float
    low: float
    high: float
    p: float
    pairs: int

    @property
    def clear(self) -> bool:
        return self.low > 0 or self.high < 0


def gain(these: Array, those: Array, clusters: Sequence[str], draws: int = 10_000, seed: int = 0) -> Gain:
    """These against those, pair by pair; a percentile bootstrap and a permutation test, both of whole clusters.

    Pictures of one prompt are alike, so prompts, not pictures, are drawn again (the bootstrap) or have the signs of
    their differences flipped (the test, two-sided).

    Raises:
        ValueError: lengths that differ, or no pairs.
    """
    if not len(these) == len(those) == len(clusters) or not len(these):
        raise ValueError(f"{len(these)} and {len(those)} values of {len(clusters)} clusters are no pairs")
    difference = np.asarray(these, float) - np.asarray(those, float)
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(place, difference, len(names))
    sizes = np.bincount(place, minlength=len(names))
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(names), size=(draws, len(names)))
    low, high = np.quantile(sums[picks].sum(1) / sizes[picks].sum(1), [0.025, 0.975])
    flipped = (rng.choice([-1.0, 1.0], (draws, len(names))) * sums).sum(1)
    beyond = np.abs(flipped) >= abs(sums.sum()) - 1e-12
    return Gain(
        float(difference.mean()), float(low), float(high), float((beyond.sum() + 1) / (draws + 1)), len(difference)
    )


def relative(these: Array, those: Array) -> float:
    """The gain of the mean in percent, as the paper prints it: 0.258 against 0.242 is +6.61."""
    return 100 * (float(np.mean(these)) / float(np.mean(those)) - 1)


def mcnemar(these: Array, those: Array) -> tuple[int, int, float]:
    """Of binary outcomes: pairs that only these got right, that only those got, and McNemar's exact p (two-sided).

    It takes pairs as independent, which pictures of one prompt are not: `gain` does not.
    """
    a, b = np.asarray(these) > 0.5, np.asarray(those) > 0.5
    won, lost = int((a & ~b).sum()), int((~a & b).sum())
    return won, lost, float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values for as many comparisons (Holm 1979)."""
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    worst = 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = worst
    return adjusted.tolist()
