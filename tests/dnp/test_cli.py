"""The command line: what it writes, that it writes the same again, and what it says to what it cannot use."""

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from functools import cache

import huggingface_hub
import pytest
from click.testing import CliRunner
from PIL import Image

from captioning import Transformers
from dnp.cli.main import main
from dnp.models.locate import EMBEDDED
from dnp.models.stable_diffusion import StableDiffusion

PROMPT = "a red circle and a blue square"
FAST = ["--steps", "1", "--device", "cpu"]


def dnp(*arguments, status=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def generate(out, *options, status=0):
    return dnp("generate", PROMPT, "--out", out, *FAST, *options, status=status)


def pictures(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def lines(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four seeds with the captioner, uninterrupted."""
    folder = tmp_path_factory.mktemp("run") / "deep" / "out"
    generate(folder, "--seed", "0-3")
    return folder


@pytest.fixture(autouse=True)
def loaded_once(run, embedded, monkeypatch):
    """But for the first run, the embedded model and its captioner are not read again for each command."""

    def model(name, device, dtype, **options):
        same = (name, device, dtype, options) == ("embedded", "cpu", None, {})
        return embedded if same else StableDiffusion(name, device, dtype, **options)

    @cache
    def captioner(name, **options):
        return Transformers(name, **options)

    monkeypatch.setattr("dnp.generate.StableDiffusion", model)
    monkeypatch.setattr("dnp.captioners.Transformers", captioner)


def test_what_generate_writes(run):
    names = {f"0000{seed}-{arm}.png" for seed in range(4) for arm in ("plain", "dns", "dnp")}
    assert {path.name for path in run.iterdir()} == names | {"sheet.png", "run.json", "manifest.jsonl"}
    settings = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert settings["prompt"] == PROMPT and settings["model"] == "embedded" and settings["steps"] == 1
    assert "seed" not in settings  # any more of them may come into the same folder
    records = lines(run)
    assert {record["path"] for record in records} == names
    for record in records:
        assert hashlib.sha256((run / record["path"]).read_bytes()).hexdigest() == record["sha256"]
        assert bool(record["negative_prompt"]) == (record["arm"] == "dnp")
        assert bool(record["caption"]) == (record["arm"] != "plain")


def test_the_same_command_makes_the_same_bytes_whatever_the_count(run, tmp_path):
    generate(tmp_path / "new", "--seed", "0", "--count", "4")
    assert pictures(tmp_path / "new") == pictures(run)
    generate(tmp_path / "one", "--seed", "2")
    found = pictures(tmp_path / "one")
    assert found.pop("sheet.png") and found.items() <= pictures(run).items() and len(found) == 3


def test_again_makes_nothing_new(run, monkeypatch):
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.iterdir()}
    monkeypatch.setattr(Transformers, "__call__", None)  # would fail if it were asked for anything
    result = generate(run, "--seed", "0-3")
    assert "4 of 4 seeds are already in" in result.stderr
    after = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.iterdir()}
    before.pop("sheet.png"), after.pop("sheet.png")  # which is made of them, each time
    assert before == after


def test_a_picture_that_was_lost_is_made_again(run):
    pictured = pictures(run)
    for lost in ("00001-plain.png", "00002-dns.png"):
        (run / lost).unlink()
    generate(run, "--seed", "1")  # and the other, not asked for, does not stop the contact sheet
    assert "00002-dns.png" not in pictures(run)
    generate(run, "--seed", "0-3")
    assert pictures(run) == pictured


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(run, tmp_path, monkeypatch):
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
    }
    assert {record["path"] for record in lines(tmp_path / "out")} == finished
    generate(tmp_path / "out", "--seed", "0-3")
    assert pictures(tmp_path / "out") == pictures(run)


@pytest.mark.parametrize("stop", ["os.replace", "os.fdopen"])
def test_nothing_is_half_written(tmp_path, monkeypatch, stop):
    from dnp import folder

    def stopped(*arguments):
        raise KeyboardInterrupt

    (tmp_path / "kept").write_bytes(b"old")
    monkeypatch.setattr(stop, stopped)
    with pytest.raises(KeyboardInterrupt):
        folder.write_whole(tmp_path / "kept", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and (tmp_path / "kept").read_bytes() == b"old"


def test_the_record_in_a_picture(run):
    with Image.open(run / "00001-dnp.png") as image:
        record, parameters = json.loads(image.info["dnp"]), image.info["parameters"].splitlines()
    assert record["seed"] == 1 and record["prompt"] == PROMPT and record["versions"]["dnp"]
    assert parameters[0] == PROMPT and parameters[1] == f"Negative prompt: {record['negative_prompt']}"
    assert parameters[2].startswith("Steps: 1, Sampler: ") and "Seed: 1, Size: 64x64, Model: embedded" in parameters[2]


def test_show(run, tmp_path):
    shown = dnp("show", run).stdout
    assert shown.count(repr(PROMPT)) == 12 and "00003-dns.png" in shown
    one = dnp("show", run / "00001-dnp.png").stdout.splitlines()
    assert one[0] == f"00001-dnp.png: {PROMPT!r}, seed 1 (dnp)"
    assert [line.split()[0] for line in one[1:]] == ["guidance", "negative", "caption", "sampler", "model"]
    record = json.loads(dnp("show", "--json", run / "00001-dnp.png").stdout)
    assert record.items() <= next(r for r in lines(run) if r["path"] == "00001-dnp.png").items()
    assert len(dnp("show", "--json", run).stdout.splitlines()) == 12

    Image.new("RGB", (4, 4)).save(tmp_path / "bare.png")
    (tmp_path / "text.png").write_text("no picture")
    for path, message in (
        (tmp_path, "there is no manifest.jsonl"),
        (tmp_path / "bare.png", "carries no record"),
        (tmp_path / "text.png", "is no readable picture"),
        (tmp_path / "nothing.png", "is no readable picture"),
    ):
        (line,) = dnp("show", path, status=2).stderr.splitlines()
        assert message in line and str(path) in line


@pytest.mark.parametrize(
    "options, arms",
    [
        (["--negative", "none"], {"plain"}),
        (["--negative", "universal"], {"plain", "dnp"}),
        (["--negative", "a star", "--guidance", "u + s*(p - u) - w*(n - u)", "--strength", "2"], {"plain", "dnp"}),
        (["--negative", "none", "--guidance", "8*p - 7*u", "--sampler", "ddim", "--schedule", "leading"], {"plain"}),
    ],
)
def test_other_negatives_and_formulas(tmp_path, options, arms):
    generate(tmp_path / "out", *options)
    records = {record["arm"]: record for record in lines(tmp_path / "out")}
    assert records.keys() == arms
    if "8*p - 7*u" in options:
        assert records["plain"]["evaluations"] == 2 and "8" in records["plain"]["guidance"]
    if "dnp" in arms:
        universal = json.loads((EMBEDDED / "dnp.json").read_text())["universal"]
        assert records["dnp"]["negative_prompt"] == ("a star" if "a star" in options else universal)


def test_a_word_that_the_model_never_saw(tmp_path):
    result = dnp("generate", "a red zebra", "--out", tmp_path / "out", *FAST, "--negative", "none")
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("warning")]
    assert "was never shown 'zebra'; it knows: a an and on background circle" in warning
    assert len(lines(tmp_path / "out")) == 1


def test_a_person_is_asked(tmp_path):
    arguments = ["generate", PROMPT, "--out", str(tmp_path / "out"), *FAST, "--negative", "ask", "--count", "2"]
    result = CliRunner().invoke(main, arguments, input="a white cross\n\na star\n")
    assert result.exit_code == 0 and "That is empty." in result.stderr
    found = [record["negative_prompt"] for record in lines(tmp_path / "out") if record["arm"] == "dnp"]
    assert found == ["a white cross", "a star"]


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
        (["--scale", "nan"], "nan"),
        (["--negative", " "], "the negative prompt is empty"),
        (["--negative", "…"], "has no words: write one"),
        (["--seed", "3-1"], "--seed '3-1' is an empty range: write the smaller seed first"),
        (["--seed", "x"], "--seed 'x' is neither a number nor a range"),
        (["--seed", "-1"], "--seed '-1' is neither a number nor a range"),
        (["--seed", "0-3", "--count", "4"], "--seed '0-3' already says how many"),
        (["--seed", str(2**63)], "is too large"),
        (["--model", "no/such/model"], "there is no model directory 'no/such/model'"),
        (["--captioner", "./nothing"], "there is no folder ./nothing"),
        (["--device", "abacus"], "the device 'abacus' cannot be used"),
        (["--dtype", "float64"], "the dtype 'float64' is none of float32"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, options, message):
    result = generate(tmp_path / "out", *options, status=2)
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert line.startswith("dnp: ") and message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prompt", ["", "  "])
def test_an_empty_prompt(tmp_path, prompt):
    (line,) = dnp("generate", prompt, "--out", tmp_path / "out", status=2).stderr.splitlines()
    assert line == "dnp: the prompt is empty: say what the picture should show"
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_used(run, tmp_path):
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


def test_a_manifest_that_was_edited(run, tmp_path):
    (tmp_path / "manifest.jsonl").write_text((run / "manifest.jsonl").read_text(encoding="utf-8") + "{\n", "utf-8")
    (line,) = dnp("show", tmp_path, status=2).stderr.splitlines()
    assert "manifest.jsonl, line 13 is no JSON" in line


def test_lists(monkeypatch):
    listed = dnp("samplers").stdout
    assert "  dpmpp_2m " in listed and "  karras " in listed
    listed = dnp("formulas").stdout
    assert "NegPrompt(s, evaluations=3)" in listed and "eq. 19" in listed
    assert "ε(empty) + 7.5 (ε(prompt) − ε(negative))" in listed

    def no_cache():
        raise huggingface_hub.CacheNotFound("there is none", cache_dir="/nowhere")

    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", no_cache)
    listed = dnp("models").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["embedded", "DIR", "FILE", "HUB_ID"] and str(EMBEDDED) in listed[0]


@pytest.mark.parametrize("others", [[], ["guidance"]])
def test_env_warns_of_another_distribution_with_our_names(monkeypatch, others):
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"guidance": ["dnp", *others]})
    shown = dnp("env").stdout
    assert "torch " in shown and "k-diffusion " in shown and "devices: " in shown and "cpu" in shown
    warning = "the distribution guidance also claims the package 'guidance'"
    assert (warning in shown) == bool(others) and ("no other distribution claims" in shown) != bool(others)
    assert not others or "pip uninstall guidance" in shown


def test_help_is_fast(tmp_path):
    code = (
        "import sys\nfrom dnp.cli.main import main\nmain(sys.argv[1:], standalone_mode=False)\n"
        "print(*sorted({'torch', 'diffusers', 'transformers', 'PIL'} & sys.modules.keys()), file=sys.stderr)"
    )
    for arguments in (["--help"], ["generate", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert "Usage: " in done.stdout and done.stderr == "\n"
