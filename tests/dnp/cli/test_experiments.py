"""`dnp sweep`, `dnp ablate` and `dnp gap`, as a person types them."""

import json

import pytest

from dnp.models.defaults import Defaults
from dnp.models.locate import EMBEDDED
from dnp.models.stable_diffusion import StableDiffusion
from dnp.recipe import Sampling


def test_scales_are_chosen_on_other_prompts_and_used(lines, swept):
    run, _ = swept
    found = json.loads((run / "scales.json").read_text())
    tried = {arm: {row["scale"]: row["value"] for row in about["tried"]} for arm, about in found["arms"].items()}
    assert set(tried) == {"plain", "dnp2"} and set(tried["plain"]) == {3.0, 7.5}
    records = lines(run)
    for arm, about in found["arms"].items():
        assert tried[arm][about["chosen"]] == max(tried[arm].values())
        assert {r["scale"] for r in records if r["arm"] == arm} == {about["chosen"]}
    trial = lines(run / "choose")
    assert not {r["prompt"] for r in trial} & {r["prompt"] for r in records}
    assert len(records) == 3 * 3 * 2  # with the diffusion-negatives


def test_the_same_again_makes_nothing_new(dnp, swept):
    run, words = swept
    before = (run / "manifest.jsonl").read_bytes()
    dnp(*words)
    assert (run / "manifest.jsonl").read_bytes() == before


def test_other_settings_are_refused(dnp, swept):
    said = dnp("sweep", "--per-category", 1, "--arms", "plain", "--out", swept[0], status=2).stderr
    assert "holds another run (arms is" in said


def test_a_sweep_takes_what_a_model_is_loaded_with(dnp, lines, tmp_path):
    words = ("--arms", "plain", "--per-category", 1, "--steps", 1, "--seed", 0, "--size", "32x48", "--empty", "zeros")
    dnp("sweep", *words, "--schedule", "leading", "--out", tmp_path / "run")
    for record in lines(tmp_path / "run"):
        assert (record["width"], record["height"], record["schedule"]) == (32, 48, "leading")
        assert record["model_options"] == {"empty": "zeros", "size": "32x48"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("sweep", "--prompts", "cats"), "'cats' is neither a text file nor one of attend-and-excite"),
        (("sweep", "--arms", "plain,best"), "the arm 'best' is none of plain, dnp"),
        (("sweep", "--scale", "x"), "'x' is neither a number nor ARM=NUMBER"),
        (("sweep", "--scale", "5", "--choose", "3,5"), "leave --choose out"),
        (("sweep", "--choose", "a"), "'a' is not a list of numbers"),
        (("sweep", "--arm", "x", "u + p", "none"), "sum to"),
        (("sweep", "--prompts", "humans", "--choose", "3,5", "--arms", "plain"), "holds no prompts out"),
        (("ablate", "CFG(s)", "--scales", "a"), "'a' is not a list of numbers"),
        (("ablate", "u + p"), "sum to"),
        (("gap", "--model", "."), 'there is no prompt: dnp gap "a cat and a dog" --model DIR'),
        (("score", "nowhere"), "no manifest.jsonl"),
        (("report", "nowhere"), "no manifest.jsonl"),
    ],
)
def test_bad_input_is_one_line(dnp, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    (line,) = dnp(*words, status=2).stderr.splitlines()
    assert says in line


def test_ablate_crosses_formulas_scales_negatives_and_steps(dnp, lines, tmp_path):
    out = tmp_path / "run"
    words = (
        "--scales",
        "3,5",
        "--steps",
        "2,3",
        "--negatives",
        "universal,a apple",
        "--per-category",
        1,
        "--seeds",
        "0",
    )
    dnp("ablate", "CFG(s)", "NegPrompt(s, evaluations=2)", *words, "--strengths", "1,2", "--out", out)
    records = lines(out)
    cells = {(r["guidance"], r["negative_prompt"], r["scale"], r["steps"]) for r in records if r["arm"] != "plain"}
    assert {(r["scale"], r["steps"]) for r in records if r["arm"] == "plain"} == {(Defaults.of(EMBEDDED).scale, 2)}
    assert len(cells) == (1 + 2) * 2 * 2 and len(records) == 3 * (1 + len(cells))
    page = (out / "report.html").read_text()
    assert "contrast by scale s" in page and "contrast by steps" in page and "contrast by strength w" not in page
    assert "NegPrompt(s, evaluations=2), a apple, 3 steps" in page and page.count('class="grid"') == 2 * 2


def test_ablate_crosses_strengths_and_the_ways_to_make_diffusion_negatives(dnp, lines, tmp_path):
    out, prompts = tmp_path / "run", tmp_path / "prompts.txt"
    prompts.write_text("a red balloon and a blue bowl\n")
    late = "u + 3*(p - u) - StepScale(0, w, 2)*(n - u)"
    words = ("--strengths", "0,1", "--scales", "3,5", "--dns", "DNS(1)", "--dns", "DNS(3)", "--dns-steps", "2,3")
    words += ("--negatives", "auto,universal", "--steps", 3, "--prompts", prompts, "--seeds", "0", "--out", out)
    dnp("ablate", late, *words)
    arms = json.loads((out / "run.json").read_text())["arms"][1:]
    # No s in the formulas: one scale; and no diffusion-negative for the universal list.
    assert len(arms) == 2 * (2 * 2 + 1) and {arm["scale"] for arm in arms} == {3.0}
    records = {r["arm"]: r for r in lines(out)}
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


def test_gap_draws_the_four_columns(dnp, lines, tmp_path):
    out = tmp_path / "run"
    words = ("a red balloon", "a green car", "--steps", 2, "--scale", 4, "--out", out)
    assert "gap.png" in dnp("gap", *words).stderr
    records = {(r["arm"], r["prompt"]): r for r in lines(out)}
    assert len(records) == 2 * 4
    for prompt in ("a red balloon", "a green car"):
        alone, caption = records["alone", prompt], records["dns", prompt]["caption"]
        # no prompt, the caption as the negative one: eq. 4 with p = ∅
        assert alone["guidance"] == "ε(empty) + 4 (ε(empty) − ε(negative))" and alone["negative_prompt"] == caption
    figure = (out / "gap.png").read_bytes()
    dnp("gap", *words)
    assert (out / "gap.png").read_bytes() == figure
