"""Draws docs/figures/*.png of docs/ablations.md and docs/when.md from the runs that docs/studies.sh made.

python docs/figures/studies.py out/studies
"""

import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from eval.report.results import Results, costs, results, series

HERE = Path(__file__).parent
METRICS = {"both right": "both right", "clip cosine min object": "CLIP cosine, worse thing"}
COLOURS = ("#1d4ed8", "#b03a48", "#6b7280", "#2a7f62", "#c2410c", "#7c3aed", "#0e7490")


def short(name: str) -> str:
    """A formula as the figures say it."""
    name = re.sub(r"u \+ s\*\(p - u\) - StepScale\(0, w, ([\d.]+)\)\*\(n - u\)", r"only below σ = \1", name)
    name = re.sub(r"u \+ s\*\(p - u\) - StepScale\(w, 0, ([\d.]+)\)\*\(n - u\)", r"only above σ = \1", name)
    return name.replace("NegPrompt(s, strength=w)", "all steps").replace("CFG(s)", "CFG(s): no negative")


def curves(found: Results, axis: str, out: str, difference: bool, log: bool = False) -> None:
    """For each metric a panel: a curve with 95 % intervals for each series, of means or of differences to plain."""
    figure, axes = pyplot.subplots(1, len(METRICS), figsize=(5 * len(METRICS), 3.6))
    for panel, (metric, label) in zip(axes, METRICS.items(), strict=True):
        for (name, line), colour in zip(series(found)[axis].items(), COLOURS, strict=False):
            points = []
            for number, arm in line:
                row = found.row(arm, metric)
                if row and (not difference or row.against):
                    g = row.against
                    points.append(
                        (
                            number,
                            *((g.difference, g.low, g.high) if difference and g else (row.mean, row.low, row.high)),
                        )
                    )
            x, y, low, high = map(list, zip(*points, strict=True))
            bars = [[b - a for a, b in zip(low, y, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
            panel.errorbar(x, y, bars, marker="o", ms=4, lw=1.5, capsize=2, color=colour, label=short(name))
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
        for place, (_, found, arm) in enumerate(reversed(rows)):
            row = found.row(arm, metric)
            if row is None or row.against is None:
                continue
            g = row.against
            colour = "#6b7280" if not g.clear else "#2a7f62" if g.difference > 0 else "#b03a48"
            panel.plot([g.low, g.high], [place, place], color=colour, lw=2)
            panel.plot([g.difference], [place], "o", color=colour, ms=4)
        panel.axvline(0, color="#9ca3af", lw=1)
        panel.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)], fontsize=8)
        panel.set(title=f"{label}, difference to plain")
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
            cells.append(f"{row.mean:.3f}" + (f" {g.difference:+.3f} [{g.low:+.3f}, {g.high:+.3f}]" if g else ""))
    facts = [about["guidance"], about["negative"], f"s = {about['scale']:g}", f"w = {about['strength']:g}"]
    print(" | ".join([", ".join([*facts, about["dns"], f"{about['dns_sampling']['steps']} DNS steps"]), *cells]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
