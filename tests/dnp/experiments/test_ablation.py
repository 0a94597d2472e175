"""Formulas crossed with what they depend on, and with nothing else."""

from dataclasses import replace

import pytest

from dnp.experiments.ablation import ablation
from dnp.models.defaults import Defaults
from guidance import GuidanceError

HOW = replace(Defaults(), scale=5.0, strength=2.0, steps=12, dns_steps=8)


def crossed(formulas, scales=(3.0, 5.0), negatives=("auto", "universal"), **lists):
    plain, *found = ablation(formulas, HOW, scales, negatives, **lists)
    assert (plain.name, plain.negative, plain.guidance) == ("plain", "none", "CFG(s)")
    assert [arm.name for arm in found] == [f"{i:02d}@{arm.scale:g}" for i, arm in enumerate(found, 1)]
    return plain, found


def test_a_formula_without_a_negative_is_made_once_for_all_negatives_and_strengths():
    plain, found = crossed(["CFG(s)"], strengths=[1.0, 2.0], dns=["DNS(1)", "DNS(3)"])
    assert [(arm.negative, arm.scale) for arm in found] == [("none", 3.0), ("none", 5.0)]
    assert plain.scale == 5.0


def test_a_formula_without_a_scale_is_made_once_for_all_scales():
    _, found = crossed(["u + 3*(p - u) - w*(n - u)"], strengths=[0.0, 1.0])
    assert [(arm.negative, arm.strength) for arm in found] == [
        ("auto", 0.0), ("auto", 1.0), ("universal", 0.0), ("universal", 1.0),
    ]  # fmt: skip


def test_only_captions_depend_on_how_diffusion_negatives_are_made():
    _, found = crossed(["NegPrompt(s, evaluations=3)"], [3.0], dns=["DNS(1)", "DNS(3)"], dns_steps=[4, 6])
    ways = [(arm.negative, arm.dns, arm.dns_sampling.steps) for arm in found]
    assert ways[:4] == [("auto", dns, steps) for dns in ("DNS(1)", "DNS(3)") for steps in (4, 6)]
    assert [way[0] for way in ways[4:]] == ["universal"]


def test_diffusion_negatives_take_no_more_steps_than_the_picture_unless_asked_to():
    lists = {"samplers": ["euler", "ddim"], "steps": [4, 16]}
    plain, found = crossed(["NegPrompt(s)"], [3.0], ["auto"], **lists)
    walks = [(arm.sampling.sampler, arm.sampling.steps, arm.dns_sampling.steps) for arm in found]
    assert walks == [("euler", 4, 4), ("euler", 16, 8), ("ddim", 4, 4), ("ddim", 16, 8)]
    assert (plain.sampling.sampler, plain.sampling.steps, plain.scale) == ("euler", 4, 3.0)
    _, found = crossed(["NegPrompt(s)"], [3.0], ["auto"], **lists, dns_steps=[6])
    assert {arm.dns_sampling.steps for arm in found} == {6}


def test_a_formula_that_is_none():
    with pytest.raises(GuidanceError, match="sum to"):
        ablation(["u + p"], HOW, [3.0])
