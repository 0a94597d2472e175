"""Regions with prompts of their own, and the sheet of word maps, against computations by hand."""

import numpy as np
import pytest
import torch

import samplers
from dnp import DNPError, Sampling
from dnp.attention.maps import capture
from dnp.attention.rich_text import Segmenting, assigned, boxes, regional, segments
from dnp.attention.word_maps import Looking, over, word_maps
from dnp.attention.words import Words
from guidance import CFG

EULER, PROMPT = Sampling("euler", "leading", 3), "a red circle and a blue square"


def walk(model, guidance, conditions, hook=None, seeds=(0, 1)):
    return samplers.sample(
        guidance.wrap(model.denoiser),
        samplers.noise(model.shape, list(seeds)),
        EULER.sigmas(model.denoiser),
        sampler="euler",
        extra_args=conditions,
        hook=hook,
    )


def test_regions_are_guided_by_their_prompts(model_of):
    model = model_of("1")
    texts = {"prompt": "a red circle", "left": "a blue square", "empty": ""}
    conditions = {name: model.encode([text] * 2) for name, text in texts.items()}
    masks = boxes(model.shape[1:], {"left": (0, 0, 0.5, 1)})
    torch.manual_seed(0)
    x, sigma = torch.randn(2, *model.shape), torch.tensor([3.0, 0.5])
    found = regional(5, masks).wrap(model.denoiser)(x, sigma, **conditions)
    p, left, u = (model.denoiser(x, sigma, **conditions[name]) for name in texts)
    expected = torch.cat([u[..., :4] + 5 * (left - u)[..., :4], u[..., 4:] + 5 * (p - u)[..., 4:]], -1)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    same = {**conditions, "left": conditions["prompt"]}
    assert torch.allclose(
        walk(model, regional(5, masks), same), walk(model, CFG(5), same), rtol=1e-4, atol=1e-4
    )  # fmt: skip


def test_boxes_and_what_is_none():
    masks = boxes((4, 8), {"a": (0, 0, 0.5, 1), "b": (0.25, 0.5, 1, 1)})
    assert torch.equal(sum(masks.values()), torch.ones(1, 1, 4, 8))
    assert masks["a"][0, 0].tolist() == [[1.0] * 4 + [0.0] * 4] * 2 + [[1.0] * 2 + [0.0] * 6] * 2
    assert masks["prompt"][0, 0].tolist() == [[0.0] * 4 + [1.0] * 4] * 2 + [[0.0] * 8] * 2
    for box in ((0, 0, 1.5, 1), (-0.1, 0, 1, 1), (0.5, 0, 0.5, 1), (0.6, 0, 0.4, 1)):
        with pytest.raises(DNPError, match="the box of .a. is left, top, right, bottom, fractions of the picture"):
            boxes((4, 8), {"a": box})
    with pytest.raises(DNPError, match="smaller than a point of the latents, 8x4"):
        boxes((4, 8), {"a": (0, 0, 0.01, 1)})
    with pytest.raises(DNPError, match="masks sum to one at each point: here from 1 to 2"):
        regional(5, {"prompt": torch.ones(1, 1, 4, 8), "a": boxes((4, 8), {"a": (0, 0, 0.5, 1)})["a"]})


def test_segments_and_their_regions():
    torch.manual_seed(0)
    truth = torch.arange(64) // 16
    attention = torch.eye(4)[truth][:, truth] / 16 + 1e-4 * torch.rand(64, 64)
    label = segments(attention, 4)
    assert all(len(label[truth == k].unique()) == 1 for k in range(4)) and len(label.unique()) == 4
    heat = torch.zeros(2, 64)
    heat[0, truth == 0], heat[0, truth == 1], heat[1, truth == 1], heat[1, truth == 2] = 1, 0.4, 0.5, 0.2
    masks = assigned(label, heat)
    assert torch.equal(masks[0], (truth == 0).float()) and torch.equal(masks[1], (truth == 1).float())


def test_masks_of_a_plain_pass_sum_to_one(model_of):
    model = model_of("1")
    hook = Segmenting(model, [PROMPT] * 2, {"round": "circle", "square": "square"}, (8, 8))
    conditions = {"prompt": model.encode([PROMPT] * 2), "empty": model.encode([""] * 2)}
    plain = walk(model, CFG(5), conditions)
    assert torch.equal(walk(model, CFG(5), conditions, hook), plain)  # it looks, and changes nothing
    masks = hook.masks()
    assert list(masks) == ["prompt", "round", "square"]
    assert torch.allclose(sum(masks.values()), torch.ones(2, 1, *model.shape[1:]), atol=1e-6)
    assert all(mask.min() >= -1e-6 for mask in masks.values())
    regions = {**conditions, "round": model.encode(["a pink star"] * 2), "square": model.encode(["a cat"] * 2)}
    assert walk(model, regional(5, masks), regions).isfinite().all()


def test_word_maps_are_the_mean_of_the_steps(model_of):
    model, seen = model_of("1"), []
    looking = Looking(model, [PROMPT], ["circle", "blue square"], (8, 8))
    conditions = {"prompt": model.encode([PROMPT]), "empty": model.encode([""])}

    def hook(step):
        assert looking(step) is None
        with capture(model.unet, model.shape[1:], (8, 8)) as maps, torch.no_grad():
            model.denoiser(step.x, step.sigma, **conditions["prompt"])
        seen.append(maps.mean[0])

    walk(model, CFG(5), conditions, hook, [0])
    mean, words = torch.stack(seen).mean(0), Words(model.texts, PROMPT)
    (maps,) = looking.maps()
    for word, tokens in (("circle", words.tokens("circle")), ("blue square", words.tokens("blue square"))):
        expected = mean[:, [1 + token for token in tokens]].amax(-1).view(8, 8)
        assert torch.allclose(maps[word], expected, atol=1e-6)


def test_the_sheet_has_a_row_for_each_seed(model_of):
    model = model_of("1")
    options = {"guidance": CFG(5), "sampling": EULER, "size": (8, 8)}
    one = word_maps(model, PROMPT, [0], **options)
    two = word_maps(model, PROMPT, [0, 1], **options)
    assert two.width == one.width and two.height > 1.6 * one.height
    assert np.array_equal(np.asarray(two)[: one.height - 20], np.asarray(one)[:-20])
    with pytest.raises(DNPError, match="the word 'dog' is not in the prompt"):
        word_maps(model, PROMPT, words=["dog"], **options)


def test_a_map_lies_where_it_is_on_the_picture():
    from PIL import Image

    heat = torch.zeros(4, 4)
    heat[0, 3] = 0.2
    shown = np.asarray(over(Image.new("RGB", (64, 64)), heat), float)
    assert shown.shape == (256, 256, 3)
    assert shown[10, -10, 0] > shown[10, -10, 2] and shown[-10, 10, 0] < shown[-10, 10, 2]  # red is much, blue little
