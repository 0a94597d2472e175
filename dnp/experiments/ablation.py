"""`dnp ablate`: formulas crossed with what they may depend on, as the arms of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from dnp.experiments.arms import Arm, arms
from dnp.models.defaults import Defaults
from guidance import parse


def ablation(
    formulas: Sequence[str],
    how: Defaults,
    scales: Sequence[float],
    negatives: Sequence[str] = ("auto",),
    *,
    strengths: Sequence[float] = (),
    samplers: Sequence[str] = (),
    steps: Sequence[int] = (),
    dns: Sequence[str] = (),
    dns_steps: Sequence[int] = (),
) -> list[Arm]:
    """Formulas × negatives × scales × strengths × samplers × steps × formulas and steps of the diffusion-negatives,
    after the arm "plain", which all are compared with and which is sampled as the first of them are.

    Formulas are of s (the scale) and w (the strength). What does not depend on one of these is made once: a formula
    without w for all strengths, one without a negative prompt for all negatives, a negative that is no caption for all
    ways to make diffusion-negatives.

    Args:
        how: What is not listed.
        dns_steps: Without any, those of `how`, but never more than the picture's own.

    Raises:
        DNPError, GuidanceError, SamplerError: a formula, negative or sampler that cannot be used.
    """
    ways: list[dict[str, Any]] = [
        {"sampler": sampler, "steps": count, "dns": formula, "dns_steps": below}
        for sampler, count, formula in product(samplers or [how.sampler], steps or [how.steps], dns or [how.dns])
        for below in dns_steps or [min(count, how.dns_steps) if steps else how.dns_steps]
    ]
    baseline = replace(how, sampler=ways[0]["sampler"], steps=ways[0]["steps"])
    found = arms(["plain"], [], replace(baseline, scale=scales[0]) if len(scales) == 1 else baseline)
    known = set()
    for formula in formulas:
        # Not with a strength of 0, at which the negative drops out: that point is one of the negative's curve
        asks = "negative" in parse(formula, s=how.scale, w=how.strength or 1).names
        for negative in negatives if asks else ("none",):
            for way, strength, scale in product(ways, strengths or [how.strength], scales):
                name = f"{len(found):02d}@{scale:g}"
                row = (name, formula, negative)
                (arm,) = arms([], [row], replace(how, strength=strength, **way), {name: scale})
                walk = tuple(way.values())
                numbers = (arm.takes("s") and scale, arm.takes("w") and strength)
                key = (formula, negative, *numbers, *(walk if arm.of_caption else walk[:2]))
                if key not in known:
                    known.add(key)
                    found.append(arm)
    return found
