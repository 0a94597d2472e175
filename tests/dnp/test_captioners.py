"""Captioners that fail, from the command line: one line, nothing lost, and the same command goes on."""

import json

import pytest
from click.testing import CliRunner

import dnp.recipe
from captioning import CaptionError
from dnp.captioners import captioner_of
from dnp.cli.main import main

KEY = "sk-the-secret-of-this-test"
PROMPT = "a red circle and a blue square"


@pytest.fixture(autouse=True)
def loaded_once(embedded, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for room in ("generate", "experiments.worker"):
        monkeypatch.setattr(f"dnp.{room}.StableDiffusion", lambda name, device, dtype, **options: embedded)


def run(*arguments, status=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    assert KEY not in result.output
    return result


def generate(out, captioner, *options, status=0):
    options = ("--steps", "1", "--device", "cpu", *options)
    return run("generate", PROMPT, "--out", out, "--captioner", captioner, *options, status=status)


def pictures(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def lines(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def in_turn(*says):
    """Answers one after the other, the last one from then on."""
    left = list(says)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


def test_generate_keeps_what_was_made_and_goes_on(answers, tmp_path, monkeypatch):
    dog = answers.completion({"content": "a dog"})
    captioner = "openai:m@" + answers.url("x")
    answers.says["x"] = dog
    generate(tmp_path / "whole", captioner)

    answers.says["x"] = (401, {})
    failed = generate(tmp_path / "out", captioner, status=2)
    last = failed.stderr.splitlines()[-1]
    assert last.startswith(f"dnp: {captioner} does not take the key in OPENAI_API_KEY (401): set one")
    kept = {"00000-plain.png", "00000-dns.png"}
    assert set(pictures(tmp_path / "out")) == {record["path"] for record in lines(tmp_path / "out")} == kept

    real, painted = dnp.recipe.paint, []
    monkeypatch.setattr(dnp.recipe, "paint", lambda *a: painted.append(a[1]) or real(*a))
    answers.says["x"] = dog
    generate(tmp_path / "out", captioner)
    assert len(painted) == 1  # the last picture
    assert pictures(tmp_path / "out") == pictures(tmp_path / "whole")
    found, meant = (
        [dict(r, seconds=0, peak_mib=0, category="") for r in lines(tmp_path / name)] for name in ("out", "whole")
    )
    assert found == meant
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize("said", ["", "  ", "...", "I'm sorry, I can't help with that."])
def test_a_captioner_that_says_nothing(answers, tmp_path, said):
    answers.says["x"] = answers.completion({"content": said})
    failed = generate(tmp_path / "out", "openai:m@" + answers.url("x"), status=2)
    assert "take another" in failed.stderr.splitlines()[-1]
    assert set(pictures(tmp_path / "out")) == {"00000-plain.png", "00000-dns.png"}


def test_sixty_times_the_same_word(answers, tmp_path):
    answers.says["x"] = answers.completion({"content": "dog " * 60})
    generate(tmp_path / "out", "openai:m@" + answers.url("x"))
    record = lines(tmp_path / "out")[-1]
    assert record["arm"] == "dnp" and record["negative_prompt"] == "dog"
    assert record["caption"] == ("dog " * 60).strip()


def test_a_picture_that_was_changed_is_not_taken_up(answers, tmp_path):
    captioner = "openai:m@" + answers.url("x")
    answers.says["x"] = (401, {})
    generate(tmp_path / "out", captioner, status=2)
    before = pictures(tmp_path / "out")
    (tmp_path / "out" / "00000-plain.png").write_bytes(before["00000-dns.png"])
    generate(tmp_path / "out", captioner, status=2)
    assert pictures(tmp_path / "out") == before


def test_sweep_goes_on(answers, tmp_path):
    (tmp_path / "prompts").write_text(f"{PROMPT}\na green star\n")
    captioner = "openai:m@" + answers.url("x")

    def sweep(out, status=0):
        options = ("--arms", "plain,dnp", "--seeds", "0", "--batch", 1, "--steps", 1, "--dns-steps", 1)
        options += ("--device", "cpu", "--captioner", captioner, "--out", tmp_path / out)
        return run("sweep", "--prompts", tmp_path / "prompts", *options, status=status)

    refusal, dog = (answers.completion({"content": text}) for text in ("I'm sorry, but no.", "a dog"))
    answers.says["x"] = in_turn(refusal, dog)
    sweep("whole")
    answers.says["x"] = in_turn(refusal, (401, {}))
    assert "(401): set one" in sweep("out", status=2).stderr.splitlines()[-1]
    kept = pictures(tmp_path / "out")
    assert len(kept) == 3  # one unit: plain, dns and dnp of a prompt
    answers.says["x"] = dog
    sweep("out")
    assert (
        pictures(tmp_path / "out") == pictures(tmp_path / "whole")
        and kept.items() <= pictures(tmp_path / "out").items()
    )
    # one that is not described does not end a sweep
    refused = [record for record in lines(tmp_path / "out") if record["caption"].startswith("I'm sorry")]
    assert {(r["arm"], r["negative_prompt"]) for r in refused} == {("dns", ""), ("dnp", "")}
    assert json.loads((tmp_path / "out" / "run.json").read_text())["captioner"] == captioner
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


def test_a_key_in_the_address_is_refused_before_anything_is_written(tmp_path):
    for command in (("generate", PROMPT), ("sweep",), ("gap", PROMPT)):
        captioner = f"openai:m@http://user:{KEY}@localhost/v1"
        failed = run(*command, "--captioner", captioner, "--out", tmp_path / "out", status=2)
        assert "a key belongs into the environment" in failed.stderr
        assert not (tmp_path / "out").exists()


def test_a_captioner_is_recorded_as_it_was_given(embedded):
    path = str(embedded.folder / "captioner")
    assert captioner_of(embedded, path).name == path
    assert captioner_of(embedded).name == captioner_of(embedded, "captioner").name == "embedded/captioner"
    for name in ("", " "):
        with pytest.raises(CaptionError, match="the captioner has no name: give a directory, a hub name"):
            captioner_of(embedded, name)


def test_a_bad_caption_ends_no_sweep(answers, tmp_path):
    (tmp_path / "prompts").write_text(f"{PROMPT}\na green star\n")
    bad, dog = (answers.completion({"content": content}) for content in (["a", "list"], "a dog"))
    answers.says["x"] = in_turn(bad, dog)
    options = ("--arms", "plain,dnp", "--seeds", "0", "--batch", 1, "--steps", 1, "--dns-steps", 1, "--device", "cpu")
    captioner = "openai:m@" + answers.url("x")
    run("sweep", "--prompts", tmp_path / "prompts", *options, "--captioner", captioner, "--out", tmp_path / "out")
    assert [r["negative_prompt"] for r in lines(tmp_path / "out") if r["arm"] == "dnp"] == ["", "a dog"]
