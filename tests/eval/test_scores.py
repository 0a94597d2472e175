"""Scoring a folder: what is kept, what is left out and said, and the sets of pictures."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from eval.manifest import ManifestError
from eval.metrics.metric import Kind
from eval.scores import read_scores, score


class Brightness:
    """A metric of one's own, as short as one can be."""

    name = "mean brightness"
    kinds = {"brightness": Kind("level")}
    seen = 0

    def __call__(self, images, prompts):
        Brightness.seen += len(images)
        return {"brightness": [float(np.asarray(image).mean()) for image in images]}


@pytest.fixture
def folder(tmp_path, world):
    lines = []
    for i, (image, prompt) in enumerate(zip(*world, strict=True)):
        path = tmp_path / f"{i}.png"
        image.save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        record = {"path": path.name, "prompt": prompt.text, "seed": i, "arm": "ab"[i % 2], "sha256": digest}
        lines.append(json.dumps(record))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_folder_is_scored_and_what_was_scored_is_kept(folder, world):
    Brightness.seen = 0
    assert score(folder, [Brightness()], label=None) == []
    rows = read_scores(folder)
    expected = [float(np.asarray(image).mean()) for image in world[0]]
    assert [float(row["value"]) for row in rows] == expected and Brightness.seen == 12
    score(folder, [Brightness()], label=None)
    assert Brightness.seen == 12 and read_scores(folder) == rows
    assert json.loads((folder / "metrics.json").read_text())["brightness"]["name"] == "mean brightness"


class Width:
    name = "width"
    kinds = {"width": Kind("pixels")}

    def __call__(self, images, prompts):
        return {"width": [float(image.width) for image in images]}


def test_another_metric_later_keeps_the_first_ones_scores(folder):
    score(folder, [Brightness()], label=None)
    first = read_scores(folder)
    score(folder, [Width()], label=None)
    rows = read_scores(folder)
    assert [row for row in rows if row["metric"] == "brightness"] == first
    assert len(rows) == 24 and set(json.loads((folder / "metrics.json").read_text())) == {"brightness", "width"}


def test_a_scored_picture_that_is_lost_or_changed_later_is_named(folder):
    score(folder, [Brightness()], label=None)
    (folder / "0.png").unlink()
    Image.new("RGB", (8, 8)).save(folder / "1.png")
    problems = score(folder, [Brightness()], label=None)
    assert len(problems) == 2 and "0.png is missing" in problems[0] and "1.png is not the picture" in problems[1]
    assert len(read_scores(folder)) == 10


def test_what_is_missing_or_broken_is_named_and_the_rest_is_scored(folder):
    (folder / "0.png").unlink()
    (folder / "1.png").write_bytes(b"no picture")
    other = Image.new("RGB", (8, 8))
    other.save(folder / "2.png")
    problems = score(folder, [Brightness()], label=None)
    assert len(problems) == 3 and len(read_scores(folder)) == 9
    assert "0.png is missing" in problems[0] and "sha256 differs" in problems[2]


def test_a_foreign_manifest_needs_paths_and_prompts_only(folder):
    (folder / "manifest.jsonl").write_text('{"path": "3.png", "prompt": "a cat and a dog"}\n')
    assert score(folder, [Brightness()], label=None) == []
    assert read_scores(folder)[0]["arm"] == "images"


@pytest.mark.parametrize(
    ("text", "says"), [("{", "line 1 is no JSON"), ('{"path": "x"}', "has no 'prompt'"), ("", "no manifest")]
)
def test_manifests_with_holes(folder, text, says):
    (folder / "manifest.jsonl").write_text(text)
    with pytest.raises(ManifestError, match=says):
        score(folder, [Brightness()], label=None)


def test_the_inception_score_of_each_arm(folder):
    def classify(images):
        return torch.stack([torch.tensor(np.asarray(image).mean((0, 1)) / 10.0) for image in images])

    assert score(folder, [Brightness()], ("mean colour", classify), splits=2, label=None) == []
    rows = [row for row in read_scores(folder) if not row["path"]]
    assert [(row["arm"], row["metric"]) for row in rows] == [
        (arm, metric) for arm in "ab" for metric in ("inception score", "inception score std")
    ]
    assert "mean colour" in json.loads((folder / "metrics.json").read_text())["inception score"]["name"]
