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
from eval.metrics.adherence import Adherence
from eval.metrics.appearance import Appearance
from eval.metrics.clip import Clip, ClipScore, MinObject
from eval.metrics.inception import Inception
from eval.metrics.metric import Metric
from eval.prompts import PROMPT_SETS, Prompt, prompt_set
from eval.report import report
from eval.scores import read_scores, score
from eval.statistics import interval
from guidance import parse

METRICS = {
    "judge": "both things right, neglected, wrong attribute, by the drawn world's judge",
    "clip-min-object": "Attend-and-Excite's protocol: raw cosine with 80 templates, full prompt and worst thing",
    "clip": "raw cosine of picture and prompt, and Hessel's CLIPScore",
    "appearance": "contrast and saturation, which high scales push up",
    "inception": "Inception Score of each arm, mean and deviation over 10 splits",
}


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
    choose_seeds: int = 2,
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
    score_command(out, [*default_metrics(model), "appearance"], say=say)
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
    metric = metrics_of(default_metrics(plan.model)[:1], plan.model)[0]
    score(folder, [metric], label=None)
    short = next(iter(metric.kinds))
    values: dict[str, list[float]] = {}
    for row in read_scores(folder):
        if row["metric"] == short:
            values.setdefault(row["arm"], []).append(float(row["value"]))
    found: dict[str, Any] = {}
    for arm in arms:
        rows = []
        for scale in scales:
            mean, low, high = interval(values[f"{arm.name}@{scale:g}"])
            rows.append({"scale": scale, "value": mean, "low": low, "high": high})
        found[arm.name] = {"chosen": max(rows, key=lambda row: row["value"])["scale"], "tried": rows}
    about = {"metric": f"{short} ({metric.name})", "prompts": len(prompts), "seeds": len(seeds), "arms": found}
    write_whole(out / "scales.json", (json.dumps(about, indent=2) + "\n").encode())
    return replace(
        plan,
        arms=tuple(replace(arm, scale=found[arm.name]["chosen"]) if arm.name in found else arm for arm in plan.arms),
    )


def default_metrics(model: str) -> list[str]:
    """What suits a model: the judge's verdict for the embedded one's world, the scores of CLIP for all others."""
    return ["judge", "clip-min-object"] if (locate(model) / "judge").is_dir() else ["clip-min-object", "clip"]


def metrics_of(names: Sequence[str], model: str, clip: str | None = None) -> list[Metric]:
    """Metrics by name: "judge", "clip", "clip-min-object".

    Args:
        clip: A checkpoint; by default the one beside the model, or OpenAI's ViT-B/16 as Attend-and-Excite used it.

    Raises:
        DNPError: an unknown name, or no judge for this model. ValueError: no such checkpoint.
    """
    if unknown := [name for name in names if name not in METRICS]:
        raise DNPError(f"the metric {unknown[0]!r} is none of {', '.join(METRICS)}")
    try:
        folder: Path | None = locate(model)
    except DNPError:  # pictures by a model that is not here can be scored all the same
        folder = None
    beside = folder / "clip" if folder and (folder / "clip").is_dir() else None
    found: list[Metric] = []
    shared = None
    for name in names:
        if name == "judge":
            if not folder or not (folder / "judge").is_dir():
                raise DNPError(f"the metric judge is for the drawn world, and there is no judge beside {model!r}")
            found.append(Adherence(folder / "judge"))
            continue
        if name == "inception":
            continue
        if name == "appearance":
            found.append(Appearance())
            continue
        shared = shared or Clip(clip or beside or "ViT-B-16/openai")
        own = beside and not clip  # a CLIP of a world that has no photos: it knows none of the templates' words
        found.append(ClipScore(shared) if name == "clip" else MinObject(shared, ("{}",) if own else None))
    return found


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
    model = next((record["model"] for record in records if record.get("model")), "none")
    try:
        names = names or default_metrics(model)
    except DNPError:
        names = ["clip-min-object", "clip"]
    chosen_metrics = metrics_of(names, model, clip)
    network = None
    if "inception" in names:
        if not classifier:
            raise DNPError("the metric inception needs a network: give torch-fidelity's weights with --classifier FILE")
        inception = Inception(classifier)
        network = (inception.name, inception)
    problems = score(folder, chosen_metrics, network)
    for line in problems[:20]:
        say(line)
    if problems:
        say(f"{len(problems)} values were left out" + (", the first 20 are above" if len(problems) > 20 else ""))
    say(f"scores in {folder / 'scores.csv'}: dnp report {folder}")
    return not problems
