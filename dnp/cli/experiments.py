"""`dnp sweep`, `dnp ablate` and `dnp gap`: a comparison in words becomes a plan, and its pictures a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dnp.cli.kinds import Names, Numbers, Scales, Steps, refuse
from dnp.cli.options import (
    CAPTIONER,
    COMMON,
    COUNT,
    HOW,
    OF_MODEL,
    PICTURES,
    PLACE,
    SCALE,
    Command,
    batch,
    described,
    option,
    out,
    prompts,
    say,
    seeds,
    takes,
)
from dnp.wording import counted


def _arms() -> str:
    from dnp.experiments.arms import ARMS

    return described({name: known.about for name, known in ARMS.items()})


def _sources() -> str:
    from dnp.experiments.negatives import SOURCES

    return described({name: source.about for name, source in SOURCES.items()})


@click.command("sweep", cls=Command)
@takes(
    *prompts(),
    option(
        "--arms",
        type=Names(),
        default="plain,dnp,dnp2,shuffled,universal,random",
        help="What to compare, with commas.",
        lists=_arms,
    ),
    option(
        "--arm",
        "own",
        nargs=3,
        multiple=True,
        metavar="NAME FORMULA NEGATIVE",
        help="An arm of your own: its name, a formula in p, n, u, s and w, and its negative prompt, which is a text or "
        "one of the following. Repeatable.",
        lists=_sources,
    ),
    seeds("0-3"),
    option("--scale", "scales", type=Scales(), multiple=True, help="Scale s of all arms or of one. Repeatable."),
    option(
        "--choose",
        type=Numbers(),
        help="Scales of which each arm takes its best, measured on held-out prompts: the fair comparison.",
    ),
    option("--choose-prompts", type=COUNT, default=10, help="Held-out prompts of each category."),
    option("--choose-seeds", type=COUNT, default=4, help="Seeds of each held-out prompt."),
    HOW,
    CAPTIONER,
    PICTURES,
    batch(25, "Prompts"),
    PLACE,
    out("out/sweep", "the pictures and their records"),
)
def sweep(
    prompts: str,
    per_category: int | None,
    arms: Sequence[str],
    own: Sequence[tuple[str, str, str]],
    seeds: Sequence[int],
    scales: Sequence[tuple[str | None, float]],
    choose: Sequence[float] | None,
    choose_prompts: int,
    choose_seeds: int,
    model: str,
    how: dict[str, Any],
    where: dict[str, Any],
    out: Path,
    **options: Any,
) -> None:
    """Make the pictures of a comparison: arms × prompts × seeds, all arms of a prompt and seed from the same noise.

    Stopped or killed, the same command goes on where it was.

    \b
    dnp sweep --per-category 50 --seeds 0-7 --choose 3,5,7.5,10 --out out/ae
    dnp sweep --prompts attend-and-excite --per-category 50 --model DIR --arm late "CFG(StepScale(0, s, 5))" none
    dnp score out/ae
    dnp report out/ae
    """
    from dnp.experiments.arms import arms as arms_of
    from dnp.experiments.choose import choose_scales, split
    from dnp.experiments.plan import Place, Plan, others
    from dnp.experiments.sweep import sweep as run
    from dnp.experiments.workers import workers
    from dnp.models.defaults import Defaults
    from dnp.models.locate import locate

    common = [scale for name, scale in scales if name is None]
    if common and choose:
        refuse(f"--scale {common[0]:g} gives all arms their scale: leave --choose out, or give ARM=SCALE")
    given = {name: scale for name, scale in scales if name is not None}
    defaults = Defaults.of(locate(model)).but(**how, scale=common[-1] if common else None)
    found = arms_of(arms, own, defaults, given)
    asked, held_out = split(prompts, per_category, choose_prompts if choose else 0)
    plan = Plan(model, tuple(asked), tuple(found), others(prompts, found), **options)
    place = Place(**where)
    with workers(place) as do:
        if choose:
            plan = choose_scales(plan, choose, held_out, range(choose_seeds), out, place, set(given), do)
        made = run(plan, seeds, out, place, do=do)
    say(f"{counted(len(made.records), 'picture')} in {out}: dnp score {out}; dnp report {out}")


@click.command("ablate", cls=Command)
@click.argument("formulas", nargs=-1, required=True, metavar="FORMULA...")
@takes(
    option("--scales", "--scale", "scales", type=Numbers(), default="3,5,7.5,10", help="Scales s of each formula."),
    option(
        "--strengths", "--strength", "strengths", type=Numbers(), show_default=OF_MODEL, help="The w of the formulas."
    ),
    option(
        "--negatives",
        "--negative",
        "negatives",
        type=Names(),
        default="auto",
        help="Negative prompts: texts, or the following, with commas.",
        lists=_sources,
    ),
    option("--samplers", "--sampler", "samplers", type=Names(), show_default=OF_MODEL, help="See `dnp samplers`."),
    option("--steps", type=Steps(), show_default=OF_MODEL, help="Step counts to compare."),
    option(
        "--dns",
        multiple=True,
        metavar="FORMULA",
        show_default=OF_MODEL,
        help="Guidance of the diffusion-negative pictures. Repeatable.",
    ),
    option(
        "--dns-steps",
        type=Steps(),
        show_default=OF_MODEL,
        help="Numbers of steps of the diffusion-negative pictures; unless given, never more than --steps.",
    ),
    *prompts(),
    seeds("0-3"),
    COMMON,
    CAPTIONER,
    PICTURES,
    batch(25, "Prompts"),
    PLACE,
    out("out/ablate", "the pictures, their records and the report"),
)
def ablate(
    formulas: Sequence[str],
    scales: Sequence[float],
    strengths: Sequence[float] | None,
    negatives: Sequence[str],
    samplers: Sequence[str] | None,
    steps: Sequence[int] | None,
    dns: Sequence[str],
    dns_steps: Sequence[int] | None,
    prompts: str,
    per_category: int | None,
    seeds: Sequence[int],
    model: str,
    how: dict[str, Any],
    where: dict[str, Any],
    out: Path,
    **options: Any,
) -> None:
    """Compare FORMULAs of s and w over scales, strengths, negatives, samplers, steps, and the formulas and steps of the
    diffusion-negatives; writes a report with curves and grids of pictures.

    \b
    dnp ablate "CFG(s)" "NegPrompt(s, evaluations=2)" "NegPrompt(s, evaluations=3)" --scales 1,3,5,7.5
    dnp ablate "NegPrompt(s, strength=w)" --strengths 0,0.5,1,7.5,10 --negatives auto,shuffled --scales 7.5
    dnp ablate "NegPrompt(s, strength=w)" --dns "DNS(1)" --dns "DNS(7.5)" --dns-steps 4,8,16 --scales 7.5
    dnp ablate "u + s*(p - u) - StepScale(0, w, 3)*(n - u)" "u + s*(p - u) - StepScale(w, 0, 3)*(n - u)"

    The last two are a negative prompt that starts late, at noise level 3, and one that stops there.
    """
    from dnp.experiments.ablation import ablation
    from dnp.experiments.plan import Place, Plan, others
    from dnp.experiments.scoring import score_run
    from dnp.experiments.sweep import sweep as run
    from dnp.models.defaults import Defaults
    from dnp.models.locate import locate
    from eval.prompts import prompt_set
    from eval.report import report

    found = ablation(
        formulas,
        Defaults.of(locate(model)).but(**how),
        scales,
        negatives,
        strengths=strengths or (),
        samplers=samplers or (),
        steps=steps or (),
        dns=dns,
        dns_steps=dns_steps or (),
    )
    plan = Plan(model, tuple(prompt_set(prompts, per_category)), tuple(found), others(prompts, found), **options)
    run(plan, seeds, out, Place(**where), label="ablate")
    score_run(out, also=["appearance"], say=say)
    say(f"{report(out)}")


@click.command("gap", cls=Command)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@takes(
    seeds("0"),
    SCALE,
    HOW,
    CAPTIONER,
    PICTURES,
    batch(1, "Prompts"),
    PLACE,
    out("out/gap", "the pictures, their records and the figure"),
)
def gap(prompts: Sequence[str], seeds: Sequence[int], where: dict[str, Any], **options: Any) -> None:
    """Draw the paper's figure 4 for PROMPTs: what the model takes for their opposite, and what that does.

    \b
    dnp gap "a red balloon and a blue bowl" "a green car" --seed 0-1
    dnp gap "a cat and a dog" --model DIR
    """
    from dnp.experiments.gap import gap as draw
    from dnp.experiments.plan import Place

    draw(prompts, seeds, where=Place(**where), say=say, **options)
