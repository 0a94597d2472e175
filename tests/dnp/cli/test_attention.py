"""`dnp generate` with words that are attended to or bound, and the sheet of their maps."""

import json

import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("loaded_once")
PLAIN = ("--negative", "none", "--seed", 0)


def test_the_final_picture_attends(generate, lines, tmp_path):
    generate(tmp_path / "plain", *PLAIN, "--attention-maps")
    generate(tmp_path / "bound", *PLAIN, "--bind", "red:circle")
    generate(tmp_path / "attended", *PLAIN, "--attend")
    records = {name: lines(tmp_path / name)[0] for name in ("plain", "bound", "attended")}
    assert len({record["sha256"] for record in records.values()}) == 3
    assert records["bound"]["evaluations"] == records["plain"]["evaluations"] + 1 < records["attended"]["evaluations"]
    settings = {name: json.loads((tmp_path / name / "run.json").read_text("utf-8")) for name in records}
    assert settings["bound"]["bind"] == "red:circle" and settings["attended"]["attend"] == "entities"
    assert not {"attend", "bind"} & settings["plain"].keys()
    with Image.open(tmp_path / "plain" / "attention-maps.png") as sheet:
        assert sheet.width > 3 * 256  # the picture, the circle and the square


def test_what_cannot_be_attended_to(generate, tmp_path):
    for words, message in (
        (("--attend", "dog"), "the word 'dog' is not in the prompt"),
        (("--attention-maps", "--attend", "circle,dog"), "the word 'dog' is not in the prompt"),
        (("--bind", "red"), "'red' is no pair of a modifier and its noun: write red:car"),
        (("--bind", "red:dog"), "the word 'dog' is not in the prompt"),
        (("--attend", "circle", "--bind"), "give --attend or --bind"),
        (("--attend", "--sampler", "dpm_adaptive"), "chooses its own steps: no hook"),
    ):
        result = generate(tmp_path / "out", *PLAIN, *words, status=2)
        assert message in result.output
        assert not list((tmp_path / "out").glob("*.png"))
