r"""Formulas as text, LaTeX and JSON."""

import json
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidance import CFG, DNS, Formula, GuidanceError, NegPrompt, from_json, parse, prediction, strategies

p, n, u = prediction("prompt"), prediction("negative"), prediction("empty")
numbers = st.one_of(
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.fractions(-100, 100),
    st.sampled_from([1, -1, 0.1, 1e22, 5e-324, Fraction(1, 3)]),
)
names = st.sampled_from(["prompt", "negative", "empty", "background", "style_2", "ж"])
few = settings(derandomize=True, max_examples=40, deadline=None)


@few
@given(weights=st.dictionaries(names, numbers, max_size=4), last=names)
def test_every_formula_reads_back(weights, last):
    weights.pop(last, None)
    rest = 1 - sum(Fraction(str(weight)) for weight in weights.values())
    formula = Formula({**weights, last: rest})
    if len(str(formula)) < 4000:
        assert parse(str(formula)) == formula == eval(repr(formula), {"parse": parse})
        assert from_json(json.loads(json.dumps(formula.to_json()))) == formula


@few
@given(s=numbers, w=numbers)
def test_every_strategy_reads_back_as_itself(s, w):
    for strategy in (
        CFG(s),
        DNS(s),
        DNS(s, evaluations=2),
        NegPrompt(s),
        NegPrompt(s, evaluations=2),
        NegPrompt(s, strength=w),
    ):
        for again in (eval(repr(strategy)), from_json(json.loads(json.dumps(strategy.to_json())))):
            assert type(again) is type(strategy) and again == strategy and repr(again) == repr(strategy)


def test_how_formulas_print():
    assert str(DNS(7.5)) == "ε(empty) + 7.5 (ε(empty) − ε(prompt))"
    assert str(NegPrompt(7.5, evaluations=2)) == "ε(negative) + 7.5 (ε(prompt) − ε(negative))"
    assert str(NegPrompt(7.5)) == "ε(empty) + 7.5 (ε(prompt) − ε(negative))"
    assert str(NegPrompt(7.5, strength=1)) == ("ε(empty) + 7.5 (ε(prompt) − ε(empty)) − (ε(negative) − ε(empty))")
    assert str(CFG(1)) == "ε(prompt)" and str(CFG(2)) == "ε(empty) + 2 (ε(prompt) − ε(empty))"
    assert str(p - n) == "(ε(prompt) − ε(negative))" and str((n - p) * 2) == "2 (ε(negative) − ε(prompt))"
    assert repr(DNS(7.5)) == "DNS(7.5)" and repr(CFG(-7)) == "CFG(-7)"
    assert repr(NegPrompt(7.5, strength=0.1)) == "NegPrompt(7.5, strength=0.1)"
    assert repr(u + 2 * (p - n)) == "parse('ε(empty) + 2 (ε(prompt) − ε(negative))')"
    assert str(u + (p - u) / 3) == "ε(empty) + 1/3 (ε(prompt) − ε(empty))"
    assert str(CFG(1e300)) == "ε(empty) + 1e300 (ε(prompt) − ε(empty))"
    s = torch.tensor([1.0, 2.0])
    assert str(CFG(s)) == "ε(empty) + s (ε(prompt) − ε(empty))"
    assert str(NegPrompt(s, strength=abs)) == ("ε(empty) + s (ε(prompt) − ε(empty)) − abs (ε(negative) − ε(empty))")
    assert repr(NegPrompt(lambda sigma: 1, strength=s)).startswith("parse('NegPrompt(s, strength=s2)', s=")


def test_latex():
    e = r"\epsilon_\theta(z_t, "
    assert DNS(7.5).latex() == rf"{e}\varnothing) + 7.5\,({e}\varnothing) - {e}p))"
    assert (u + (prediction("a_b") - u) / 3)._repr_latex_() == (
        rf"${e}\varnothing) + \tfrac{{1}}{{3}}\,({e}\mathrm{{a\_b}}) - {e}\varnothing))$"
    )
    assert r"5 \cdot 10^{-324}" in CFG(5e-324).latex() and (p - n).latex().startswith("(")


def test_the_ways_to_write_one_formula():
    for text in (
        "u + 7.5*(p - n)",
        "empty+7.5(prompt−negative)",
        "ε(∅) + 7.5·(ε(p) − ε(n))",
        "u + 15/2 (eps(prompt) - ϵ(negative))",
        "u - 7.5 n + 7.5p",
        "u + s (p - n)",
        "u + 2s(p-n) - s(p-n)",
        "NegPrompt(s)",
        "NegPrompt(7.5, strength=s)",
        "CFG(s) - s*(n - u)",
    ):
        assert parse(text, s=7.5) == u + 7.5 * (p - n), text
    assert parse("8.5*u - 7.5*p") == DNS(7.5) and parse("p + n - u") == u + (p - u) + (n - u)
    assert parse("CFG(s) + 2*(p - n)", s=3) == CFG(3) + 2 * (p - n)
    assert isinstance(parse("NegPrompt(7.5, strength=1)"), NegPrompt)
    for text in ("uncond + 7.5 (cond - uncond)", "e + 7.5*(c - e)", "cfg(7.5)", "Cfg(7.5)", "Empty + 7.5 (P - U)"):
        assert parse(text) == CFG(7.5), text
    assert parse("neg_prompt(3, evaluations=2)") == parse("negprompt(3, 2)") == NegPrompt(3, 2)
    assert parse("u + c*(p - u)", c=7.5) == CFG(7.5) and parse("ε(c)").names == ("c",)
    assert parse("0.1234567890123456789*(p - u) + u") == CFG(Fraction("0.1234567890123456789"))
    assert parse("ε(background)").names == ("background",)


def test_scales_in_text_may_be_tensors_and_functions():
    def fade(sigma):
        return sigma

    assert parse("u + fade*(p - u)", fade=fade) == CFG(fade)
    assert str(parse("NegPrompt(2 fade, evaluations=2)", fade=fade)) == (
        "ε(negative) + 2 fade (ε(prompt) − ε(negative))"
    )
    per_sample = torch.tensor([1.5, 7.5])
    again = from_json(json.loads(json.dumps(parse("NegPrompt(w, strength=w)", w=per_sample).to_json())))
    assert isinstance(again, NegPrompt) and str(again) == "ε(empty) + w (ε(prompt) − ε(negative))"
    assert again.to_json() == {"guidance": "NegPrompt(w, strength=w)", "values": {"w": [1.5, 7.5]}}
    assert from_json({"guidance": "CFG(s)", "values": {"s": 7.5}}) == CFG(7.5)
    mask = CFG(torch.rand(1, 1, 2, 2))
    assert from_json(json.loads(json.dumps(mask.to_json()))) == mask
    with pytest.raises(GuidanceError, match="the scale fade of .* is a function and has no JSON"):
        CFG(fade).to_json()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2*p", r"the weights sum to 2, not to 1 \(prompt: 2\)"),
        ("p + n", "sum to 2"),
        ("p - n", "sum to 0"),
        ("u + q*(p - n)", r"'q' is unknown.*ε\(name\).*parse\(text, q=7.5\)"),
        ("CGF(7.5)", "'CGF' is unknown: did you mean CFG?"),
        ("u + 7.5*(promt - u)", "'promt' is unknown: did you mean prompt?"),
        ("Rescale(p, 0.7, 'v')('v')", "no place"),
        ("foo(7.5)", "'foo' is unknown.*strategies are .*CFG, .*NegPrompt"),
        ("CFG", "needs its argument"),
        ("CFG()", "CFG takes scale"),
        ("CFG(1, scale=2)", "CFG takes scale"),
        ("DNS(1, strength=2)", "DNS takes scale, evaluations"),
        ("DNS(1, evaluations=5)", "not 5"),
        ("CFG(*s)", "no place"),
        ("CFG(p)", "a scale is"),
        ("7", "a number, not a guidance"),
        ("u + 1", "cannot be added"),
        ("p*n", "cannot be multiplied"),
        ("p/0", "other than zero"),
        ("u + (p - n)/(1 - 1)", "other than zero"),
        ("p**2", "cannot read"),
        ("p.real", "'.' has no place"),
        ("'p'", "has no place"),
        ("[p]", "has no place"),
        ("p < n", "has no place"),
        ("p; n", "has no place"),
        ("p, n", "has no place"),
        ("p if u else n", "cannot read"),
        ("p and n", "cannot read"),
        ("lambda: p", "no place"),
        ("True*p", "'True' has no place"),
        ("__import__('os')", "'__import__' is unknown"),
        ("ε(p, n)", "one condition"),
        ("ε(class)", "cannot read"),
        ("", "cannot read"),
        ("(" * 300 + "p", "cannot read"),
        ("-" * 3990 + "p", "cannot read"),
        ("p" * 4001, "longer than 4000"),
        (None, "a formula is a text"),
    ],
)
def test_what_is_no_formula_is_refused_in_one_line(text, why):
    with pytest.raises(GuidanceError, match=why) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_more_that_is_refused():
    with pytest.raises(GuidanceError, match="p has a meaning of its own"):
        parse("u + p*(n - u)", p=3)
    wrong_values = [{"guidance": "CFG(s)", "values": values} for values in ({"s": "x"}, {"s": ["x"]}, 3)]
    for wrong in ("CFG(7.5)", {}, {"guidance": "p", "scale": 3}, *wrong_values):
        with pytest.raises(GuidanceError, match="JSON"):
            from_json(wrong)
    assert {"CFG", "DNS", "NegPrompt", "Renamed"} <= strategies().keys() and "Added" not in strategies()
