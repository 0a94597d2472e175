"""Statistics against closed forms, scipy, and simulation."""

import numpy as np
import pytest
from scipy import stats

from eval.statistics import gain, holm, interval, mcnemar, relative


def test_intervals_against_scipy():
    rng = np.random.default_rng(0)
    right = rng.random(80) < 0.9
    mean, low, high = interval(right.astype(float))
    wilson = stats.binomtest(int(right.sum()), 80).proportion_ci(method="wilson")
    assert (mean, low, high) == pytest.approx((right.mean(), wilson.low, wilson.high))
    x = rng.normal(2, 3, 50)
    mean, low, high = interval(x)
    assert (low, high) == pytest.approx(stats.norm.interval(0.95, x.mean(), stats.sem(x)))


def test_gain_is_the_normal_interval_where_prompts_are_independent():
    means = np.random.default_rng(1).normal(0.1, 0.2, 300)  # of 300 prompts with two equal pictures each
    found = gain(np.repeat(means, 2), np.zeros(600), [f"prompt {i}" for i in range(300) for _ in range(2)])
    width = 1.96 * means.std() / 300**0.5
    assert found.difference == pytest.approx(means.mean()) and found.pairs == 600
    assert (found.low, found.high) == pytest.approx((means.mean() - width, means.mean() + width), abs=0.003)
    assert found.clear and found.p < 0.001


def test_pictures_of_one_prompt_are_not_taken_for_independent():
    difference = np.repeat(np.random.default_rng(2).normal(0, 1, 20), 50)
    alone = gain(difference, np.zeros(1000), [str(i) for i in range(1000)])
    whole = gain(difference, np.zeros(1000), [str(i // 50) for i in range(1000)])
    assert whole.high - whole.low > 5 * (alone.high - alone.low)


def test_permutation_against_scipy():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.4, 1, 12), rng.normal(0, 1, 12)
    exact = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf)
    assert gain(a, b, [str(i) for i in range(12)], draws=40_000).p == pytest.approx(exact.pvalue, abs=0.01)


def test_coverage_and_level_by_simulation():
    rng = np.random.default_rng(4)
    clusters = [str(i // 4) for i in range(160)]
    covered = rejected = 0
    for _ in range(200):
        x = np.repeat(rng.normal(0, 1, 40), 4) + rng.normal(0, 1, 160)
        found = gain(x, np.zeros(160), clusters, draws=500)
        covered += found.low <= 0 <= found.high
        rejected += found.p < 0.05
    assert 0.89 <= covered / 200 <= 0.98 and 0.01 <= rejected / 200 <= 0.10


def test_relative_gain_as_the_paper_prints_it():
    assert f"{relative([0.258], [0.242]):+.2f}%" == "+6.61%"
    assert f"{relative([0.346], [0.335]):+.2f}%" == "+3.28%"


def test_mcnemar_against_the_binomial_sum():
    a, b = [1] * 9 + [0] * 2 + [1] * 5 + [0] * 4, [0] * 9 + [1] * 2 + [1] * 5 + [0] * 4
    won, lost, p = mcnemar(a, b)
    assert (won, lost) == (9, 2)
    assert p == pytest.approx(2 * stats.binom.cdf(2, 11, 0.5))
    assert mcnemar([1, 0], [1, 0]) == (0, 0, 1.0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_no_pairs():
    with pytest.raises(ValueError, match="no pairs"):
        gain([1.0], [1.0, 2.0], ["a"])
