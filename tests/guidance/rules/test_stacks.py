r"""Any guidance in any stack: text, names and cost; and where diffusion-negative sampling ends."""

import copy
import json
import pickle
from pathlib import Path

import k_diffusion as K
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import guidance
from guidance import (
    ANSWER,
    APG,
    CFG,
    DNS,
    Autoguidance,
    CFGZeroStar,
    Composable,
    ContrastiveCFG,
    CosineScale,
    DualCFG,
    DynamicNegative,
    DynamicThreshold,
    GuidanceError,
    ImproperNegative,
    Interval,
    LinearScale,
    NegPrompt,
    PerpNeg,
    Renamed,
    Rescale,
    StepScale,
    from_json,
    parse,
    prediction,
    strategies,
)

p, n, u = prediction("prompt"), prediction("negative"), prediction("empty")
few = settings(derandomize=True, max_examples=30, deadline=None)
SIGMAS = [10.0, 3.0, 1.0, 0.3, 0.0]

numbers = st.sampled_from([0, 1, 7.5, -2, 0.1])
levels = st.sampled_from([0.3, 1, 2, 5])
schedules = st.builds(StepScale, numbers, numbers, levels) | st.builds(
    lambda kind, a, b, low: kind(a, b, low * 4, low),
    st.sampled_from([LinearScale, CosineScale]),
    numbers,
    numbers,
    levels,
)
per_sample = st.lists(numbers, min_size=2, max_size=2).map(torch.tensor).map(torch.Tensor.double)
scales = numbers | schedules | per_sample
rules = st.one_of(
    st.builds(CFG, scales),
    st.builds(DNS, scales, st.sampled_from([2, 3])),
    st.builds(NegPrompt, scales, st.none(), scales),
    st.builds(Composable, cat=scales, prompt=scales),
    st.builds(DualCFG, scales, scales),
    st.builds(Autoguidance, scales),
    st.builds(PerpNeg, scales, scales),
    st.builds(APG, scales, scales, st.none() | levels, st.sampled_from([0, -0.5])),
    st.builds(CFGZeroStar, scales, st.none() | levels),
    st.builds(ContrastiveCFG, scales, st.none() | scales),
    st.builds(DynamicNegative, scales, scales),
    st.builds(ImproperNegative, st.none() | st.just(3)),
    st.builds(ANSWER, scales, st.sampled_from([1, 3]), st.none() | scales, st.just(0) | levels),
)
directions = st.sampled_from([2 * (p - n), (u - p) / 3, StepScale(0, 2, 1) * (prediction("cat") - u)])
stacks = st.recursive(
    rules,
    lambda inner: st.one_of(
        st.builds(Rescale, inner, scales),
        st.builds(DynamicThreshold, inner, st.sampled_from([0.9, 0.995])),
        st.builds(Interval, inner, st.just(0) | st.just(0.3), st.none() | levels),
        st.builds(lambda inner, direction: inner + direction, inner, directions),
        st.builds(lambda inner: inner.rename(prompt="empty", negative="prompt"), inner),
    ),
    max_leaves=3,
)


def denoiser(x, sigma, cond):
    return cond.view(-1, 1, 1, 1) + torch.sin(x) / (1 + sigma.view(-1, 1, 1, 1))


def conditions(groups):
    names = ("prompt", "negative", "empty", "middle", "weak", "cat")
    return {name: {"cond": torch.full((2,), float(group))} for name, group in zip(names, groups, strict=True)}


def needed(stack, given):
    return {name: given[name] for name in stack.names}


def run(model, given):
    for level in SIGMAS[:-1]:
        x = torch.linspace(-2, 3, 24).view(2, 3, 2, 2) * (1 + level)
        out = model(x, torch.full((2,), level), **given)
    return out


@few
@given(stack=stacks, groups=st.lists(st.integers(0, 2), min_size=6, max_size=6) | st.just(range(6)))
def test_counts_are_what_was_announced(stack, groups):
    model = stack.wrap(denoiser)
    given_ = needed(stack, conditions(groups))
    run(model, given_)
    assert model.evaluations == stack.cost(SIGMAS, **given_) <= stack.cost(SIGMAS)
    if len(set(groups)) == 6:
        assert model.evaluations == stack.cost(torch.tensor(SIGMAS))


@few
@given(stack=stacks)
def test_every_stack_reads_back(stack):
    text, values = stack.source()
    again = parse(text, **values)
    assert type(again) is type(stack) and again == stack and hash(again) == hash(stack)
    assert parse(str(stack), **values) == stack and again.source()[0] == text
    assert values or eval(repr(stack), dict(vars(guidance))) == stack
    carried = from_json(json.loads(json.dumps(stack.to_json())))
    assert carried.to_json() == stack.to_json() and (values or carried == stack)
    assert stack._repr_latex_() == f"${again.latex()}$"
    assert pickle.loads(pickle.dumps(carried)).to_json() == copy.deepcopy(stack).to_json() == stack.to_json()


@few
@given(stack=stacks)
def test_renaming_is_the_same_guidance_of_other_conditions(stack):
    given_ = conditions(range(6))
    swapped = stack.rename(prompt="negative", negative="cat")
    moved = given_ | {"prompt": given_["negative"], "negative": given_["cat"]}
    expected = run(stack.wrap(denoiser), needed(stack, moved))
    torch.testing.assert_close(run(swapped.wrap(denoiser), needed(swapped, given_)), expected, atol=1e-4, rtol=1e-4)
    assert set(swapped.names) <= set(given_)
    back = {"negative": "prompt", "cat": "negative"}
    if "cat" not in stack.names and "negative" in stack.names:
        assert swapped.rename(**back) == stack


def test_how_rules_print():
    stack = Rescale(Interval(NegPrompt(7.5), 0.3, 5), 0.7)
    assert parse("Rescale(Interval(NegPrompt(7.5), 0.3, 5), 0.7)") == stack
    assert parse("Rescale(Interval(u + 7.5*(p - n), 0.3, 5))") == stack
    assert str(stack) == repr(stack) == "Rescale(Interval(NegPrompt(7.5), low=0.3, high=5), phi=0.7)"
    added = "ImproperNegative() + 2 (ε(prompt) − ε(empty)) − 3 (ε(negative) − ε(empty))"
    assert str(ImproperNegative() + 2 * (p - n) - (n - u)) == added
    assert str(CFGZeroStar(3) - 2 * (p - n)) == "CFGZeroStar(3) + 2 (ε(negative) − ε(prompt))"
    assert str(CFGZeroStar(3).rename(prompt="style")) == "Renamed(CFGZeroStar(3), prompt=ε(style))"
    assert APG(3).rename(prompt="style") == Renamed(APG(3), prompt=prediction("style"))
    assert APG(3).rename(negative="style") == APG(3) and APG(3).rename(prompt="style").rename(style="prompt") == APG(3)
    assert str(CFG(StepScale(0, 7.5, 3))) == "ε(empty) + StepScale(0, 7.5, 3) (ε(prompt) − ε(empty))"
    assert repr(Composable(cat=7.5, p=2)) == "Composable(cat=7.5, prompt=2)"
    assert repr(APG(7.5, eta=0.0)) == "APG(7.5, momentum=0)"
    assert APG(7.5) != APG(7.5, eta=0.1) and APG(7.5) != PerpNeg(7.5)
    assert PerpNeg(3).latex() == r"\operatorname{PerpNeg}\left(3, \mathrm{strength} = 1\right)"
    assert repr(PerpNeg(7.5)) == "PerpNeg(7.5, strength=1)" and repr(Rescale(CFG(7.5))) == "Rescale(CFG(7.5), phi=0.7)"
    rescaled = Rescale("cfg(7.5)", space="v")
    assert repr(rescaled) == "Rescale(CFG(7.5), phi=0.7, space='v')" and eval(repr(rescaled)) == rescaled
    assert parse("rescale(u + 7.5 (p - u), space='v')") == parse(str(rescaled)) == rescaled != Rescale(CFG(7.5))
    assert Rescale(DNS(2), 0.5).latex() == (
        r"\operatorname{Rescale}\left(\epsilon_\theta(z_t, \varnothing) + 2\,(\epsilon_\theta(z_t, \varnothing) - "
        r"\epsilon_\theta(z_t, p)), \mathrm{phi} = 0.5\right)"
    )
    s = torch.tensor([1.0, 2.0])
    assert str(Rescale(CFG(s), s.clone())) == "Rescale(CFG(s), phi=s2)"
    assert CFG(StepScale(0, 0.5, 3)) == CFG(parse("CFG(StepScale(0, 1/2, 3.0))").scale) != CFG(StepScale(0, 1, 3))
    assert NegPrompt(StepScale(0, 2, 1), strength=StepScale(0, 2, 1)) == u + StepScale(0, 2, 1) * (p - n)
    assert APG(3) + (p - n) - (p - n) == APG(3)
    with pytest.raises(GuidanceError, match="a function and has no JSON"):
        Rescale(APG(abs)).to_json()
    made = {"CFG", "APG", "ANSWER", "Renamed", "Interval", "ImproperNegative", "Composable"}
    assert made <= strategies().keys() <= set(guidance.__all__)


@pytest.mark.parametrize(
    ("stack", "cost"),
    [
        (PerpNeg(7.5, 0), 8),
        (PerpNeg(0), 4),
        (PerpNeg(1, 0), 4),
        (APG(1), 4),
        (APG(7.5), 8),
        (CFGZeroStar(3, zero=3), 4),
        (CFGZeroStar(1), 4),
        (ContrastiveCFG(3), 12),
        (ContrastiveCFG(3, strength=0), 8),
        (DynamicNegative(0), 8),
        (DynamicNegative(3), 12),
        (DynamicNegative(3, strength=0), 8),
        (ANSWER(3), 8),
        (ANSWER(3, steps=4, above=2), 20),
        (Interval(NegPrompt(7.5), 0.5, 5), 8),
        (Rescale(Interval(NegPrompt(7.5), 0.5, 5), 0.7), 8),
        (Rescale(CFG(7.5)), 8),
        (Rescale(CFG(0)), 8),
        (Rescale(CFG(0), 0), 4),
        (DynamicThreshold(CFG(7.5)) + 2 * (n - p), 12),
        (NegPrompt(7.5, strength=StepScale(0, 7.5, 1)), 10),
        (DNS(LinearScale(2, 0, 3, 1)), 6),
    ],
    ids=str,
)
def test_what_a_run_costs(stack, cost):
    model = stack.wrap(denoiser)
    run(model, needed(stack, conditions(range(6))))
    assert model.evaluations == stack.cost(SIGMAS) == cost


STD, MEANS = 0.2, torch.tensor([[-2.0, 0.0], [1.0, 1.7], [1.0, -1.7]])


def mixture(x, sigma, weights):
    r"""The exact denoiser of a mixture of Gaussians."""
    variance = STD**2 + sigma[:, None] ** 2
    distances = (x[:, None] - MEANS).square().sum(2)
    shares = (weights.log() - distances / (2 * variance)).softmax(1)
    return (STD**2 * x + sigma[:, None] ** 2 * shares @ MEANS) / variance


def test_diffusion_negatives_stay_near_the_data_and_improper_ones_do_not():
    x = 20 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    sigmas = K.sampling.get_sigmas_karras(40, 0.02, 20)

    def ends(stack, others=0.05):
        shares = {"prompt": [1 - 2 * others, others, others], "empty": [1 / 3, 1 / 3, 1 / 3]}
        given_ = {name: {"weights": torch.tensor([share])} for name, share in shares.items()}
        found = K.sampling.sample_euler(stack.wrap(mixture), x, sigmas, extra_args=given_, disable=True)
        distances = (found[:, None] - MEANS).norm(dim=2)
        return (distances.argmin(1) == 0).float().mean(), distances.amin(1)

    prompted, far = ends(u)
    assert 0.2 < prompted < 0.5 and far.max() < 5 * STD
    prompted, far = ends(CFG(2))
    assert prompted > 0.95 and far.max() < 5 * STD
    for s in (1, 2):
        prompted, far = ends(DNS(s))
        assert prompted < 0.05 and far.max() < 5 * STD
        # Of a prompt that excludes all else, u^(1 + s) / p^s is a Gaussian around (1 + s) m - s m_p: far, but proper.
        prompted, far = ends(DNS(s), others=0.0)
        shift = s * (MEANS[1] - MEANS[0]).norm()
        assert prompted < 0.05 and (far - shift).abs().median() < 2 * STD
    _, far = ends(ImproperNegative())
    assert far.min() > 100 * STD
    prompted, far = ends(DynamicNegative(0, prior=1 / 3, temperature=1).rename(negative="prompt"))
    assert prompted < 0.2 and far.quantile(0.9) < 5 * STD


def test_the_table_of_rules_has_them_all():
    table = (Path(__file__).parents[3] / "docs" / "rules.md").read_text()
    assert [name for name in strategies().keys() - {"Renamed"} if f"`{name}(" not in table] == []
