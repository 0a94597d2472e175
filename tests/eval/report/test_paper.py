"""The paper's tables: its numbers beside ours, gains over the right arm."""

import csv

import numpy as np
import pytest

from eval.report import paper
from eval.report.paper import PRINTED, paper_tables
from eval.report.results import results
from eval.statistics import gain

CLIP = ("clip cosine min object", "clip cosine full prompt")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_run):
    rng = np.random.default_rng(1)

    def made(name, categories, arms, metrics):
        values = {
            (arm, f"{name} {p}", s, categories[p % len(categories)]): {
                m: 0.3 + shift + 0.01 * rng.random() for m in metrics
            }
            for arm, shift in arms.items()
            for p in range(6)
            for s in range(4)
        }
        return write_run(tmp_path_factory.mktemp(name), values)

    arms = {"plain": 0.0, "dnp": 0.02, "ae": 0.03, "ae+dnp": 0.05, "universal": 0.01}
    two = made("two", ["animal-animal", "object-object"], arms, CLIP)
    humans = made("humans", ["humans"], {"plain": 0.0, "dnp": 0.01, "dnp-person": 0.02}, ("clip cosine",))
    with open(two / "scores.csv", "a", newline="") as file:
        scores = {"plain": 10.0, "dnp": 11.0, "ae": 8.0, "ae+dnp": 12.0}
        csv.writer(file).writerows(["", arm, "", "", "", "inception score", value] for arm, value in scores.items())
    return two, humans


def test_the_paper_prints_its_gains_as_they_are_computed():
    """Of the tables' own numbers: each gain in percent follows from the two values, as far as these are rounded."""
    for rows in PRINTED.values():
        for base, better in (("Stable Diffusion (SD)", "SD+auto-DNP"), ("Attend & Excite (A&E)", "A&E+auto-DNP")):
            for column, printed in rows.get(better, {}).items():
                if "(" in printed:
                    value, percent = printed.rstrip("%)").split(" (")
                    assert 100 * (float(value) / float(rows[base][column]) - 1) == pytest.approx(
                        float(percent), abs=0.15
                    )


def test_table_2a_has_its_rows_and_ours_with_gains_over_the_right_arm(runs):
    (table,) = paper_tables([results(runs[0])])
    assert table.title == "Table 2a: the A&E dataset"
    assert table.head == (
        ("CLIP Score", "Min. Object"),
        ("CLIP Score", "Full Prompt"),
        ("", "IS"),
        ("Human Evaluation", "Correctness"),
        ("Human Evaluation", "Quality"),
    )
    rows = {line.name: [f"{cell.text} {cell.note}".strip() for cell in line.cells] for line in table.lines}
    assert rows["paper: SD+auto-DNP"] == ["0.258 (+6.61%)", "0.346 (+3.28%)", "13.35 (+1.37%)", "64.22%", "63.81%"]
    assert rows["paper: A&E+auto-DNP"] == ["0.276 (+4.54%)", "0.362 (+3.72%)", "13.12 (+10.62%)", "52.99%", "59.53%"]
    assert [line.name for line in table.lines if not line.paper] == [
        "Stable Diffusion (SD)",
        "SD+auto-DNP",
        "Attend & Excite (A&E)",
        "A&E+auto-DNP",
        "universal",
    ]
    assert rows["SD+auto-DNP"][2:] == ["11.00 (+10.00%)", "–", "–"]
    assert rows["A&E+auto-DNP"][2] == "12.00 (+50.00%)"  # over A&E's 8, not over plain's 10
    values = {}
    for row in csv.DictReader(open(runs[0] / "scores.csv")):
        if row["metric"] == CLIP[0]:
            values.setdefault(row["arm"], {})[row["prompt"], row["seed"]] = float(row["value"])
    pairs = list(values["ae"])
    a, b = ([values[arm][pair] for pair in pairs] for arm in ("ae+dnp", "ae"))
    g = gain(a, b, {"prompt": [p for p, _ in pairs], "seed": [s for _, s in pairs]})
    percent = 100 * (np.mean(a) / np.mean(b) - 1)
    assert rows["A&E+auto-DNP"][0] == (
        f"{np.mean(a):.3f} ({percent:+.2f}%) {g.difference:+.3f} [{g.low:+.3f}, {g.high:+.3f}]"
    )


def test_tables_1_and_2b_over_several_runs(runs):
    tables = {table.title[:8]: table for table in paper_tables([results(folder) for folder in runs])}
    assert list(tables) == ["Table 1:", "Table 2a", "Table 2b"]
    first = {line.name: [cell.text for cell in line.cells] for line in tables["Table 1:"].lines}
    assert first["paper: SD+DNP"] == ["0.331", "0.324", "0.253", "0.345"]
    assert first["SD+DNP"][1:] == ["–", "–", "–"] and first["SD+DNP"][0].startswith("0.32")
    second = {line.name: [cell.text for cell in line.cells] for line in tables["Table 2b"].lines}
    assert second["Humans: paper: SD+auto-DNP"] == ["0.331 (+2.80%)", "10.13 (+1.80%)", "57.98%", "65.80%"]
    assert second["Humans: SD+DNP"][0].startswith("0.32")


def test_prompts_of_another_set_have_the_layout_alone(run):
    (table,) = paper_tables([results(run)])
    assert table.title.startswith("In the layout of Table 2a") and not any(line.paper for line in table.lines)


def test_it_is_written_as_a_page_and_as_markdown(runs):
    page = paper(list(runs))
    assert page == runs[0] / "paper.html"
    assert '<th class="group" colspan="2">CLIP Score</th>' in page.read_text()
    assert "| paper: SD+auto-DNP | 0.258 (+6.61%) |" in (runs[0] / "paper.md").read_text()
