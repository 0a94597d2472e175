r"""The algebra: what may be added to what, and which formulas are the same."""

import copy
import dataclasses
import math
import pickle
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidance import (
    APG,
    CFG,
    DNS,
    Composable,
    Direction,
    Formula,
    GuidanceError,
    NegPrompt,
    Rescale,
    StepScale,
    parse,
    prediction,
)

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
    assert CFG(np.float32(0.1)) == CFG(0.1) and CFG(np.int64(7)) == CFG(7) != CFG(torch.tensor(7.0))
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
    assert CFG(per_sample) == u + per_sample * (p - u) == CFG(per_sample.clone()) != CFG(per_sample + 1)
    assert hash(CFG(per_sample)) == hash(CFG(per_sample.clone()))
    # A copy is equal, and yet another scale: one of the two may change.
    assert (u + per_sample * (p - n) - per_sample.clone() * (p - n)).names == ("empty", "negative", "prompt")
    assert NegPrompt(late, evaluations=2) == n + late * (p - n) and "empty" not in NegPrompt(late, 2).names
    assert u + late * (per_sample * (p - u)) == u + per_sample * (late * (p - u))


@pytest.mark.parametrize(
    "guidance",
    [
        CFG(7.5),
        CFG([1.0, 2.0]),
        NegPrompt(7.5, evaluations=2),
        NegPrompt(torch.ones(2), strength=torch.ones(2)),
        DNS(StepScale(0, 7.5, 3), evaluations=2),
        Composable(cat=7.5, weights=torch.rand(2, 1, 4, 4)),
        APG(7.5, momentum=-0.5).rename(prompt="style"),
        Rescale(CFG(7.5), 0.7, space="v"),
        Rescale(CFG(7.5), torch.ones(())) + 2 * (p - n),
        u + 2 * (p - n),
    ],
    ids=str,
)
def test_copies_equal_the_original(guidance):
    copies = [pickle.loads(pickle.dumps(guidance)), copy.deepcopy(guidance), copy.copy(guidance)]
    copies += [dataclasses.replace(guidance)] if dataclasses.is_dataclass(guidance) else []
    for again in copies:
        assert again == guidance and hash(again) == hash(guidance) and str(again) == str(guidance)
    assert copy.deepcopy(guidance.wrap(torch.nn.Identity())).guidance == guidance


def test_an_argument_is_replaced():
    assert dataclasses.replace(NegPrompt(7.5, evaluations=2), scale=3) == NegPrompt(3, evaluations=2)
    assert dataclasses.replace(Rescale("CFG(7.5)"), phi=0.5) == Rescale(CFG(7.5), 0.5)
    assert dataclasses.replace(Composable(cat=2), weights={"hat": 3}) == Composable(hat=3) == Composable({"hat": 3})
    renamed = APG(3).rename(prompt="style")
    assert dataclasses.replace(renamed, guidance=APG(5)) == APG(5).rename(prompt="style")
    assert NegPrompt(7.5, evaluations=2).evaluations == 2 and DNS(7.5).evaluations == 3


def test_lists_arrays_and_tensors_are_scales():
    assert CFG([1, 2.5]) == CFG((1, 2.5)) == CFG(np.array([1, 2.5])) == CFG(torch.tensor([1, 2.5]))
    assert [1, 2.5] * (p - u) == np.array([1, 2.5]) * (p - u) == (p - u) * torch.tensor([1, 2.5])
    assert CFG(np.array(7.5)) == CFG(7.5) and CFG(torch.rand(2, 1, 8, 8)).shape == (2, 1, 8, 8)
    assert (CFG([2.0]) + [1, 2] * (p - n)).shape == (2, 1, 1, 1) and CFG(7.5).shape == (1, 1, 1, 1)
    for scale in ([], ["7.5"], [[1.0]], np.ones((2, 2)), [math.nan], np.array([True]), object()):
        with pytest.raises(GuidanceError, match="a scale"):
            CFG(scale)
    with pytest.raises(GuidanceError, match=r"samples of different shapes: \(1, 1, 8, 8\), \(1, 1, 4, 4\)"):
        CFG(torch.ones(1, 1, 8, 8)) + torch.ones(1, 1, 4, 4) * (p - n)


def test_formulas_of_many_conditions_are_refused():
    with pytest.raises(GuidanceError, match="at most 256 conditions"):
        Formula({f"c{i}": Fraction(1, 1000) for i in range(1000)})
    start = time.perf_counter()
    for text in ("p" * 10**6, "+".join(f"ε(c{i})" for i in range(10**5))):
        with pytest.raises(GuidanceError, match="longer than 4000 characters"):
            parse(text)
    assert time.perf_counter() - start < 1


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
