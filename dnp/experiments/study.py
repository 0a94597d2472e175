"""What a command asks for, as a plan: arms at their scales on a prompt set, each scale given or chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from dnp.errors import DNPError
from dnp.experiments.arms import Arm, arms
from dnp.experiments.plan import Place, Plan
from dnp.experiments.sweep import sweep
from dnp.models.defaults import Defaults
from dnp.models.locate import locate
from eval.manifest import read_manifest, write_whole
from eval.metrics.registry import Given, defaults, make
from eval.prompts import PROMPT_SETS, Prompt, prompt_set
from eval.report import report
from eval.scores import read_scores, score
from eval.statistics import mean
from guidance import parse


def sweep_command(
    out: Path,
    prompts: str,
    seeds: Sequence[int],
    *,
    names: Sequence[str],
    own: Sequence[tuple[str, str, str]] = (),
    per_category: int | None = None,
    scales: Sequence[str] = (),
    choose: Sequence[float] = (),
    choose_seeds: int = 4,
    choose_prompts: int = 10,
    model: str = "embedded",
    captioner: str | None = None,
    batch: int = 25,
    device: str | None = None,
    dtype: str | None = None,
    where: Place | None = None,
    say: Callable[[str], None] = print,
    **options: Any,
) -> None:
    """`dnp sweep`: choose the scales where asked to, then make what is missing.

    Args:
        scales: "7.5" for all arms, "dnp=5" for one.
        choose: Scales of which each arm without one of its own takes the best, measured on held-out prompts.
        options: Of `Defaults`, those that are not to be the model's own; None leaves one alone.

    Raises:
        DNPError, GuidanceError, SamplerError, CaptionError, ValueError: what a person can mend.
    """
    where = where or Place()
    how = Defaults.of(locate(model)).but(**options)
    own_scales, common = _scales(scales)
    if common is not None:
        how = replace(how, scale=common)
        if choose:
            raise DNPError(f"--scale {common:g} gives all arms their scale: leave --choose out, or give ARM=SCALE")
    chosen_arms = arms(names, own, how, own_scales)
    asked = prompt_set(prompts, per_category)
    held_out = prompt_set(prompts, choose_prompts, held_out=True) if choose else []
    plan = Plan(
        model,
        tuple(prompt for prompt in asked if prompt not in held_out),  # where all were asked for, some are to choose on
        tuple(chosen_arms),
        _others(prompts, chosen_arms),
        captioner,
        batch,
        device,
        dtype,
    )
    if choose:
        plan = chosen(plan, choose, held_out, range(choose_seeds), out, where, set(own_scales))
    ledger = sweep(plan, seeds, out, where)
    say(f"{len(ledger.records)} pictures in {out}: dnp score {out}; dnp report {out}")


def ablate_command(
    out: Path,
    formulas: Sequence[str],
    prompts: str,
    seeds: Sequence[int],
    *,
    scales: Sequence[float],
    negatives: Sequence[str] = ("auto",),
    strengths: Sequence[float] = (),
    samplers: Sequence[str] = (),
    steps: Sequence[int] = (),
    dns: Sequence[str] = (),
    dns_steps: Sequence[int] = (),
    per_category: int | None = None,
    model: str = "embedded",
    batch: int = 25,
    device: str | None = None,
    dtype: str | None = None,
    where: Place | None = None,
    say: Callable[[str], None] = print,
    **options: Any,
) -> None:
    """`dnp ablate`: formulas × negatives × scales × strengths × samplers × steps × formulas and steps of the
    diffusion-negatives as arms, their pictures, scores and report.

    Formulas are of s (the scale) and w (the strength). What does not depend on one of these is made once: a formula
    without w for all strengths, one without a negative prompt for all negatives, a negative that is no caption for all
    ways to make diffusion-negatives.

    Raises:
        DNPError, GuidanceError, SamplerError, CaptionError, ValueError: what a person can mend.
    """
    how = Defaults.of(locate(model)).but(**options)
    crossed = (samplers or [how.sampler], steps or [how.steps], dns or [how.dns], dns_steps or [how.dns_steps])
    # What all are compared with walks as the first of them do
    baseline = replace(how, sampler=crossed[0][0], steps=crossed[1][0])
    found = arms(["plain"], [], replace(baseline, scale=scales[0]) if len(scales) == 1 else baseline)
    known = set()
    for formula in formulas:
        # Not of a strength of 0, at which the negative drops out: that point is one of the negative's curve.
        asks = "negative" in parse(formula, s=how.scale, w=how.strength or 1).names
        for negative in negatives if asks else ("none",):
            for *walk, strength, scale in product(*crossed, strengths or [how.strength], scales):
                settings: dict[str, Any] = dict(zip(("sampler", "steps", "dns", "dns_steps"), walk, strict=True))
                name = f"{len(found):02d}@{scale:g}"
                row = (name, formula, negative)
                (arm,) = arms([], [row], replace(how, strength=strength, **settings), {name: scale})
                numbers = (arm.takes("s") and scale, arm.takes("w") and strength)
                key = (formula, negative, *numbers, *(walk if arm.of_caption else walk[:2]))
                if key not in known:
                    known.add(key)
                    found.append(arm)
    plan = Plan(
        model,
        tuple(prompt_set(prompts, per_category)),
        tuple(found),
        _others(prompts, found),
        None,
        batch,
        device,
        dtype,
    )
    sweep(plan, seeds, out, where or Place(), label="ablate")
    score_command(out, [*defaults(needs(model)), "appearance"], say=say)
    say(f"{report(out)}")


def _scales(texts: Sequence[str]) -> tuple[dict[str, float], float | None]:
    found: dict[str, float] = {}
    common = None
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            raise DNPError(f"--scale {text!r} is neither a number nor ARM=NUMBER, as in --scale dnp=5") from None
        if equals:
            found[name] = number
        else:
            common = number
    return found, common


def _others(prompts: str, asked: Sequence[Arm]) -> tuple[str, ...]:
    """What random captions are drawn from, where an arm has one: another set of the same kind as the prompts."""
    if all(arm.negative != "random" for arm in asked):
        return ()
    others = {"attend-and-excite": "humans", "humans": "attend-and-excite", "hands": "attend-and-excite"}
    name = others.get(prompts, prompts if prompts in PROMPT_SETS else "attend-and-excite")
    return tuple(prompt.text for prompt in prompt_set(name))


def chosen(
    plan: Plan,
    scales: Sequence[float],
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    out: Path,
    where: Place,
    given: set[str],
) -> Plan:
    """The plan with each arm at its best scale: of those tried, the one with the best mean on held-out prompts (of
    both things right by the world's judge where there is one, of CLIP's full-prompt cosine elsewhere).

    The pictures are kept in `choose/`, a folder like any other run's, and what was found in `scales.json`.
    """
    arms = [arm for arm in plan.arms if arm.name not in given]
    tried = [replace(arm, name=f"{arm.name}@{scale:g}", scale=scale) for arm in arms for scale in scales]
    folder = out / "choose"
    trial = replace(plan, prompts=tuple(prompts), arms=tuple(tried))
    sweep(trial, seeds, folder, where, label="choosing")
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


def needs(model: str, clip: str | None = None, classifier: str | None = None) -> Given:
    """What metrics may use of a model; pictures by one that is not here can be scored all the same."""
    try:
        return Given(locate(model), clip, classifier)
    except DNPError:
        return Given(None, clip, classifier)


def score_command(
    folder: Path,
    names: Sequence[str] = (),
    clip: str | None = None,
    classifier: str | None = None,
    say: Callable[[str], None] = print,
) -> bool:
    """`dnp score`: whether everything could be scored.

    Raises:
        DNPError, ValueError: nothing can be scored, and why.
    """
    records = read_manifest(folder)
    there = needs(next((record["model"] for record in records if record.get("model")), "none"), clip, classifier)
    problems = score(folder, make(names or defaults(there), there))
    for line in problems[:20]:
        say(line)
    if problems:
        say(f"{len(problems)} values were left out" + (", the first 20 are above" if len(problems) > 20 else ""))
    say(f"scores in {folder / 'scores.csv'}: dnp report {folder}")
    return not problems
