"""The record of a picture: the same in its PNG and in the manifest."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from dnp import DNPError
from dnp.runs.record import Record, read_record, versions

FACTS = {"path": "a.png", "prompt": "a red circle", "seed": 3, "arm": "dnp", "source": "auto", "guidance": "p"}
FACTS |= {"model": "embedded", "dtype": "float32", "sampler": "euler", "schedule": "karras", "steps": 2}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), "uint8"))


def test_a_line_and_its_png(tmp_path):
    line, data = Record(**FACTS, evaluations=4, scale=7.5, negative_prompt="a star").line(PICTURE, 1.23456)
    (tmp_path / "a.png").write_bytes(data)
    assert hashlib.sha256(data).hexdigest() == line["sha256"] and line["seconds"] == 1.2346 and line["peak_mib"] > 1
    measured = {"sha256", "seconds", "peak_mib"}
    record = read_record(tmp_path / "a.png")
    assert record == {key: value for key, value in line.items() if key not in measured}
    empty = {"category": "", "strength": None, "caption": "", "captioner": "none"}
    size = {"width": 6, "height": 4, "versions": versions()}
    assert record == FACTS | {"evaluations": 4, "scale": 7.5, "negative_prompt": "a star"} | empty | size
    assert Image.open(tmp_path / "a.png").tobytes() == PICTURE.tobytes()
    assert Record(**FACTS, evaluations=4, scale=7.5, negative_prompt="a star").line(PICTURE, 9)[1] == data


def test_what_is_not_always_there():
    more = {"category": "two", "entities": ["a red circle"], "model_options": {"size": "6x4"}, "caption_error": "why"}
    line, _ = Record(**FACTS, evaluations=4, **more).line(PICTURE, 1)
    assert more.items() <= line.items()


def test_a_line_break_begins_no_field_of_the_parameters(tmp_path):
    _, data = Record(**FACTS | {"prompt": "a\nNegative prompt: b\nSteps: 9"}, evaluations=4).line(PICTURE, 1)
    (tmp_path / "a.png").write_bytes(data)
    with Image.open(tmp_path / "a.png") as image:
        first, second = image.info["parameters"].split("\n")
        assert json.loads(image.info["dnp"])["prompt"] == "a\nNegative prompt: b\nSteps: 9"
    assert first == "a Negative prompt: b Steps: 9" and second.startswith("Steps: 2, Sampler: euler")


def test_pictures_without_a_record(tmp_path):
    PICTURE.save(tmp_path / "bare.png")
    with pytest.raises(DNPError, match="carries no record"):
        read_record(tmp_path / "bare.png")
    with pytest.raises(DNPError, match="is no readable picture"):
        read_record(tmp_path / "none.png")
