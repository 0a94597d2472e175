r"""The algebra: what may be added to what, and which formulas are the same."""

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidance import CFG, DNS, Direction, Formula, GuidanceError, NegPrompt, parse, prediction

p, n, u = prediction("prompt"), prediction("negative"), prediction("empty")
scales = st.one_of(st.integers(-50, 50), st.floats(-50, 50), st.fractions(-50, 50))
few = settings(derandomize=True, max_examples=40, deadline=None)


@few
@given(s=scales, w=scales)
def test_negative_prompting_is_one_family(s, w):
    exact = Fraction(str(s))
    assert NegPrompt(s, strength=w) == u + s * (p - u) - w * (n - u)
    assert NegPrompt(s, strength=0) == CFG(s) == u + s * (p - u)
    assert NegPrompt(s, strength=exact - 1) == NegPrompt(s, evaluations=2) == n + s * (p - n)
    assert NegPrompt(s, strength=s) == NegPrompt(s, evaluations=3) == NegPrompt(s) == u + s * (p - n)


@few
@given(s=scales)
def test_identities_of_the_paper(s):
    exact = Fraction(str(s))
    swap = {"prompt": "empty", "negative": "prompt"}
    assert DNS(s) == u + s * (u - p)
    assert DNS(s) == NegPrompt(s, evaluations=3).rename(**swap)
    assert DNS(s) == CFG(-s)
    assert DNS(s) == NegPrompt(exact + 1, evaluations=2).rename(**swap) == DNS(exact + 1, evaluations=2)
    assert DNS(s, evaluations=2) == p + s * (u - p)
    assert NegPrompt(s, evaluations=3) - NegPrompt(s, evaluations=2) == u - n
    assert NegPrompt(s, evaluations=3).rename(negative="empty") == CFG(s)
    assert NegPrompt(s, evaluations=2).rename(negative="empty") == CFG(s)
    assert hash(DNS(s)) == hash(CFG(-s)) == hash(parse(str(DNS(s))))


def test_numbers_are_exact_decimals():
    assert u + 0.1 * (p - u) + 0.2 * (p - u) == CFG(0.3) == CFG(Fraction(3, 10)) == CFG(np.float64(0.3))
    assert CFG(np.float32(0.1)) == CFG(0.1) and CFG(np.int64(7)) == CFG(7) == CFG(torch.tensor(7.0))
    assert np.float64(2) * (p - n) == 2 * (p - n) == (p - n) * 2 == (p - n) / 0.5 == -(2 * (n - p))
    assert CFG(0.1) != CFG(0.1 + 1e-17 + 1e-16)


def test_zero_weights_vanish_and_order_is_none():
    assert CFG(1) == p and CFG(1).names == ("prompt",)
    assert NegPrompt(7.5, evaluations=2).names == ("negative", "prompt")
    assert 7.5 * (p - n) + u == u + 7.5 * (p - n)
    assert u + (p - n) - (p - n) == u and str((p - n) - (p - n)) == "0"
    assert CFG(7.5) + 2 * (p - n) == Formula({"p": 9.5, "u": -6.5, "n": -2})
    assert p != "prompt" and p - n != p and p - n == Direction({"p": 1, "n": -1})


def test_scales_known_at_run_time_are_symbols():
    def late(sigma):
        return 7.5 * (sigma < 1)

    per_sample = torch.tensor([1.0, 2.0])
    assert CFG(late) == u + late * (p - u) == u + (p - u) * late
    assert CFG(late) != CFG(lambda sigma: late(sigma))
    assert CFG(per_sample) == u + per_sample * (p - u) and CFG(per_sample) != CFG(per_sample.clone())
    assert NegPrompt(late, evaluations=2) == n + late * (p - n) and "empty" not in NegPrompt(late, 2).names
    assert u + late * (per_sample * (p - u)) == u + per_sample * (late * (p - u))


def test_guidances_can_be_copied_and_pickled():
    for guidance in (CFG(7.5), NegPrompt(7.5, evaluations=2), u + 2 * (p - n)):
        assert pickle.loads(pickle.dumps(guidance)) == copy.deepcopy(guidance) == guidance
        wrapped = copy.deepcopy(guidance.wrap(torch.nn.Identity()))
        assert wrapped.guidance == guidance


def test_rename_substitutes_at_once():
    assert (u + 2 * (p - n)).rename(prompt="negative", negative="prompt") == u + 2 * (n - p)
    assert DNS(3).rename(prompt="empty") == u
    assert CFG(3).rename(u="background") == CFG(3).rename(empty="background")
    with pytest.raises(GuidanceError, match=r"no 'promt' to rename in .*: it has empty, prompt"):
        CFG(3).rename(promt="empty")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: p + n,
        lambda: 2 * p,
        lambda: p * 2,
        lambda: -p,
        lambda: p / 2,
        lambda: np.float64(2) * p,
        lambda: p + 1,
        lambda: 1 + p,
        lambda: 1 - p,
        lambda: p - 1,
        lambda: sum([p, n]),
        lambda: (p - n) + 1,
        lambda: (p - n) - u,
        lambda: (p - n) * (p - u),
        lambda: (p - n) / 0,
        lambda: (p - n) / torch.ones(2),
        lambda: CFG(2) + NegPrompt(2),
    ],
)
def test_senseless_sums_say_what_to_write(wrong):
    with pytest.raises(GuidanceError) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_messages():
    with pytest.raises(GuidanceError, match=r"predictions cannot be added.*as in u \+ 7.5\*\(p - n\)"):
        p + n
    with pytest.raises(GuidanceError, match=r"cannot be scaled.*as in u \+ 7.5\*\(p - n\)"):
        2 * p
    with pytest.raises(GuidanceError, match=r"the weights sum to 1.5, not to 1 \(prompt: 1.5\)"):
        Formula({"p": Fraction(3, 2)})
    with pytest.raises(GuidanceError, match="sum to zero, not to 2"):
        Direction({"p": 2})
    with pytest.raises(GuidanceError, match="evaluations is 2 or 3.* not 4"):
        NegPrompt(7.5, evaluations=4)
    with pytest.raises(GuidanceError, match="not both"):
        NegPrompt(7.5, evaluations=2, strength=1)
    with pytest.raises(GuidanceError, match="'a b' cannot name a condition"):
        prediction("a b")


@pytest.mark.parametrize(
    "scale",
    [
        math.nan,
        math.inf,
        True,
        "7.5",
        None,
        1j,
        torch.ones(2, 2),
        torch.tensor([True]),
        torch.tensor(math.nan),
    ],
)
def test_what_is_no_scale_is_named(scale):
    with pytest.raises(GuidanceError, match="a scale"):
        CFG(scale)
    with pytest.raises(GuidanceError, match="a scale"):
        (p - u) * scale
