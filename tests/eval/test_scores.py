"""Scoring a folder: what is kept, what is left out and said, and the sets of pictures."""

import csv
import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from eval.manifest import ManifestError
from eval.metrics.inception import InceptionScore, inception_score
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
    assert "0.png is missing" in problems[0]
    assert all("sha256 differs" in problem for problem in problems[1:])


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


def test_the_inception_score_of_each_arm(folder, world):
    def classify(images):
        return torch.stack([torch.tensor(np.asarray(image).mean((0, 1)) / 10.0) for image in images])

    assert score(folder, [Brightness(), InceptionScore(classify, "mean colour", 2)], label=None) == []
    rows = [row for row in read_scores(folder) if not row["path"]]
    expected = {arm: inception_score(classify(world[0][place::2]), 2) for place, arm in enumerate("ab")}
    assert [(row["arm"], row["metric"], float(row["value"])) for row in rows] == [
        (arm, metric, value)
        for arm in "ab"
        for metric, value in zip(("inception score", "inception score std"), expected[arm], strict=True)
    ]
    about = json.loads((folder / "metrics.json").read_text())
    assert about["inception score"]["name"] == "Inception Score, 2 splits, mean colour"
    score(folder, [Width()], label=None)  # the same pictures: what was found of their sets is kept
    assert [row for row in read_scores(folder) if not row["path"]] == rows
    few = score(folder, [InceptionScore(classify, "mean colour", 7)], label=None)
    assert few == [f"arm {arm}: an Inception Score of 7 splits needs that many pictures, there are 6" for arm in "ab"]


def test_a_picture_named_by_two_lines_is_scored_in_each(folder, world):
    class Length:
        name = "length of the prompt"
        kinds = {"length": Kind("characters")}

        def __call__(self, images, prompts):
            return {"length": [float(len(prompt.text)) for prompt in prompts]}

    lines = [{"path": "0.png", "prompt": text, "arm": arm} for text, arm in (("a", "x"), ("abc", "x"), ("a", "y"))]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for _ in range(2):
        assert score(folder, [Length()], label=None) == []
        found = [(row["prompt"], row["arm"], float(row["value"])) for row in read_scores(folder)]
        assert found == [("a", "x", 1), ("abc", "x", 3), ("a", "y", 1)]


def test_another_prompt_for_a_scored_picture_is_scored_again(folder):
    score(folder, [Brightness()], label=None)
    path = folder / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["prompt"] = "another"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    Brightness.seen = 0
    score(folder, [Brightness()], label=None)
    assert Brightness.seen == 1 and read_scores(folder)[0]["prompt"] == "another"


def test_diffusion_negatives_are_told_by_their_source(folder):
    path = folder / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()][:3]
    facts = ({"arm": "dns-late", "source": "auto"}, {"arm": "negatives", "source": "dns"}, {"arm": "dns"})
    path.write_text("".join(json.dumps(line | fact) + "\n" for line, fact in zip(lines, facts, strict=True)))
    assert score(folder, [Brightness()], label=None) == []
    assert [row["arm"] for row in read_scores(folder)] == ["dns-late"]


def test_values_that_are_no_numbers_are_named(folder):
    class Odd:
        name = "odd"
        kinds = {"odd": Kind("odd")}

        def __call__(self, images, prompts):
            return {"odd": [float("nan"), float("inf"), *[1.0] * (len(images) - 2)]}

    assert score(folder, [Odd()], label=None) == [
        "0.png: its odd is nan, no number that can be averaged",
        "1.png: its odd is inf, no number that can be averaged",
    ]
    assert len(read_scores(folder)) == 10


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@a", "\ta", "'a", "a", '="x",\n\''])
def test_no_cell_is_a_formula_and_every_prompt_comes_back(folder, text):
    line = {"path": "0.png", "prompt": text, "seed": -1}
    (folder / "manifest.jsonl").write_text(json.dumps(line))
    score(folder, [Brightness()], label=None)
    (row,) = csv.DictReader(open(folder / "scores.csv", newline=""))
    assert row["prompt"][0] not in "=+-@\t" and row["seed"] == "-1"
    assert read_scores(folder)[0]["prompt"] == text


def test_no_control_character_leaves_a_problem_raw(folder):
    (folder / "manifest.jsonl").write_text(json.dumps({"path": "\x1b[2J.png", "prompt": "a"}))
    (problem,) = score(folder, [Brightness()], label=None)
    assert "\\x1b[2J.png is missing" in problem and "\x1b" not in problem


def test_scores_that_are_not_ours(folder):
    score(folder, [Brightness()], label=None)
    for text in ("a,b\n1,2\n", "", "path,arm,prompt,seed,category,metric,value\na,b,c,d,e,f,nan\n"):
        (folder / "scores.csv").write_text(text)
        if text:
            with pytest.raises(ManifestError, match="is not what dnp score writes"):
                read_scores(folder)
        score(folder, [Brightness()], label=None)
        assert len(read_scores(folder)) == 12
