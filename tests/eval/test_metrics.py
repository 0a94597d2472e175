"""Metrics against independent computations on the same weights and pictures, to 1e-5."""

import hashlib
import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from dnp.models.locate import EMBEDDED
from eval.adherence import Adherence, verdict
from eval.appearance import Appearance
from eval.clip import Clip, ClipScore, MinObject
from eval.inception import Inception, inception_score
from eval.manifest import ManifestError
from eval.metric import Kind
from eval.prompts import Prompt, entities
from eval.scores import read_scores, score
from eval.world import Scene, Thing, describe
from training.data import pictures as drawn

TEMPLATES = ("{}", "a {}", "a picture of a {}.")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    found = drawn(tmp_path_factory.mktemp("world"), 12, seed=5)
    images = [Image.fromarray(pixels) for pixels in found.pixels]
    prompts = [describe(Scene(layout.scene.things)) or "a red circle" for layout in found.layouts]
    return images, [Prompt(text, entities(text)) for text in prompts]


@pytest.fixture(scope="module")
def direct():
    folder = f"local-dir:{EMBEDDED / 'clip'}"
    model, _, preprocess = open_clip.create_model_and_transforms(folder)
    return model.eval(), preprocess, open_clip.get_tokenizer(folder)


def test_clip_scores_against_open_clip_itself(world, direct):
    images, prompts = world
    model, preprocess, tokenizer = direct
    found = ClipScore(Clip(EMBEDDED / "clip"))(images, prompts)
    with torch.no_grad():
        for i, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            x = model.encode_image(preprocess(image)[None])
            for short, text in (("clip cosine", prompt.text), ("clipscore", f"A photo depicts {prompt.text}")):
                cosine = torch.cosine_similarity(x, model.encode_text(tokenizer([text]))).item()
                expected = 2.5 * max(cosine, 0) if short == "clipscore" else cosine
                assert found[short][i] == pytest.approx(expected, abs=1e-5)


def test_attend_and_excites_protocol_against_open_clip_itself(world, direct):
    images, prompts = world
    model, preprocess, tokenizer = direct
    metric = MinObject(Clip(EMBEDDED / "clip"), TEMPLATES)
    found = metric(images, prompts)

    def text(words):
        e = model.encode_text(tokenizer([t.format(words) for t in TEMPLATES]))
        e = (e / e.norm(dim=-1, keepdim=True)).mean(0)
        return e / e.norm()

    with torch.no_grad():
        for i, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            x = model.encode_image(preprocess(image)[None])[0]
            x = x / x.norm()
            assert found["clip cosine full prompt"][i] == pytest.approx(float(x @ text(prompt.text)), abs=1e-5)
            halves = prompt.text.split(" and ")
            if len(halves) == 2:
                expected = min(float(x @ text(half)) for half in halves)
                assert found["clip cosine min object"][i] == pytest.approx(expected, abs=1e-5)
            else:
                assert "names no two things" in found["clip cosine min object"][i]
    assert "3 templates" in metric.name and "embedded/clip" in metric.name


def test_the_protocol_has_openais_80_templates():
    metric = MinObject(Clip(EMBEDDED / "clip"))
    assert len(metric.templates) == 80 and "a bad photo of a {}." in metric.templates


def test_openai_weights_take_their_activation():
    assert Clip("ViT-B-16/openai").name == "open_clip ViT-B-16-quickgelu/openai"


@pytest.mark.parametrize(("name", "says"), [("ViT-B-16", "ARCHITECTURE/WEIGHTS"), ("tests", "no open_clip_config")])
def test_no_such_checkpoint(name, says):
    with pytest.raises(ValueError, match=says):
        Clip(name)


def test_inception_score_against_torch_fidelity():
    from torch_fidelity.metric_isc import isc_features_to_metric

    for count, classes, splits in ((100, 7, 10), (53, 20, 5)):
        logits = 3 * torch.randn(count, classes, generator=torch.Generator().manual_seed(count))
        theirs = isc_features_to_metric(logits, splits=splits)
        ours = inception_score(logits, splits)
        assert ours[0] == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
        assert ours[1] == pytest.approx(theirs["inception_score_std"], rel=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torchmetrics' own: its deviation of a single split
def test_inception_score_against_torchmetrics():
    """Of one split: torchmetrics shuffles by its own draw before it splits."""
    from torchmetrics.image.inception import InceptionScore

    logits = 3 * torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
    theirs = InceptionScore(feature=torch.nn.Flatten(), splits=1)
    theirs.update(logits.view(60, 12, 1, 1))
    assert inception_score(logits, splits=1)[0] == pytest.approx(float(theirs.compute()[0]), rel=1e-5)


def test_inception_score_in_closed_form():
    certain = torch.eye(4).repeat(25, 1) * 1e3  # sure of one of four classes, equally often: exp(log 4)
    assert inception_score(certain, splits=1) == pytest.approx((4, 0))
    assert inception_score(torch.zeros(20, 4), splits=2) == pytest.approx((1, 0))
    with pytest.raises(ValueError, match="needs that many pictures, there are 3"):
        inception_score(torch.zeros(3, 4))


def test_inception_network_against_torch_fidelity(tmp_path, monkeypatch, world):
    """The whole way on a folder of pictures, with weights of a file; random ones, as the real cannot be had offline."""
    import torch_fidelity
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None)
        network = FeatureExtractorInceptionV3("inception", ["logits_unbiased"])
    weights = tmp_path / "weights.pth"
    torch.save(network.state_dict(), weights)
    (tmp_path / "pictures").mkdir()
    images = world[0][:4]
    for i, image in enumerate(images):
        image.save(tmp_path / "pictures" / f"{i}.png")
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "pictures"),
        isc=True,
        isc_splits=2,
        cuda=False,
        cache=False,
        verbose=False,
        feature_extractor_weights_path=str(weights),
    )
    ours = inception_score(Inception(weights)(images), splits=2)
    assert ours[0] == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert ours[1] == pytest.approx(theirs["inception_score_std"], abs=1e-5)


def test_inception_weights_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="no Inception weights"):
        Inception(tmp_path / "none.pth")
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="does not hold torch-fidelity's Inception"):
        Inception(tmp_path / "bad.pth")


@pytest.mark.parametrize(
    ("things", "right", "neglected"),
    [
        ((Thing("circle", "red"), Thing("square", "blue")), True, False),
        ((Thing("square", "blue"), Thing("circle", "red"), Thing("star", "pink")), True, False),
        ((Thing("circle", "blue"), Thing("square", "red")), False, False),
        ((Thing("circle", "red"),), False, True),
        ((), False, True),
    ],
)
def test_verdicts_by_hand(things, right, neglected):
    says = verdict(Scene(things), "a red circle and a blue square")
    assert (says.right, says.neglected, says.wrong_attribute) == (right, neglected, not right and not neglected)
    assert verdict(Scene((Thing("circle", "red"), Thing("square", "blue"))), "a circle and a blue square").right


def test_the_judge_agrees_with_what_was_drawn(world):
    images, prompts = world
    metric = Adherence(EMBEDDED / "judge")
    found = metric(images, prompts)
    sums = np.sum([found[name] for name in metric.kinds], 0)
    assert (sums == 1).all() and np.mean(found["both right"]) >= 0.9
    wrong = metric(images[:1], [Prompt("a cat and a dog")])
    assert all("no thing of the drawn world" in values[0] for values in wrong.values())


def test_contrast_and_saturation_in_closed_form():
    half = Image.new("RGB", (8, 8), (255, 255, 255))
    half.paste((0, 0, 0), (0, 0, 4, 8))
    found = Appearance()([half, Image.new("RGB", (8, 8), (200, 0, 0))], [Prompt("a"), Prompt("b")])
    assert found["contrast"] == pytest.approx([0.5, 0]) and found["saturation"] == pytest.approx([0, 1])


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
