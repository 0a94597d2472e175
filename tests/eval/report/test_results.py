"""What the numbers of a report must do at their edges."""

import json

import numpy as np
import pytest
from scipy import stats

from eval.manifest import ManifestError
from eval.report import report
from eval.report.page import answer, facts
from eval.report.results import results
from eval.statistics import Crossed


def grid(value, arms=("plain", "other"), prompts=5, seeds=4):
    """The values of a metric for each arm, prompt and seed."""
    return {
        (name, f"prompt {p}", s, ""): {"m": value(name, p, s)}
        for name in arms
        for p in range(prompts)
        for s in range(seeds)
    }


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_metric_that_is_all_0_or_all_1(tmp_path, value, write_run):
    """Rounding can put the lower end of an interval above its mean, which no plot takes."""
    write_run(tmp_path, grid(lambda *_: value))
    report(tmp_path)
    row = results(tmp_path).row("other", "m")
    assert (row.against.difference, row.against.low, row.against.high, row.p_holm) == (0, 0, 0, 1)
    assert row.value.low <= row.value.mean <= row.value.high


def test_wilson_is_for_metrics_that_are_declared_binary(tmp_path, write_run):
    ends = {}
    for binary in (True, False):
        folder = tmp_path / str(binary)
        folder.mkdir()
        write_run(folder, grid(lambda *_: 1.0), {"m": {"name": "m", "binary": binary}})
        value = results(folder).row("plain", "m").value
        ends[binary] = value.low, value.high
    assert ends[False] == (1, 1) and ends[True] == pytest.approx((0.8389, 1), abs=1e-4)  # of 20 right in 20


def test_a_percentage_has_the_sign_of_the_change(tmp_path, write_run):
    write_run(tmp_path, grid(lambda name, p, s: -0.2 + 0.1 * (name == "other")))
    assert results(tmp_path).row("other", "m").relative == pytest.approx(50)


def test_few_seeds_give_differences_without_interval_or_colour(tmp_path, write_run):
    write_run(tmp_path, grid(lambda name, p, s: p + s + (name == "other"), seeds=2), {"m": {"name": "m"}})
    found = results(tmp_path)
    row = found.row("other", "m")
    assert (row.against.difference, row.against.too_few, found.kind(row)) == (1, "too few seeds", "")
    said = facts(found)
    assert said["answer"].startswith("It cannot be told: too few seeds.")
    assert said["verdicts"] == [("other", "+1.000, too few seeds for an interval", "")]
    cells = [line.cells[0] for line in said["tables"][0].lines]
    assert [(cell.text, cell.note, cell.kind) for cell in cells] == [
        ("2.500", "too few seeds", ""),
        ("3.500 (+40.00%)", "+1.000, too few seeds", ""),
    ]
    report(tmp_path)
    assert "nan" not in (tmp_path / "report.csv").read_text()


def test_what_is_clear_alone_but_not_among_many_arms_has_no_colour(tmp_path, write_run):
    """One arm of twelve with p = .02, which is .24 when adjusted."""
    names = ["plain", *(f"arm{i}" for i in range(12))]
    values = np.random.default_rng(0).normal(size=(13, 12, 6))
    values[2:] = values[0] + 1e-9 * values[2:]  # the others are plain's equals
    crossed = Crossed({"prompt": np.repeat(range(12), 6).tolist(), "seed": np.tile(range(6), 12).tolist()})
    difference = (values[1] - values[0]).ravel()
    error, free = crossed.spread(difference)
    values[1] += stats.t.isf(0.01, free) * error - difference.mean()
    write_run(tmp_path, grid(lambda name, p, s: values[names.index(name), p, s], names, 12, 6), {"m": {"name": "m"}})
    found = results(tmp_path)
    row = found.row("arm0", "m")
    assert row.against.p == pytest.approx(0.02) and row.p_holm > 0.05
    assert not row.told and found.kind(row) == ""
    assert (
        "not beyond chance once all 12 arms are counted (Holm): "
        in {arm: text for arm, text, _ in facts(found)["verdicts"]}["arm0"]
    )


def test_several_pictures_of_one_cell_are_averaged_and_said(tmp_path, write_run):
    write_run(tmp_path, grid(lambda name, p, s: float(s)))
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line | {"seed": 0}) + "\n" for line in lines))
    text = (tmp_path / "scores.csv").read_text().splitlines()
    rows = [",".join([*row.split(",")[:3], "0", *row.split(",")[4:]]) for row in text[1:]]
    (tmp_path / "scores.csv").write_text("\n".join([text[0], *rows]) + "\n")
    found = results(tmp_path)
    assert found.row("plain", "m").value.mean == 1.5
    assert "Several pictures of the same arm, prompt and seed in 5 cases" in found.notes[0]


def test_diffusion_negatives_are_told_by_their_source_not_their_name(tmp_path, write_run):
    values = grid(lambda name, p, s: 1.0 * s, ("plain", "dns-late", "negatives"))
    sources = {key[:3]: {"source": {"negatives": "dns"}.get(key[0], "auto")} for key in values}
    write_run(tmp_path, values, records=sources)
    found = results(tmp_path)
    assert found.arms == ["plain", "dns-late"]
    assert found.notes[0].startswith("Scores of 20 pictures")  # a diffusion-negative picture has none


def test_files_that_are_not_ours(tmp_path, write_run, arm):
    write_run(tmp_path, grid(lambda *_: 1.0), arms=[arm("plain"), {"name": 3}, "x", {"name": "other", "scale": "big"}])
    report(tmp_path)  # entries that do not describe an arm are passed over
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(ManifestError, match=r"metrics\.json is no JSON object"):
        results(tmp_path)
    (tmp_path / "metrics.json").write_text('{"m": 3}')
    with pytest.raises(ManifestError, match="score the folder again"):
        results(tmp_path)


def test_an_answer_for_every_case(tmp_path, write_run):
    write_run(
        tmp_path,
        grid(lambda name, p, s: (p * 3 + s * 5) % 7 + {"good": 2, "bad": -1}.get(name, 0), ("plain", "bad", "good")),
    )
    found = results(tmp_path)
    names = dict.fromkeys(found.arms, "") | {arm: arm for arm in found.arms}
    assert answer(found, names) == "In m, compared with plain: good (+2.000) does better; bad (-1.000) does worse."
    found.metrics["m"]["higher_is_better"] = None
    assert answer(found, names) == "In m, compared with plain: good (+2.000) and bad (-1.000) do differently."
