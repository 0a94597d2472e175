"""The interval over crossed factors against the analysis of variance, scipy and simulation."""

import numpy as np
import pytest
from scipy import stats

from eval.statistics import Crossed, mean


def crossed(prompts, seeds):
    return {
        "prompt": np.repeat(np.arange(prompts), seeds).tolist(),
        "seed": np.tile(np.arange(seeds), prompts).tolist(),
    }


def draws(rng, prompts, seeds, count, prompt=0.1, seed=0.0, residual=0.6):
    """Many draws (count, prompts x seeds) of differences whose true mean is zero."""
    x = residual * rng.standard_normal((count, prompts, seeds), dtype=np.float32)
    x += prompt * rng.standard_normal((count, prompts, 1)) + seed * rng.standard_normal((count, 1, seeds))
    return x.reshape(count, -1)


def coverage(factors, values):
    error, free = Crossed(factors).spread(values)
    return float((np.abs(values.mean(-1)) <= stats.t.ppf(0.975, free) * error).mean())


@pytest.mark.parametrize("shape", [(12, 6), (5, 9), (30, 4)])
def test_without_missing_cells_it_is_the_analysis_of_variance(shape):
    p, s = shape
    rng = np.random.default_rng(p)
    d = rng.normal(0.2, 1, shape) + rng.normal(0, 0.7, (p, 1)) + rng.normal(0, 0.7, (1, s))
    rows, columns = d.mean(1), d.mean(0)
    ms_p, ms_s = s * rows.var(ddof=1), p * columns.var(ddof=1)
    ms_e = ((d - rows[:, None] - columns + d.mean()) ** 2).sum() / ((p - 1) * (s - 1))
    v = max(ms_p + ms_s - ms_e, ms_p, ms_s)
    free = v**2 / (ms_p**2 / (p - 1) + ms_s**2 / (s - 1) + ms_e**2 / ((p - 1) * (s - 1)))
    found = mean(d.ravel(), crossed(p, s))
    expected = stats.t.interval(0.95, free, d.mean(), (v / (p * s)) ** 0.5)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(d.mean()) / (v / (p * s)) ** 0.5, free), rel=1e-9)
    assert (found.count, found.missing, found.too_few) == (p * s, 0, "")


def test_with_one_factor_it_is_the_interval_of_student():
    x = np.random.default_rng(0).normal(2, 3, 50)
    found = mean(x, {"prompt": list(range(50))})
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 49, x.mean(), stats.sem(x)))
    means = mean(np.repeat(x, 6), {"prompt": np.repeat(np.arange(50), 6).tolist()})  # of one prompt all alike
    assert (means.low, means.high) == pytest.approx((found.low, found.high))


def test_three_factors_without_missing_cells_are_the_analysis_of_variance():
    """Cornfield and Tukey's sum of the mean squares of prompts, seeds and raters."""
    shape = (6, 5, 7)
    rng = np.random.default_rng(2)
    d = rng.normal(0, 0.3, shape)
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2)):
        d = d + rng.normal(
            0, 3 if len(axes) == 1 else 1, [size if axis in axes else 1 for axis, size in enumerate(shape)]
        )

    def square(axes):
        effect = d
        for axis in range(3):
            average = effect.mean(axis, keepdims=True)
            effect = effect - average if axis in axes else np.broadcast_to(average, effect.shape)
        return (effect**2).sum() / np.prod([shape[axis] - 1 for axis in axes])

    total = sum(square(a) for a in ((0,), (1,), (2,), (0, 1, 2))) - sum(square(a) for a in ((0, 1), (0, 2), (1, 2)))
    codes = np.indices(shape).reshape(3, -1).tolist()
    error, _ = Crossed(dict(zip(("prompt", "seed", "rater"), codes, strict=True))).spread(d.ravel())
    assert float(error) == pytest.approx((total / d.size) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("seed", [0.095, 0.03, 0.0])
@pytest.mark.parametrize(
    "shape", [(10, 4), (30, 4), (115, 4), (276, 4), (10, 8), (30, 8), (115, 8), (10, 32), (115, 32)]
)
def test_coverage_with_and_without_an_effect_of_the_seed(shape, seed):
    """Of 95 % intervals; a true null is rejected in what they do not cover."""
    found = coverage(crossed(*shape), draws(np.random.default_rng(shape), *shape, 1200, seed=seed))
    assert found >= 0.93
    assert found <= 0.99 or shape < (30, 8)


def test_coverage_for_outcomes_of_0_and_1():
    rng = np.random.default_rng(1)
    right = rng.random((1500, 60, 8)) < 0.5 + 0.2 * rng.standard_normal((1500, 60, 1)) + 0.1 * rng.standard_normal(
        (1500, 1, 8)
    )
    other = rng.random((1500, 60, 8)) < 0.5
    assert 0.93 <= coverage(crossed(60, 8), (right * 1.0 - other).reshape(1500, -1)) <= 0.99


def test_coverage_with_a_sixth_of_the_cells_missing():
    rng = np.random.default_rng(3)
    kept = rng.random(60 * 8) > 1 / 6
    factors = {
        name: [level for level, keep in zip(levels, kept, strict=True) if keep]
        for name, levels in crossed(60, 8).items()
    }
    assert 0.93 <= coverage(factors, draws(rng, 60, 8, 1500, seed=0.1)[:, kept]) <= 0.99


def test_coverage_with_three_raters_a_pair_of_twelve():
    rng = np.random.default_rng(4)
    pairs, count = 50 * 4, 1500
    pair = np.repeat(np.arange(pairs), 3)
    rater = np.concatenate([rng.permutation(12)[:3] for _ in range(pairs)])
    x = 0.6 * rng.standard_normal((count, len(pair))) + 0.3 * rng.standard_normal((count, pairs))[:, pair]
    for scale, code in ((0.2, pair // 4), (0.05, pair % 4), (0.1, rater)):
        x += scale * rng.standard_normal((count, code.max() + 1))[:, code]
    factors = {"prompt": (pair // 4).tolist(), "seed": (pair % 4).tolist(), "rater": rater.tolist()}
    assert 0.93 <= coverage(factors, x) <= 0.99


def test_too_few_levels_give_no_interval():
    found = mean(np.arange(30.0), crossed(10, 3))
    assert found.mean == 14.5 and found.too_few == "too few seeds"
    assert np.isnan([found.low, found.high, found.p]).all()
    assert mean(np.arange(6.0), crossed(3, 2)).too_few == "too few prompts and seeds"
    assert mean(np.arange(16.0), crossed(4, 4)).too_few == ""


def test_shares_have_wilsons_interval():
    right = np.random.default_rng(0).random(80) < 0.9
    level = 2 * stats.norm.cdf(stats.t.ppf(0.975, 79)) - 1  # Student's t in the place of z
    wilson = stats.binomtest(int(right.sum()), 80).proportion_ci(level, method="wilson")
    found = mean(right, {"prompt": list(range(80))}, binary=True)
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))
    every = mean(np.ones(80), crossed(20, 4), binary=True)
    wilson = stats.binomtest(80, 80).proportion_ci(method="wilson")
    assert (every.low, every.high) == pytest.approx((wilson.low, 1.0))
    none = mean(np.zeros(80), crossed(20, 4), binary=True)
    assert (none.mean, none.low, none.high) == pytest.approx((0, 0, 1 - wilson.low))


def test_a_share_over_few_seeds_that_differ_is_less_sure():
    """Two of four seeds are always right: four values' worth of knowledge, not eighty's."""
    found = mean(np.tile([1.0, 1.0, 0.0, 0.0], 20), crossed(20, 4), binary=True)
    level = 2 * stats.norm.cdf(stats.t.ppf(0.975, 3)) - 1
    wilson = stats.binomtest(2, 4).proportion_ci(level, method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))


def test_no_values():
    with pytest.raises(ValueError, match="have no mean over prompt"):
        mean([], {"prompt": []})
    with pytest.raises(ValueError, match="prompt: 2, seed: 1"):
        Crossed({"prompt": [1, 2], "seed": [1]})
