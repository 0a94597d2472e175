"""Arms by name and of one's own, and which diffusion-negatives they need."""

from dataclasses import replace

import pytest

from dnp import DNPError
from dnp.experiments.arms import arms
from dnp.experiments.plan import Plan
from dnp.models.defaults import Defaults
from dnp.models.locate import EMBEDDED
from eval.prompts import Prompt

HOW = replace(Defaults.of(EMBEDDED), steps=2, dns_steps=2)
PROMPTS = tuple(map(Prompt, ("a red balloon", "a green car")))


def plan_of(names, own=()):
    return Plan("embedded", PROMPTS, tuple(arms(names, own, HOW)))


@pytest.mark.parametrize(
    ("names", "own", "scales", "says"),
    [
        (["best"], [], {}, "'best' is none of plain"),
        (["plain", "plain"], [], {}, "twice"),
        (["plain"], [("dns", "CFG(s)", "none")], {}, "cannot name a folder"),
        (["plain"], [("../x", "CFG(s)", "none")], {}, "cannot name a folder"),
        (["plain"], [("x", "u + s*(p - n)", "none")], {}, "needs a text for 'negative'"),
        (["plain"], [("x", "u + s*(p - n)", " ")], {}, "is empty: write none"),
        (["plain"], [], {"dnp": 3.0}, "none of the arms plain"),
    ],
)
def test_bad_arms_are_named(names, own, scales, says):
    with pytest.raises(DNPError, match=says):
        arms(names, own, HOW, scales)


def test_a_plan_without_arms():
    with pytest.raises(DNPError, match="there are no arms: give some of plain"):
        plan_of([])


@pytest.mark.parametrize("formula", ["CFG(s)", "NegPrompt(s, strength=0)"])
def test_what_a_formula_does_not_take_is_not_made(formula):
    plan = plan_of([], [("own", formula, "auto")])
    assert plan.negatives == {} and plan.arms[0].source[0] == "none"
    assert plan.settings()["arms"][0]["dns_arm"] is None


def test_diffusion_negatives_leave_other_arms_their_names():
    one = plan_of(["plain", "dnp"], [("dns2", "CFG(s)", "none"), ("dns-late", "u + s*(p - n)", "a apple")])
    two = replace(one.arms[1], name="other", dns="DNS(1.5)")
    plan = replace(one, arms=(*one.arms, two))
    assert list(plan.negatives.values()) == ["dns", "dns3"]
    found = {arm["name"]: arm["dns_arm"] for arm in plan.settings()["arms"]}
    assert found == {"plain": None, "dnp": "dns", "dns2": None, "dns-late": None, "other": "dns3"}
    assert [arm.source[0] for arm in plan.arms] == ["none", "auto", "none", "text", "auto"]
