"""Differences by hand."""

import numpy as np
import pytest

from eval.statistics import gain, holm, mean, relative, wins

FACTORS = {"prompt": [p for p in "abcde" for _ in range(4)], "seed": [0, 1, 2, 3] * 5}


def test_gain_is_the_mean_of_the_differences():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=20), rng.normal(size=20)
    found, same = gain(a, b, FACTORS), mean(a - b, FACTORS)
    assert found.difference == pytest.approx((a - b).mean()) and found.pairs == 20
    assert (found.low, found.high, found.p) == (same.low, same.high, same.p)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_what_is_missing_is_left_out_and_counted():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=20), rng.normal(size=20)
    a[3], b[7] = np.nan, np.nan
    found = gain(a, b, FACTORS)
    kept = [place for place in range(20) if place not in (3, 7)]
    assert found.pairs == 18 and found.missing == 2
    assert found.difference == pytest.approx((a - b)[kept].mean())
    assert found == gain(
        a[kept], b[kept], {name: [levels[place] for place in kept] for name, levels in FACTORS.items()}
    )


def test_equal_arms_have_no_difference_and_a_p_of_one():
    found = gain(np.ones(20), np.ones(20), FACTORS)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_too_few_seeds():
    found = gain([1.0, 0.5], [0.5, 0.5], {"prompt": ["a", "b"], "seed": [0, 0]})
    assert found.difference == 0.25 and np.isnan(found.p) and found.too_few == "too few prompts and seeds"


def test_relative_gain_as_the_paper_prints_it():
    assert f"{relative([0.258], [0.242]):+.2f}%" == "+6.61%"
    assert f"{relative([0.346], [0.335]):+.2f}%" == "+3.28%"


def test_relative_gain_has_the_sign_of_the_change():
    assert relative([-0.1], [-0.2]) == pytest.approx(50)
    assert relative([-0.3], [-0.2]) == pytest.approx(-50)


def test_wins_by_hand():
    assert wins([1] * 9 + [0] * 2 + [1] * 5 + [0] * 4, [0] * 9 + [1] * 2 + [1] * 5 + [0] * 4) == (9, 2)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.01, float("nan"), 0.04]) == pytest.approx([0.02, float("nan"), 0.04], nan_ok=True)


def test_no_pairs():
    with pytest.raises(ValueError, match="1 and 2 values are no pairs"):
        gain([1.0], [1.0, 2.0], {"prompt": ["a"]})
