"""Runs the studies whose numbers stand in README and docs, and writes their tables there: `make results`.

python docs/results.py                      all studies, into out/results
python docs/results.py strength windows     some of them
python docs/results.py --only-write         no pictures: the tables of what is there

A table stands between <!-- results:NAME --> and <!-- /results:NAME -->. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from eval.manifest import write_whole
from eval.report.arms import costs, labels
from eval.report.paper import paper_tables
from eval.report.results import Results, Row, results
from eval.report.tables import Cell, Line, Table, cell, number, p_value

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WALK = "--steps 12 --workers 2".split()
# What is chosen or explored uses the world's own prompts; the benchmark's are for results only
WORLD = [*"--prompts world --per-category 10 --seeds 0-3".split(), *WALK]
FAMILY = "NegPrompt(s, strength=w)"
EARLY, LATE = "u + s*(p - u) - StepScale(w, 0, {})*(n - u)", "u + s*(p - u) - StepScale(0, w, {})*(n - u)"


@dataclass(frozen=True)
class Study:
    """A run of `dnp sweep` or `dnp ablate`, and the tables made of it, by the name of their place."""

    command: list[str]
    tables: dict[str, Callable[[Results], str]]


def summary(found: Results) -> str:
    """Arms by the leading metric and by CLIP's worse thing, with costs and differences to the baseline."""
    metrics = [found.lead, "clip cosine min object"]
    names, spent = labels(found), costs(found)
    scales = {about["name"]: about["scale"] for about in found.settings.get("arms", [])}
    lines = []
    for arm in found.arms:
        cells = [Cell(f"{scales[arm]:g}" if arm in scales else "–"), Cell(f"{spent[arm]['evaluations']:.0f}")]
        for metric in metrics:
            row = found.row(arm, metric)
            cells += [Cell(number(row.value.mean)) if row else Cell(), Cell(difference(row))]
        lines.append(Line(names.get(arm, arm), tuple(cells)))
    head = ["scale", "evaluations", "both right", "difference [95 %], p", "CLIP, worse thing", "difference [95 %], p"]
    return body(Table("", "arm", tuple(("", name) for name in head), tuple(lines)))


def difference(row: Row | None) -> str:
    if row is None or row.against is None:
        return ""
    g = row.against
    if g.too_few:
        return f"{g.difference:+.3f}, {g.too_few}"
    p = f", p {p_value(row.p_holm)}" if row.p_holm is not None else ""
    return f"{g.difference:+.3f} [{g.low:+.3f}, {g.high:+.3f}]{p}"


def categories(found: Results) -> str:
    """The leading metric by category of the prompts."""
    lines = [
        Line(
            labels(found).get(arm, arm), tuple(cell(found, found.row(arm, found.lead, c)) for c in found.categories)
        )
        for arm in found.arms
    ]
    return body(Table("", "arm", tuple(("", c) for c in found.categories), tuple(lines)))


def paper(found: Results) -> str:
    """The paper's table of these prompts, ours beside what it prints."""
    return "\n".join(body(table) for table in paper_tables([found], [labels(found)]))


def size(found: Results) -> str:
    """What a study consists of, in a sentence."""
    pairs = {(record["prompt"], record["seed"]) for record in found.records}
    prompts, seeds = ({pair[i] for pair in pairs} for i in (0, 1))
    return f"{len(prompts)} prompts × {len(seeds)} seeds, {len(found.records)} pictures.\n"


def body(table: Table) -> str:
    """A table in Markdown without its title."""
    return re.sub(r"\A## .*\n\n", "", replace(table, title="x").markdown())


def ablate(*formulas: str, extra: str = "", **tables: Callable[[Results], str]) -> Study:
    return Study(["ablate", *formulas, *WORLD, *extra.split(";")] if extra else ["ablate", *formulas, *WORLD], tables)


STUDIES = {
    "main": Study(
        [
            *"sweep --prompts attend-and-excite --per-category 20 --seeds 0-3".split(),
            *"--arms plain,dnp,dnp2,shuffled,universal,random,ae,ae+dnp".split(),
            *WALK,
        ],
        {"main": summary, "categories": categories, "paper": paper, "main-size": size},
    ),
    "formulations": ablate(
        "CFG(s)",
        "NegPrompt(s, strength=0.5)",
        "NegPrompt(s, evaluations=2)",
        "NegPrompt(s, evaluations=3)",
        "ANSWER(s, above=3)",
        extra="--scales;3,5,7.5",
        formulations=summary,
    ),
    "strength": ablate(
        FAMILY,
        extra="--scales;5;--strengths;0.5,1,2,4;--negatives;auto,shuffled,universal",
        strength=summary,
    ),
    "windows": ablate(
        *(form.format(level) for form in (EARLY, LATE) for level in (5, 2)),
        FAMILY,
        extra="--scales;5;--strengths;1",
        windows=summary,
    ),
    "captions": ablate(
        FAMILY,
        extra="--scales;5;--strengths;1;--negatives;auto,auto-without-prompt,auto-background,shuffled,universal,random",
        captions=summary,
    ),
    "dns-steps": ablate(FAMILY, extra="--scales;5;--strengths;1;--dns-steps;4,6,12", **{"dns-steps": summary}),
}


def run(name: str, study: Study) -> None:
    """Makes what is missing of a study's pictures, their scores and their report."""
    out = OUT / name
    commands = [[*study.command, "--out", str(out)]]
    if study.command[0] == "sweep":  # ablate scores and reports by itself
        commands += [["score", str(out)], ["report", str(out)]]
    for command in commands:
        print(f"dnp {subprocess.list2cmdline(command)}", flush=True)
        subprocess.run([sys.executable, "-m", "dnp.cli.main", *command], cwd=ROOT, check=True)


def write(name: str, text: str) -> None:
    """Writes a table to each of its places.

    Raises:
        ValueError: no page has a place for it.
    """
    place = re.compile(rf"(<!-- results:{name} -->\n).*?(<!-- /results:{name} -->)", re.S)
    found = [page for page in PAGES if place.search(page.read_text(encoding="utf-8"))]
    if not found:
        raise ValueError(f"no page has <!-- results:{name} -->")
    for page in found:
        filled = place.sub(lambda match: match[1] + text + match[2], page.read_text(encoding="utf-8"))
        write_whole(page, filled.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", nargs="*", help=f"of {', '.join(STUDIES)}; all by default")
    parser.add_argument("--only-write", action="store_true", help="make no pictures")
    given = parser.parse_args()
    if unknown := [name for name in given.studies if name not in STUDIES]:
        parser.error(f"{unknown[0]!r} is no study: choose from {', '.join(STUDIES)}")
    for name in given.studies or STUDIES:
        if not given.only_write:
            run(name, STUDIES[name])
        if (OUT / name / "scores.csv").exists():
            found = results(OUT / name)
            for place, table in STUDIES[name].tables.items():
                write(place, table(found))


if __name__ == "__main__":
    main()
