"""What `run.json` says of the arms: names that a person can read, the numbers that they differ in, what they cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from eval.report.results import Results

_NUMBERED = re.compile(r"\d+@")  # how `ablate` names its arms: 01@7.5
_NUMBER = re.compile(r"(?<![\w.])(?<!evaluations=)\d+\.?\d*")
_DNS_STEPS = "steps of the diffusion-negative"
_SCALES = (("scale s", "scale", "s"), ("strength w", "strength", "w"))

Series = list[tuple[float, str]]
"""A number and the arm that has it, ascending."""


def described(found: Results) -> list[dict[str, Any]]:
    """The arms that were scored as `run.json` describes them, where it does."""
    abouts = found.settings.get("arms", [])
    return [about for about in abouts if _whole(about) and about["name"] in found.arms]


def _whole(about: Any) -> bool:
    """Whether an entry of `run.json` is one of an arm: the file may be another program's."""
    types: dict[str, Any] = {
        "name": str,
        "guidance": str,
        "negative": str,
        "dns": str,
        "sampling": dict,
        "dns_sampling": dict,
    }
    types |= {"scale": (int, float), "strength": (int, float)}
    return (
        isinstance(about, dict)
        and all(isinstance(about.get(key), kind) for key, kind in types.items())
        and all({"sampler", "steps"} <= set(about[key]) for key in ("sampling", "dns_sampling"))
    )


def labels(found: Results) -> dict[str, str]:
    """Arm → its name, or where that is but a number, its formula at its scale and what else sets it apart."""
    numbered = [about for about in described(found) if _NUMBERED.match(about["name"])]
    rows = []
    for about in numbered:
        formula = about["guidance"]
        for _, key, letter in _SCALES:
            formula = re.sub(rf"\b{letter}\b(?!\s*=)", f"{about[key]:g}", formula)
        facts = _facts(about)
        rows.append((formula, *(facts[key] for key in ("negative", "sampler", "steps", "dns", _DNS_STEPS))))
    names = _names(rows) if rows else []
    shown = {
        about["name"]: name if names.count(name) == 1 else f"{name} ({about['name']})"
        for about, name in zip(numbered, names, strict=True)
    }
    return {arm: shown.get(arm, arm) for arm in dict.fromkeys(r["arm"] for r in found.records)}


def series(found: Results) -> dict[str, dict[str, Series]]:
    """The arms that differ in one number alone: what the number is → name of the series → (number, arm), ascending.

    The numbers are the scale, the strength, the steps, the steps of the diffusion-negatives, and any that a formula
    has itself, such as the noise level of a StepScale: it is x in the name of its series.
    """
    axes: dict[str, dict[tuple[str, ...], dict[float, str]]] = {}
    for about in described(found):
        for axis, number, same in _numbers(about):
            axes.setdefault(axis, {}).setdefault(tuple(same.values()), {}).setdefault(number, about["name"])
    named = {}
    for axis, groups in axes.items():
        if lines := {same: sorted(arms.items()) for same, arms in groups.items() if len(arms) > 1}:
            named[axis] = dict(zip(_names(list(lines)), lines.values(), strict=True))
    return named


def _facts(about: dict[str, Any]) -> dict[str, str]:
    """An arm's settings in words."""
    walk = about["sampling"]
    facts = {"formula": about["guidance"], "negative": about["negative"].replace("none", "")}
    facts |= {"sampler": walk["sampler"], "scale s": "", "strength w": "", "steps": f"{walk['steps']} steps"}
    for axis, key, letter in _SCALES:
        if re.search(rf"\b{letter}\b", about["guidance"]):
            facts[axis] = f"{letter} = {about[key]:g}"
    captioned = about.get("dns_arm") is not None
    facts["dns"] = about["dns"] if captioned else ""
    facts[_DNS_STEPS] = f"{about['dns_sampling']['steps']} DNS steps" if captioned else ""
    return facts


def _numbers(about: dict[str, Any]) -> Iterator[tuple[str, float, dict[str, str]]]:
    """Each number in an arm's settings: what it is, its value, and all the rest in words."""
    facts = _facts(about)
    numbers = {"steps": about["sampling"]["steps"]}
    numbers |= {axis: about[key] for axis, key, _ in _SCALES if facts[axis]}
    if facts["dns"]:
        numbers[_DNS_STEPS] = about["dns_sampling"]["steps"]
    for axis, number in numbers.items():
        yield axis, number, {**facts, axis: ""}
    for axis, fact in (("x in the formula", "formula"), ("x in the formula of the diffusion-negative", "dns")):
        for m in _NUMBER.finditer(facts[fact]):
            others = {key: value for key, value in facts.items() if key != fact}
            yield axis, float(m[0]), {fact: f"{m.string[: m.start()]}x{m.string[m.end() :]}", **others}


def _names(rows: list[tuple[str, ...]]) -> list[str]:
    """The first of each, a formula, and what differs among those that have it; among all, if that tells too little."""
    columns = [set(column) for column in zip(*rows, strict=True)]
    names: list[str] = []
    for nothing in ({""}, set()):
        differ = [place for place, column in enumerate(columns) if not place or len(column - nothing) > 1]
        names = [", ".join(row[place] for place in differ if row[place]) for row in rows]
        if len(set(names)) == len(names):
            break
    return names


def costs(found: Results) -> dict[str, dict[str, float]]:
    """Evaluations and seconds of an arm's picture, its diffusion-negative counted where it uses its caption."""
    sums: dict[str, list[tuple[float, float]]] = {}
    for r in found.records:
        sums.setdefault(r["arm"], []).append((r.get("evaluations") or np.nan, r.get("seconds") or np.nan))
    means: dict[str, Any] = {arm: np.mean(values, 0) for arm, values in sums.items()}
    for about in described(found):
        if (negative := about.get("dns_arm")) in means:
            means[about["name"]] = means[about["name"]] + means[negative]
    return {arm: {"evaluations": float(value[0]), "seconds": float(value[1])} for arm, value in means.items()}
