"""Draws docs/figures/*.png of docs/ablations.md and docs/when.md from the runs that docs/studies.sh made.

python docs/figures/studies.py out/studies
"""

import re
import sys
from pathlib import Path

from matplotlib import pyplot

from eval.report.arms import Series, costs, series
from eval.report.plots import Point, draw_curves, draw_differences
from eval.report.results import Results, results

HERE = Path(__file__).parent
METRICS = {"both right": "both right", "clip cosine min object": "CLIP cosine, worse thing"}
pyplot.rcParams["axes.prop_cycle"] = pyplot.cycler(
    color=["#1d4ed8", "#b03a48", "#6b7280", "#2a7f62", "#c2410c", "#7c3aed", "#0e7490"]
)


def short(name: str) -> str:
    """A formula as the figures say it."""
    name = re.sub(r"u \+ s\*\(p - u\) - StepScale\(0, w, ([\d.]+)\)\*\(n - u\)", r"only below σ = \1", name)
    name = re.sub(r"u \+ s\*\(p - u\) - StepScale\(w, 0, ([\d.]+)\)\*\(n - u\)", r"only above σ = \1", name)
    return name.replace("NegPrompt(s, strength=w)", "all steps").replace("CFG(s)", "CFG(s): no negative")


def points(found: Results, line: Series, metric: str, difference: bool) -> list[Point]:
    """Of each arm of a series its mean, or its difference to plain, with the interval."""
    rows = [(number, found.row(arm, metric)) for number, arm in line]
    if not difference:
        return [(number, row.value.mean, row.value.low, row.value.high) for number, row in rows]
    return [(number, g.difference, g.low, g.high) for number, g in ((n, row.against) for n, row in rows) if g]


def curves(found: Results, axis: str, out: str, difference: bool, log: bool = False) -> None:
    """For each metric a panel: a curve with 95 % intervals for each series, of means or of differences to plain."""
    figure, axes = pyplot.subplots(1, len(METRICS), figsize=(5 * len(METRICS), 3.6))
    for panel, (metric, label) in zip(axes, METRICS.items(), strict=True):
        drawn = {name: points(found, line, metric, difference) for name, line in series(found)[axis].items()}
        draw_curves(panel, {short(name): line for name, line in drawn.items()})
        if difference:
            panel.axhline(0, color="#9ca3af", lw=1)
        if log:
            panel.set_xscale("log", base=2)
            panel.xaxis.set_major_formatter("{x:g}")
        panel.set(xlabel=axis, title=f"{label}, difference to plain" if difference else label)
        panel.grid(alpha=0.25)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, frameon=False, fontsize=8)
    save(figure, out)


def forest(rows: list[tuple[str, Results, str]], out: str) -> None:
    """For each metric a panel: the difference of each (name, results, arm) to that run's plain arm."""
    figure, axes = pyplot.subplots(1, len(METRICS), figsize=(5 * len(METRICS), 0.9 + 0.26 * len(rows)), sharey=True)
    for panel, (metric, label) in zip(axes, METRICS.items(), strict=True):
        lines = [(name, found, found.row(arm, metric)) for name, found, arm in rows]
        gains = [(name, row.against, found.kind(row)) for name, found, row in lines]
        draw_differences(panel, [(name, g.difference, g.low, g.high, kind) for name, g, kind in gains])
        panel.tick_params("y", labelsize=8)
        panel.locator_params("x", nbins=6)
        panel.set_title(f"{label}, difference to plain", fontsize=9)
        panel.grid(alpha=0.25)
    save(figure, out)


def save(figure, out: str) -> None:
    figure.tight_layout()
    figure.savefig(HERE / f"{out}.png", dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def arms_of(found: Results) -> list[dict]:
    return [about for about in found.settings["arms"] if about["name"] != found.baseline]


def main(folder: Path) -> None:
    def run(name: str) -> Results:
        return results(folder / name)

    curves(run("formulations"), "scale s", "formulations", difference=False)
    curves(run("strength"), "strength w", "strength", difference=True)
    curves(run("dns-steps"), "steps of the diffusion-negative", "dns-steps", difference=True, log=True)
    curves(run("dns-scale"), "x in the formula of the diffusion-negative", "dns-scale", difference=True)
    windows, captions = run("windows"), run("captions")
    forest([(f"{short(a['guidance'])}, {a['negative']}", windows, a["name"]) for a in arms_of(windows)], "windows")
    forest([(f"{a['negative']}, w = {a['strength']:g}", captions, a["name"]) for a in arms_of(captions)], "captions")
    models = {"0 %": run("wrong-0.0"), "30 %, the embedded model": run("formulations"), "60 %": run("wrong-0.6")}
    forest(
        [
            (f"{share}: {a['guidance']}, s = {a['scale']:g}", found, a["name"])
            for share, found in models.items()
            for a in arms_of(found)
            if a["scale"] < 10 and "ANSWER" not in a["guidance"] and "evaluations=3" not in a["guidance"]
        ],
        "models",
    )
    for name in ("formulations", "strength", "windows", "captions", "dns-steps", "dns-scale", "wrong-0.0", "wrong-0.6"):
        print(f"\n{name}: evaluations, both right, CLIP cosine of the worse thing; differences to plain")
        found = run(name)
        for about in found.settings["arms"]:
            table(found, about)


def table(found: Results, about: dict) -> None:
    cells = [f"{costs(found)[about['name']]['evaluations']:4.0f}"]
    for metric in METRICS:
        row = found.row(about["name"], metric)
        if row:
            g = row.against
            ends = g and (g.too_few or f"[{g.low:+.3f}, {g.high:+.3f}]")
            cells.append(f"{row.value.mean:.3f}" + (f" {g.difference:+.3f} {ends}" if g else ""))
    facts = [about["guidance"], about["negative"], f"s = {about['scale']:g}", f"w = {about['strength']:g}"]
    print(" | ".join([", ".join([*facts, about["dns"], f"{about['dns_sampling']['steps']} DNS steps"]), *cells]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
