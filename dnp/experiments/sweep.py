"""`dnp sweep`: arms × prompts × seeds become a folder of pictures with a line each, whatever happens on the way.

Work is cut into units: the pictures of all arms for a batch of prompts and one seed. What a unit gives depends on
nothing but the settings, so it may be done again, elsewhere, or later; a unit is done when its lines are in the
manifest, which are written in one piece after its pictures. Captions that are to be shuffled between prompts must all
be there first: the arms that take them are a second round of units.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tqdm import tqdm

from dnp.errors import DNPError
from dnp.experiments.plan import Place, Plan, Unit, exchange, path_of, units
from dnp.experiments.workers import Do, workers
from dnp.limits import MOST_SEEDS
from dnp.models.locate import locate
from dnp.runs.record import Line
from dnp.runs.run import Run
from dnp.runs.threads import default_threads


def sweep(
    plan: Plan,
    seeds: Sequence[int],
    out: Path,
    where: Place | None = None,
    label: str = "sweep",
    do: Do | None = None,
) -> Run:
    """Make what is missing of a run.

    Args:
        where: Which workers do it; this process by default.
        do: Workers that are there already, from `workers(where)`, for more sweeps than one.

    Raises:
        DNPError, GuidanceError, SamplerError, CaptionError: what the user can fix; finished pictures are kept.
    """
    where = where or Place()
    if len(seeds) > MOST_SEEDS:
        raise DNPError(f"there are {len(seeds):,} seeds: give at most {MOST_SEEDS:,}")
    first = units(plan, list(dict.fromkeys(seeds)))
    paths = {path for unit in first for path in unit.paths(plan)}
    shuffled = plan.arms_that_take("another")
    paths |= {path_of(arm.name, place, unit.seed) for arm in shuffled for unit in first for place in unit.places}
    given = {} if where.threads is None else {"threads": where.threads}
    with (
        Run(out, plan.settings() | given, {"threads": default_threads(locate(plan.model))}) as run,
        nullcontext(do) if do else workers(where) as do_units,
        tqdm(
            total=len(paths),
            initial=len(paths & run.records.keys()),
            desc=label,
            unit="picture",
            smoothing=0.05,
            disable=None,
        ) as bar,
    ):
        for second in (False, True) if shuffled else (False,):
            todo = [_exchanged(unit, plan, run) for unit in first] if second else first
            missing = [unit for unit in todo if not run.records.keys() >= set(unit.paths(plan))]
            for lines in do_units(plan, missing, run.settings["threads"]):
                bar.update(sum(record["path"] not in run.records for record, _ in lines))
                run.add(lines)
                _say_failures(lines)
        arms = [*plan.negatives.values(), *(arm.name for arm in plan.arms)]
        run.tidy(lambda record: (arms.index(record["arm"]), record["path"]))
    return run


def _exchanged(unit: Unit, plan: Plan, run: Run) -> Unit:
    """The second round's unit of a first one: with the captions that other prompts' pictures got."""
    partner = exchange(plan.prompts)
    captions = {
        name: tuple(run.records[path_of(name, partner[place], unit.seed)]["caption"] for place in unit.places)
        for name in plan.negatives.values()
    }
    return Unit(unit.seed, unit.places, captions)


def _say_failures(lines: Sequence[Line]) -> None:
    for record, _ in lines:
        if error := record.get("caption_error"):
            tqdm.write(f"no caption of {record['path']}, so no negative prompt: {error}", file=sys.stderr)
