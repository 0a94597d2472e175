"""`dnp generate`: what it writes, that it writes the same again, and what it says to what it cannot use."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from captioning import Transformers
from dnp.models.locate import EMBEDDED

PROMPT = "a red balloon and a blue bowl"
pytestmark = pytest.mark.usefixtures("loaded_once")


def pictures(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_what_generate_writes(lines, run):
    names = {f"0000{seed}-{arm}.png" for seed in range(4) for arm in ("plain", "dns", "dnp")}
    assert {path.name for path in run.iterdir()} == names | {"sheet.png", "run.json", "manifest.jsonl", ".lock"}
    settings = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert settings["prompt"] == PROMPT and settings["model"] == "embedded" and settings["steps"] == 1
    assert settings["threads"] == 1
    assert "seed" not in settings  # any more of them may come into the same folder
    records = lines(run)
    assert {record["path"] for record in records} == names
    for record in records:
        assert hashlib.sha256((run / record["path"]).read_bytes()).hexdigest() == record["sha256"]
        assert bool(record["negative_prompt"]) == (record["arm"] == "dnp")
        assert bool(record["caption"]) == (record["arm"] != "plain")
        assert record["source"] == {"plain": "none", "dns": "dns", "dnp": "auto"}[record["arm"]]


def test_the_same_command_makes_the_same_bytes_whatever_the_count(generate, run, tmp_path):
    generate(tmp_path / "new", "--seed", "0", "--count", "4")
    assert pictures(tmp_path / "new") == pictures(run)
    generate(tmp_path / "one", "--seed", "2")
    found = pictures(tmp_path / "one")
    assert found.pop("sheet.png") and found.items() <= pictures(run).items() and len(found) == 3


def test_again_makes_nothing_new(generate, run, monkeypatch):
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.iterdir()}
    monkeypatch.setattr(Transformers, "__call__", None)  # would fail if it were asked for anything
    result = generate(run, "--seed", "0-3")
    assert "4 of 4 seeds already in" in result.stderr
    after = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.iterdir()}
    for made_each_time in ("sheet.png", ".lock"):
        before.pop(made_each_time), after.pop(made_each_time)
    assert before == after


def test_a_picture_that_was_lost_is_made_again(generate, run):
    pictured = pictures(run)
    for lost in ("00001-plain.png", "00002-dns.png"):
        (run / lost).unlink()
    generate(run, "--seed", "1")  # and the other, not asked for, does not stop the contact sheet
    assert "00002-dns.png" not in pictures(run)
    generate(run, "--seed", "0-3")
    assert pictures(run) == pictured


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(generate, lines, run, tmp_path, monkeypatch):
    real, asked = Transformers.__call__, []

    def tired(self, images):
        asked.append(images)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Transformers, "__call__", tired)
        result = generate(tmp_path / "out", "--seed", "0-3", status=130)
    assert result.stderr.splitlines()[-1].startswith("dnp: stopped; what was finished is kept")
    finished = {f"0000{seed}-{arm}.png" for seed in (0, 1) for arm in ("plain", "dns", "dnp")}
    finished |= {"00002-plain.png", "00002-dns.png"}  # for whose caption it was stopped
    assert {path.name for path in (tmp_path / "out").iterdir()} == finished | {
        "run.json",
        "manifest.jsonl",
        "sheet.png",
        ".lock",
    }
    assert {record["path"] for record in lines(tmp_path / "out")} == finished
    generate(tmp_path / "out", "--seed", "0-3")
    assert pictures(tmp_path / "out") == pictures(run)


def test_the_record_in_a_picture(run):
    with Image.open(run / "00001-dnp.png") as image:
        record, parameters = json.loads(image.info["dnp"]), image.info["parameters"].splitlines()
    assert record["seed"] == 1 and record["prompt"] == PROMPT and record["versions"]["dnp"]
    assert parameters[0] == PROMPT and parameters[1] == f"Negative prompt: {record['negative_prompt']}"
    assert parameters[2].startswith("Steps: 1, Sampler: ") and "Seed: 1, Size: 64x64, Model: embedded" in parameters[2]


@pytest.mark.parametrize(
    "options, arms",
    [
        (["--negative", "none"], {"plain"}),
        (["--negative", "universal"], {"plain", "dnp"}),
        (["--negative", "a apple", "--guidance", "u + s*(p - u) - w*(n - u)", "--strength", "2"], {"plain", "dnp"}),
        (["--negative", "none", "--guidance", "8*p - 7*u", "--sampler", "ddim", "--schedule", "leading"], {"plain"}),
        (["--guidance", "8*p - 7*u"], {"plain"}),  # no diffusion-negative nor caption, which nothing would use
    ],
)
def test_other_negatives_and_formulas(generate, lines, tmp_path, options, arms):
    generate(tmp_path / "out", *options)
    records = {record["arm"]: record for record in lines(tmp_path / "out")}
    assert records.keys() == arms
    if "8*p - 7*u" in options:
        assert records["plain"]["evaluations"] == 2 and "8" in records["plain"]["guidance"]
    if "dnp" in arms:
        universal = json.loads((EMBEDDED / "dnp.json").read_text())["universal"]
        assert records["dnp"]["negative_prompt"] == ("a apple" if "a apple" in options else universal)


def test_a_negative_prompt_that_somebody_wrote_is_used_as_it_is(dnp, generate, lines, tmp_path):
    long = '"a apple" on a  gray background, ' * 30
    generate(tmp_path / "out", "--negative", long)
    assert {r["negative_prompt"] for r in lines(tmp_path / "out")} == {"", long}
    own = ["--arms", "plain", "--arm", "own", "NegPrompt(s, strength=w)", long, "--per-category", "1", "--seeds", "0"]
    dnp("sweep", *own, "--steps", 1, "--device", "cpu", "--out", tmp_path / "sweep")
    assert {r["negative_prompt"] for r in lines(tmp_path / "sweep") if r["arm"] == "own"} == {long}


def test_the_captioner_is_recorded_as_it_was_given(generate, lines, tmp_path):
    path = str(EMBEDDED / "captioner")
    for out, given, name in (("own", [], "embedded/captioner"), ("path", ["--captioner", path], path)):
        generate(tmp_path / out, *given)
        assert {r["captioner"] for r in lines(tmp_path / out)} == {name}


def test_a_word_that_the_model_never_saw(dnp, lines, tmp_path):
    result = dnp(
        "generate", "a red zebra", "--out", tmp_path / "out", "--steps", 1, "--device", "cpu", "--negative", "none"
    )
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("warning")]
    assert "was never shown 'zebra'; it knows: a an and with cat dog" in warning
    assert len(lines(tmp_path / "out")) == 1


def test_a_person_is_asked(generate, lines, tmp_path):
    asked = ["--negative", "ask", "--count", "2"]
    assert "That is empty." in generate(tmp_path / "out", *asked, keys="a white bench\n\na apple\n").stderr
    found = [record["negative_prompt"] for record in lines(tmp_path / "out") if record["arm"] == "dnp"]
    assert found == ["a white bench", "a apple"]


def test_a_batch_makes_the_same_pictures_up_to_rounding(generate, run, tmp_path):
    generate(tmp_path / "out", "--seed", "0-2", "--batch", "2", "--negative", "a apple")
    generate(tmp_path / "one", "--seed", "0-2", "--negative", "a apple")
    for one in (tmp_path / "one").glob("0*.png"):
        with Image.open(one) as a, Image.open(tmp_path / "out" / one.name) as b:
            assert abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
    assert json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["batch"] == 2
    (line,) = generate(tmp_path / "out", "--seed", "3", "--negative", "a apple", status=2).stderr.splitlines()
    assert "batch is 2 there" in line


@pytest.mark.parametrize(
    "options, message",
    [
        (["--sampler", "warp"], "unknown sampler 'warp'; known: euler, "),
        (["--sampler", "dpmpp2m"], "did you mean 'dpmpp_2m'?"),
        (["--schedule", "warp"], "unknown schedule 'warp'; known: model, karras, "),
        (["--schedule", "leading", "--steps", "2000"], "at most the model's 1000 steps; got 2000"),
        (["--guidance", "Warp(3)"], "cannot read 'Warp(3)'"),
        (["--guidance", "u + 2*p"], "cannot read 'u + 2*p'"),
        (["--guidance", "u + 2*(p - ε(other))"], "needs a text for 'other'"),
        (["--dns", "u + 2*(n - p)"], "needs a text for 'negative'"),
        (["--negative", "none", "--guidance", "u + 2*(p - n)"], "needs a text for 'negative'"),
        (["--guidance", "CFG(s)", "--negative", "a apple"], "takes no negative prompt: leave --negative 'a apple' out"),
        (["--seed", "0-3", "--count", "4"], "--seed already names 4 seeds: leave --count 4 out"),
        (["--model", "no/such/model"], "there is no model directory 'no/such/model'"),
        (["--captioner", "./nothing"], "there is no folder ./nothing"),
        (["--device", "abacus"], "the device 'abacus' cannot be used"),
        (["--dtype", "float64"], "the dtype 'float64' is none of float32"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(generate, tmp_path, options, message):
    result = generate(tmp_path / "out", *options, status=2)
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert line.startswith("dnp: ") and message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prompt", ["", "  "])
def test_an_empty_prompt(dnp, tmp_path, prompt):
    (line,) = dnp("generate", prompt, "--out", tmp_path / "out", status=2).stderr.splitlines()
    assert line == "dnp: the prompt is empty: say what the picture should show"
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_used(generate, lines, run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    before = pictures(run)
    for out, options, message in (
        (run, ["--scale", "9"], "holds another run (plain is"),
        (run, ["--negative", "none"], "holds another run (negative is 'auto' there, 'none' here)"),
        (tmp_path / "other", [], "holds other files: give an empty or a new one with --out"),
        (tmp_path / "file", [], "cannot be written (File exists): give another with --out"),
        (tmp_path / "file" / "out", [], "cannot be written (Not a directory): give another with --out"),
    ):
        (line,) = generate(out, "--seed", "0-3", *options, status=2).stderr.splitlines()
        assert message in line and repr(str(out)) in line
    assert pictures(run) == before and len(lines(run)) == 12
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]
