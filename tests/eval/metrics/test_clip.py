"""CLIP scores against open_clip itself on the same weights and pictures, to 1e-5."""

import open_clip
import pytest
import torch

from dnp.models.locate import EMBEDDED
from eval.metrics.clip import Clip, ClipScore, MinObject

TEMPLATES = ("{}", "a {}", "a picture of a {}.")


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
