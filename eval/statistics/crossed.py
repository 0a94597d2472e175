r"""Means over crossed prompts and seeds (and raters): intervals, paired differences, tests.

All pictures of a prompt are alike, and all prompts share the noise of a seed, so neither prompts nor seeds may be taken
for independent draws of pictures: both are random effects here, and an interval says what another draw of both would
give. For P prompts and S seeds, every pair of them once, the variance of the mean is estimated by the analysis of
variance as :math:`\max(MS_P + MS_S - MS_E, MS_P, MS_S) / PS`, and Student's t has Satterthwaite's degrees of freedom.
`Crossed` is the same for any number of factors, with cells missing or repeated.

References:
    Variance Components, Searle, Casella & McCulloch, 1992, chapter 5 (Henderson's method 1: moments of cell sums).
    An Approximate Distribution of Estimates of Variance Components, Satterthwaite, 1946.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import sparse, stats

Array = Sequence[float] | np.ndarray
Factors = Mapping[str, Sequence[Hashable]]
"""Name of a factor ("prompt", "seed", "rater") → the level of each value."""

FEWEST = 4  # levels of a factor: two or three say nothing of how levels differ, whatever the method


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; `low`, `high` and `p` are NaN where a factor has too few levels.

    Attributes:
        p: The probability of a mean as far from zero if the true one were zero; below .05 if the interval leaves 0 out.
        count: Values that it is the mean of.
        missing: Cells of the full crossing of all levels that hold no value.
        too_few: "too few seeds" or the like; "" where every factor has at least `FEWEST` levels.
    """

    mean: float
    low: float
    high: float
    p: float
    count: int
    missing: int = 0
    too_few: str = ""


class Crossed:
    r"""The levels at which N values were taken, and how sure their mean is.

    The model: a value is the mean, plus a random effect of the level of each factor and of each combination of levels
    that occurs more than once, plus a residual. The components of variance are estimated by equating, for each of
    these, the sum of squares of the cells' sums with its expectation, which holds for any pattern of missing cells and
    is the analysis of variance where there are none.

    Args:
        factors: For each factor the levels of the N values.

    Raises:
        ValueError: no values, or factors of different lengths.
    """

    def __init__(self, factors: Factors) -> None:
        sizes = {len(levels) for levels in factors.values()}
        if len(sizes) != 1 or not (count := sizes.pop()):
            lengths = ", ".join(f"{name}: {len(levels)}" for name, levels in factors.items())
            raise ValueError(
                f"every factor needs the level of each value, of one at least; there are {lengths or 'none'}"
            )
        self.count = count
        codes = {name: _codes(levels) for name, levels in factors.items()}
        levels = {name: int(code.max()) + 1 for name, code in codes.items()}
        few = [f"{name}s" for name in codes if levels[name] < FEWEST]
        self.too_few = f"too few {' and '.join(few)}" if few else ""
        whole = frozenset(codes)
        subsets = [frozenset(names) for size in range(1, len(codes) + 1) for names in combinations(codes, size)]
        cells = {names: _codes(list(zip(*(codes[name] for name in names), strict=True))) for names in subsets}
        self.missing = int(np.prod(list(levels.values()))) - int(cells[whole].max()) - 1
        # The components: none whose cells hold one value each (the residual does), none that splits as another does
        sets: list[frozenset[str]] = []
        for names, code in cells.items():
            size = int(code.max()) + 1
            if 1 < size < count and not any(_same(cells[other], code) for other in sets):
                sets.append(names)
        parts = [*(cells[names] for names in sets), np.arange(count)]  # the residual is the last of them
        sizes_of = [np.bincount(part).astype(float) for part in parts]
        self._sums = [sparse.csr_matrix((np.ones(count), (part, np.arange(count)))) for part in parts]
        self._solve = np.linalg.pinv(
            [
                [_moment(a, b, m, n) for b, n in zip(parts, sizes_of, strict=True)]
                for a, m in zip(parts, sizes_of, strict=True)
            ]
        )
        self._in_mean = np.array([n @ n / count**2 for n in sizes_of])  # of a component in the variance of the mean
        # Degrees of freedom, where levels differ in size by the number of equal ones that would be as good (Kish's)
        free_of = {name: count**2 / float(np.bincount(code) @ np.bincount(code)) - 1 for name, code in codes.items()}
        free = [
            min(len(n) - 1.0, float(np.prod([free_of[name] for name in names])))
            for names, n in zip(sets, sizes_of, strict=False)
        ]
        self._free = np.array([*free, max(1.0, count - 1 - sum(free))])
        self._fewest = min(free_of.values())
        # Mean squares as sums of components, and the mean's variance as a sum of mean squares (+1, +1, -1 for P, S, E)
        self._above = np.array([[a <= b for b in [*sets, whole]] for a in sets] + [[False] * len(sets) + [True]])
        weights: list[float] = []
        for names in sets:
            weights.append(1 - sum(w for w, other in zip(weights, sets, strict=False) if other < names))
        self._weights = np.array([*weights, 1 - sum(weights)])
        self._meets = np.array([[bool(names & b) for b in sets] + [True] for names in subsets])

    def spread(self, values: Array) -> tuple[np.ndarray, np.ndarray]:
        """The standard error of the mean, and its degrees of freedom, each (...).

        Args:
            values: (..., N), of many draws at once as well.
        """
        x = np.asarray(values, float)
        centred = (x - x.mean(-1, keepdims=True)).reshape(-1, self.count).T
        squares = np.stack([((part @ centred) ** 2).sum(0) for part in self._sums])
        components = self._solve @ squares
        components[np.abs(components) < 1e-12 * squares[-1]] = 0  # rounding
        added = components * self._in_mean[:, None]
        mean_squares = np.maximum(self._above @ added, 0)
        # Never less than it would be if some of the factors had no effect: a component below zero is chance
        variance = np.maximum(self._meets @ added, 0).max(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            free = variance**2 / ((self._weights[:, None] * mean_squares) ** 2 / self._free[:, None]).sum(0)
        free = np.where(variance > 0, np.maximum(free, self._fewest), np.inf)  # chance can take it down to nothing too
        return np.sqrt(variance).reshape(x.shape[:-1]), free.reshape(x.shape[:-1])

    def estimate(self, values: Array, binary: bool = False, level: float = 0.95) -> Estimate:
        """The mean of N values with its interval.

        Args:
            binary: All values are 0 or 1: Wilson's interval, for as many independent values as would be as sure.
        """
        x = np.asarray(values, float)
        mean = float(x.mean())
        if self.too_few:
            return Estimate(mean, np.nan, np.nan, np.nan, self.count, self.missing, self.too_few)
        error, free = (float(found) for found in self.spread(x))
        t = float(stats.t.ppf((1 + level) / 2, free))
        p = float(2 * stats.t.sf(abs(mean) / error, free)) if error else float(mean == 0)
        low, high = mean - t * error, mean + t * error
        if binary:
            equal = min(self.count, mean * (1 - mean) / error**2 + 1) if error else self.count
            low, high = _wilson(mean, equal, t)
        return Estimate(mean, low, high, p, self.count, self.missing)


def _codes(levels: Sequence[Hashable]) -> np.ndarray:
    """Levels → 0, 1, … in the order of their first places."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(level, len(known)) for level in levels])


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two codings split the values alike; both number the cells by their first places."""
    return bool((a == b).all())


def _moment(a: np.ndarray, b: np.ndarray, sizes_a: np.ndarray, sizes_b: np.ndarray) -> float:
    """What a component b of variance 1 adds to the expected sum of squares of a's cell sums, the mean taken off."""
    both, counts = np.unique(np.stack([a, b]), axis=1, return_counts=True)
    count = len(a)
    ends = float(sizes_a @ sizes_a) * float(sizes_b @ sizes_b) / count**2
    return float(counts @ counts) - 2 * float(counts @ (sizes_a[both[0]] * sizes_b[both[1]])) / count + ends


def _wilson(share: float, count: float, z: float) -> tuple[float, float]:
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))
