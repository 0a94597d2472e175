"""`dnp sweep`: arms × prompts × seeds become a folder of pictures with a line each, whatever happens on the way.

Work is cut into units: the pictures of all arms for a batch of prompts and one seed. What a unit gives depends on
nothing but the settings, so it may be done again, elsewhere, or later; a unit is done when its lines are in the
manifest, which are written in one piece after its pictures. Captions that are to be shuffled between prompts must all
be there first: the arms that take them are a second round of units.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from dnp.experiments.plan import Line, Place, Plan, Unit, exchange, path_of, units
from dnp.experiments.workers import workers
from dnp.runs.run import claim, write_settings
from eval.manifest import read_manifest, write_whole


class Ledger:
    """What a folder holds of a plan; only complete lines of pictures that are there count.

    Raises:
        DNPError: the folder holds another run, or cannot be written.
    """

    def __init__(self, out: Path, plan: Plan) -> None:
        self.out, self.plan = out, plan
        claim(out, plan.settings())
        write_settings(out, plan.settings())
        manifest = out / "manifest.jsonl"
        if manifest.exists() and not manifest.read_bytes().endswith(b"\n"):  # cut off in the middle of a line
            whole, _, _ = manifest.read_bytes().rpartition(b"\n")
            write_whole(manifest, whole + b"\n" if whole else b"")
        self.records = {r["path"]: r for r in read_manifest(out) if (out / r["path"]).is_file()}

    def has(self, unit: Unit) -> bool:
        return all(path in self.records for path in unit.paths(self.plan))

    def add(self, lines: Sequence[Line]) -> None:
        """The pictures, then their lines in one piece."""
        for record, data in lines:
            path = self.out / record["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
            self.records[record["path"]] = record
        with open(self.out / "manifest.jsonl", "ab", buffering=0) as file:
            file.write("".join(json.dumps(r, ensure_ascii=False) + "\n" for r, _ in lines).encode())

    def exchanged(self, unit: Unit) -> Unit:
        """The second round's unit of a first one: with the captions that other prompts' pictures got."""
        partner = exchange(self.plan.prompts)
        return Unit(
            unit.seed,
            unit.places,
            {
                name: tuple(self.records[path_of(name, partner[place], unit.seed)]["caption"] for place in unit.places)
                for name in self.plan.negatives.values()
            },
        )

    def tidy(self) -> None:
        """The manifest in the order of the plan, each picture once, whatever order they came in."""
        arms = [*self.plan.negatives.values(), *(arm.name for arm in self.plan.arms)]
        ordered = sorted(self.records.values(), key=lambda r: (arms.index(r["arm"]), r["path"]))
        write_whole(
            self.out / "manifest.jsonl",
            "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in ordered).encode(),
        )


def sweep(plan: Plan, seeds: Sequence[int], out: Path, where: Place | None = None, label: str = "sweep") -> Ledger:
    """Make what is missing of a run.

    Args:
        where: Which workers do it; this process by default.

    Raises:
        DNPError, GuidanceError, SamplerError, CaptionError: what a person can mend; what was finished is kept.
    """
    ledger = Ledger(out, plan)
    first = units(plan, list(dict.fromkeys(seeds)))
    rounds = [len(unit.paths(plan)) for unit in first]
    shuffled = sum(arm.negative == "shuffled" for arm in plan.arms)
    total = sum(rounds) + shuffled * len(plan.prompts) * len(set(seeds))
    have = sum(path in ledger.records for unit in first for path in unit.paths(plan))
    where = where or Place()
    with (
        workers(plan, where) as do,
        tqdm(total=total, initial=have, desc=label, unit="picture", smoothing=0.05) as bar,
    ):
        for second in (False, True) if shuffled else (False,):
            todo = [ledger.exchanged(unit) for unit in first] if second else first
            if second:
                bar.update(sum(path in ledger.records for unit in todo for path in unit.paths(plan)))
            for lines in do([unit for unit in todo if not ledger.has(unit)]):
                ledger.add(lines)
                bar.update(len(lines))
    ledger.tidy()
    return ledger
