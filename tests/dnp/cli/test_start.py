"""`dnp generate --init`: what it records, and what it refuses."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from dnp.runs.record import read_record

pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture
def files(tmp_path, embedded):
    """The name of a picture and of a mask, whose right half is kept."""
    size = embedded.width, embedded.height
    pixels = np.random.default_rng(0).integers(0, 256, (*reversed(size), 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "init.png")
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    mask.save(tmp_path / "mask.png")
    return tmp_path / "init.png", tmp_path / "mask.png"


def test_a_picture_to_start_at_is_recorded_and_another_refused(generate, tmp_path, files):
    init, mask = files
    out = tmp_path / "out"
    words = ("--negative", "a apple", "--steps", 4, "--init", init, "--mask", mask, "--denoise", 0.5)
    generate(out, *words)
    settings = json.loads((out / "run.json").read_text("utf-8"))
    start = {
        "init": {"name": "init.png", "sha256": hashlib.sha256(init.read_bytes()).hexdigest()},
        "denoise": 0.5,
        "mask": {"name": "mask.png", "sha256": hashlib.sha256(mask.read_bytes()).hexdigest()},
    }
    assert {name: settings[name] for name in start} == start
    record = read_record(out / "00000-dnp.png")
    assert record["start"] == start and record["evaluations"] < 4 * 2
    with Image.open(out / "00000-dnp.png") as image:
        assert "Denoising strength: 0.5, " in image.info["parameters"]
    before = (out / "00000-dnp.png").read_bytes()
    assert "1 of 1 seed already in" in generate(out, *words).stderr
    assert (out / "00000-dnp.png").read_bytes() == before
    Image.open(init).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(init)
    assert "holds another run (init is" in generate(out, *words, status=2).stderr
    assert "holds another run (init is" in generate(out, *words[:4], status=2).stderr


@pytest.mark.parametrize(
    "words, message",
    [
        (["--denoise", 0.5], "denoise is for a picture to start at"),
        (["--mask", "MASK"], "mask is for a picture to start at"),
        (["--init", "INIT", "--denoise", 1.5], "denoise is 1.5: give the share of the steps"),
        (["--init", "INIT", "--mask", "SMALL"], "the mask is 3x2, the picture to start at"),
        (["--init", "INIT", "--denoise", 0.5], "0.5 of 1 steps is no step"),
        (["--init", "missing.png"], "--init missing.png is no file"),
        (["--init", "TEXT"], "is no readable picture"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_made(generate, tmp_path, files, words, message):
    Image.new("L", (3, 2)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    named = {"INIT": files[0], "MASK": files[1], "SMALL": tmp_path / "small.png", "TEXT": tmp_path / "text.png"}
    result = generate(tmp_path / "out", *[named.get(word, word) for word in words], status=2)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("dnp: ")]
    assert message in line and not (tmp_path / "out").exists()
