"""The choice of scales: each arm takes its best on prompts that the comparison does not use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dnp.experiments.plan import Place, Plan
from dnp.experiments.scoring import needs
from dnp.experiments.sweep import sweep
from dnp.experiments.workers import Do
from eval.manifest import write_whole
from eval.metrics.registry import defaults, make
from eval.prompts import Prompt, prompt_set
from eval.scores import read_scores, score
from eval.statistics import mean


def split(name: str, per_category: int | None = None, held_out: int = 0) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts of a set to compare on, and those to choose on, `held_out` of each category: none is in both.

    Raises:
        ValueError: no such set, or none that holds prompts out.
    """
    chosen_on = prompt_set(name, held_out, held_out=True) if held_out else []
    return [prompt for prompt in prompt_set(name, per_category) if prompt not in chosen_on], chosen_on


def choose_scales(
    plan: Plan,
    scales: Sequence[float],
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    out: Path,
    where: Place,
    given: set[str],
    do: Do | None = None,
) -> Plan:
    """The plan with each arm, but those `given` a scale, at its best: of the scales tried, the one with the best mean
    on held-out prompts (of both things right by the world's judge if there is one, else of CLIP's full-prompt cosine).

    The pictures are kept in `choose/`, a folder like any other run's, and what was found in `scales.json`.

    Raises:
        DNPError, GuidanceError, SamplerError, CaptionError: what `sweep` raises.
    """
    arms = [arm for arm in plan.arms if arm.name not in given]
    tried = [replace(arm, name=f"{arm.name}@{scale:g}", scale=scale) for arm in arms for scale in scales]
    folder = out / "choose"
    trial = replace(plan, prompts=tuple(prompts), arms=tuple(tried))
    sweep(trial, seeds, folder, where, "choosing", do)
    there = needs(plan.model)
    (metric,) = make(defaults(there)[:1], there)
    score(folder, [metric], label=None)
    short = next(iter(metric.kinds))
    scored: dict[str, list[dict[str, str]]] = {}
    for row in read_scores(folder):
        if row["metric"] == short:
            scored.setdefault(row["arm"], []).append(row)
    found: dict[str, Any] = {}
    for arm in arms:
        rows = []
        for scale in scales:
            lines = scored[f"{arm.name}@{scale:g}"]
            factors = {key: [line[key] for line in lines] for key in ("prompt", "seed")}
            about = mean([float(line["value"]) for line in lines], factors, metric.kinds[short].binary)
            ends = {} if about.too_few else {"low": about.low, "high": about.high}
            rows.append({"scale": scale, "value": about.mean, **ends})
        found[arm.name] = {"chosen": max(rows, key=lambda row: row["value"])["scale"], "tried": rows}
    written = {"metric": short, "name": metric.name, "prompts": len(prompts), "seeds": len(seeds), "arms": found}
    write_whole(out / "scales.json", (json.dumps(written, indent=2) + "\n").encode())
    return replace(
        plan,
        arms=tuple(replace(arm, scale=found[arm.name]["chosen"]) if arm.name in found else arm for arm in plan.arms),
    )
