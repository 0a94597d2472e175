"""`dnp sweep`, `dnp score` and `dnp report`, one after the other, as a person types them."""

import json

import pytest
from click.testing import CliRunner

from dnp.cli.main import main
from dnp.models.stable_diffusion import StableDiffusion
from dnp.recipe import Sampling


def dnp(*words, status=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result.output


SMALL = ("--per-category", 1, "--arms", "plain,dnp2", "--steps", 2, "--dns-steps", 2, "--seeds", "0-1")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "run"
    dnp("sweep", *SMALL, "--choose", "3,7.5", "--choose-prompts", 1, "--choose-seeds", 1, "--out", out)
    return out


def test_scales_are_chosen_on_other_prompts_and_used(run):
    found = json.loads((run / "scales.json").read_text())
    tried = {arm: {row["scale"]: row["value"] for row in about["tried"]} for arm, about in found["arms"].items()}
    assert set(tried) == {"plain", "dnp2"} and set(tried["plain"]) == {3.0, 7.5}
    records = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    for arm, about in found["arms"].items():
        assert tried[arm][about["chosen"]] == max(tried[arm].values())
        assert {r["scale"] for r in records if r["arm"] == arm} == {about["chosen"]}
    trial = [json.loads(line) for line in (run / "choose" / "manifest.jsonl").read_text().splitlines()]
    assert not {r["prompt"] for r in trial} & {r["prompt"] for r in records}
    assert len(records) == 3 * 3 * 2  # with the diffusion-negatives


def test_prompts_to_choose_on_are_not_evaluated_even_where_all_were_asked_for(monkeypatch, tmp_path):
    import dnp.experiments.study as study

    plans = []
    monkeypatch.setattr(study, "chosen", lambda plan, scales, held_out, *_: plans.append((plan, held_out)) or plan)
    monkeypatch.setattr(study, "sweep", lambda plan, *_: type("Ledger", (), {"records": {}}))
    study.sweep_command(tmp_path, "attend-and-excite", [0], names=["plain"], choose=[3.0, 5.0], say=print)
    ((plan, held_out),) = plans
    assert len(held_out) == 30 and len(plan.prompts) == 276 - 30 and not set(plan.prompts) & set(held_out)


def test_score_and_report(run):
    assert "scores in" in dnp("score", run)
    assert (run / "scores.csv").read_text().count("both right") == 12
    dnp("report", run)
    page = (run / "report.html").read_text()
    assert page.count("<svg") >= 3 and "both right" in page
    assert "held-out" in (run / "report.md").read_text()


def test_the_same_again_makes_nothing_new(run):
    before = (run / "manifest.jsonl").read_bytes()
    dnp("sweep", *SMALL, "--choose", "3,7.5", "--choose-prompts", 1, "--choose-seeds", 1, "--out", run)
    assert (run / "manifest.jsonl").read_bytes() == before


def test_something_left_out_is_status_1(run):
    picture = next(run.glob("images/plain/*.png"))
    picture.rename(picture.with_suffix(".aside"))
    (run / "scored.json").unlink()
    try:
        assert f"{picture.name} is missing" in dnp("score", run, status=1)
    finally:
        picture.with_suffix(".aside").rename(picture)
    dnp("score", run)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("sweep", "--prompts", "cats"), "'cats' is neither a text file nor one of attend-and-excite"),
        (("sweep", "--arms", "plain,best"), "the arm 'best' is none of plain, dnp"),
        (("sweep", "--scale", "x"), "--scale 'x' is neither a number nor ARM=NUMBER"),
        (("sweep", "--scale", "5", "--choose", "3,5"), "leave --choose out"),
        (("sweep", "--choose", "a"), "--choose 'a' is no list of scales"),
        (("sweep", "--arm", "x", "u + p", "none"), "sum to"),
        (("sweep", "--prompts", "humans", "--choose", "3,5", "--arms", "plain"), "holds no prompts out"),
        (("ablate", "CFG(s)", "--scales", "a"), "are lists of numbers"),
        (("ablate", "u + p"), "sum to"),
        (("score", "nowhere"), "no manifest.jsonl"),
        (("report", "nowhere"), "no manifest.jsonl"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    output = dnp(*words, status=2)
    assert says in output and len(output.strip().splitlines()) == 1


def test_unknown_metrics_and_checkpoints_are_one_line(run):
    assert "'fid' is none of judge, clip-min-object" in dnp("score", run, "--metrics", "fid", status=2)
    assert "ARCHITECTURE/WEIGHTS" in dnp("score", run, "--clip", "none", status=2)
    assert "--classifier FILE" in dnp("score", run, "--metrics", "inception", status=2)


def test_ablate_crosses_formulas_scales_negatives_and_steps(tmp_path):
    out = tmp_path / "run"
    words = (
        "--scales",
        "3,5",
        "--steps",
        "2,3",
        "--negatives",
        "universal,a star",
        "--per-category",
        1,
        "--seeds",
        "0",
    )
    dnp("ablate", "CFG(s)", "NegPrompt(s, evaluations=2)", *words, "--strengths", "1,2", "--out", out)
    records = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    cells = {(r["guidance"], r["negative_prompt"], r["scale"], r["steps"]) for r in records if r["arm"] != "plain"}
    assert {(r["scale"], r["steps"]) for r in records if r["arm"] == "plain"} == {(7.5, 2)}
    assert len(cells) == (1 + 2) * 2 * 2 and len(records) == 3 * (1 + len(cells))
    page = (out / "report.html").read_text()
    assert "contrast by scale s" in page and "contrast by steps" in page and "contrast by strength w" not in page
    assert "NegPrompt(s, evaluations=2), a star, 3 steps" in page and page.count('class="grid"') == 2 * 2


def test_ablate_crosses_strengths_and_the_ways_to_make_diffusion_negatives(tmp_path):
    out, prompts = tmp_path / "run", tmp_path / "prompts.txt"
    prompts.write_text("a red circle and a blue square\n")
    late = "u + 3*(p - u) - StepScale(0, w, 2)*(n - u)"
    words = ("--strengths", "0,1", "--scales", "3,5", "--dns", "DNS(1)", "--dns", "DNS(3)", "--dns-steps", "2,3")
    words += ("--negatives", "auto,universal", "--steps", 3, "--prompts", prompts, "--seeds", "0", "--out", out)
    dnp("ablate", late, *words)
    arms = json.loads((out / "run.json").read_text())["arms"][1:]
    # No s in the formulas: one scale; and no diffusion-negative for the universal list.
    assert len(arms) == 2 * (2 * 2 + 1) and {arm["scale"] for arm in arms} == {3.0}
    records = {r["arm"]: r for r in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}
    assert {(r["guidance"], r["steps"]) for arm, r in records.items() if arm.startswith("dns")} == {
        (f"ε(empty) + {scale}(ε(empty) − ε(prompt))", steps) for scale in ("", "3 ") for steps in (2, 3)
    }
    levels = Sampling(steps=3).sigmas(StableDiffusion("embedded").denoiser)
    for arm in arms:
        more = int((levels[:-1] <= 2).sum()) if arm["strength"] else 0
        assert records[arm["name"]]["evaluations"] == 3 * 2 + more and more < 3
    page = (out / "report.html").read_text()
    for axis in ("strength w", "steps of the diffusion-negative", "x in the formula of the diffusion-negative"):
        assert f"both right by {axis}" in page
    assert "DNS(x)" in page and "by scale s" not in page


def test_gap_draws_the_four_columns(tmp_path):
    out = tmp_path / "run"
    words = ("a red circle", "a green heart", "--steps", 2, "--dns-steps", 2, "--scale", 4, "--out", out)
    assert "gap.png" in dnp("gap", *words)
    records = {(r["arm"], r["prompt"]): r for r in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}
    assert len(records) == 2 * 4
    for prompt in ("a red circle", "a green heart"):
        alone, caption = records["alone", prompt], records["dns", prompt]["caption"]
        # no prompt, the caption as the negative one: eq. 4 with p = ∅
        assert alone["guidance"] == "ε(empty) + 4 (ε(empty) − ε(negative))" and alone["negative_prompt"] == caption
    figure = (out / "gap.png").read_bytes()
    dnp("gap", *words)
    assert (out / "gap.png").read_bytes() == figure
    assert "there is no prompt" in dnp("gap", "--model", tmp_path, status=2)


def test_other_settings_are_refused(run):
    output = dnp("sweep", "--per-category", 1, "--arms", "plain", "--out", run, status=2)
    assert "holds another run (arms is" in output
