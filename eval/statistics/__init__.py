"""How sure a number is: means over crossed prompts and seeds with their intervals, and paired differences.

- `crossed`: the model and its interval; `comparisons`: of two arms, and of many.
"""

from eval.statistics.comparisons import Gain, gain, holm, mean, relative, wins
from eval.statistics.crossed import FEWEST, Crossed, Estimate, Factors

__all__ = ["FEWEST", "Crossed", "Estimate", "Factors", "Gain", "gain", "holm", "mean", "relative", "wins"]
