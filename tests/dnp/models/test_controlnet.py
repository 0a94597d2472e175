"""Guidance under a ControlNet, against diffusers' pipeline of one."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    EulerDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
)
from PIL import Image

import samplers
from dnp import DNPError, Sampling
from dnp.models.stable_diffusion import StableDiffusion
from guidance import CFG, DNS, NegPrompt, PerpNeg

KINDS = {"1": StableDiffusionControlNetPipeline, "XL": StableDiffusionXLControlNetPipeline}
SAMPLING, TEXTS = Sampling("euler", "leading", 3), {"prompt": ["a red circle"], "negative": ["a blue square"]}


@pytest.fixture(scope="module", params=KINDS)
def controlled(request, model_of, tmp_path_factory):
    """A family, its ControlNet with random weights, and a picture."""
    folder = tmp_path_factory.mktemp("control")
    torch.manual_seed(5)
    # From the picture's pixels to the latents: half as wide
    net = ControlNetModel.from_unet(model_of(request.param).unet, conditioning_embedding_out_channels=(16, 32))
    for weight in net.parameters():  # it is made with zeros, which change nothing
        weight.data += 0.05 * torch.randn_like(weight)
    net.save_pretrained(folder / "net")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    return request.param, str(folder / "net"), str(folder / "picture.png")


@pytest.fixture(scope="module")
def under(controlled, checkpoint):
    family, net, picture = controlled
    options = {"controlnet": net, "control_image": picture, "control_scale": 0.8}
    return StableDiffusion(str(checkpoint(family)), "cpu", empty="encoded", **options)


@pytest.mark.parametrize(
    "guidance, options",
    [
        (CFG(5), {"guidance_scale": 5, "prompt": TEXTS["prompt"][0], "negative_prompt": ""}),
        (
            NegPrompt(5, evaluations=2),
            {"guidance_scale": 5, "prompt": TEXTS["prompt"][0], "negative_prompt": TEXTS["negative"][0]},
        ),
        (DNS(2.5), {"guidance_scale": 3.5, "prompt": "", "negative_prompt": TEXTS["prompt"][0]}),
    ],
)
def test_latents_equal_the_controlnet_pipeline_s(
    controlled, under, model_of, pipeline_of, latents_of, guidance, options
):
    family, net, picture = controlled
    pipeline = pipeline_of(family, KINDS[family], controlnet=ControlNetModel.from_pretrained(net))
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    size = {"width": under.width, "height": under.height, "num_inference_steps": 3, "output_type": "latent"}
    with Image.open(picture) as image:
        theirs = pipeline(
            image=image, controlnet_conditioning_scale=0.8, latents=samplers.noise(under.shape, [0]), **size, **options
        ).images
    ours = latents_of(under, guidance, TEXTS, [0], SAMPLING)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    without = latents_of(model_of(family, empty="encoded"), guidance, TEXTS, [0], SAMPLING)
    assert (ours - without).norm() > 1e-2 * without.norm()


def test_every_rule_works_under_control(under, latents_of):
    cfg = latents_of(under, CFG(3), TEXTS, [0], SAMPLING)
    perp = latents_of(under, PerpNeg(3, 1), TEXTS, [0], SAMPLING)
    assert perp.isfinite().all() and (perp - cfg).norm() > 1e-3 * cfg.norm()
    assert under.options["controlnet"]["scale"] == 0.8 and len(under.options["controlnet"]["image_sha256"]) == 64


def test_what_cannot_be_a_control(controlled, checkpoint, tmp_path):
    family, net, picture = controlled
    other = str(checkpoint("2"))
    (tmp_path / "text.png").write_text("no picture")
    for folder, key, value in (
        ("pooled", "global_pool_conditions", True),
        ("union", "_class_name", "ControlNetUnionModel"),
    ):
        shutil.copytree(net, tmp_path / folder)
        config = json.loads((tmp_path / folder / "config.json").read_text()) | {key: value}
        (tmp_path / folder / "config.json").write_text(json.dumps(config))
    own = str(checkpoint(family))
    for name, options, message in (
        (other, {"controlnet": net}, "go together: give --controlnet and --control-image"),
        (other, {"controlnet": net, "control_image": picture}, "is for another model: its cross_attention_dim is"),
        (other, {"controlnet": str(tmp_path / "no"), "control_image": picture}, "there is no ControlNet directory"),
        (
            own,
            {"controlnet": str(tmp_path / "pooled"), "control_image": picture},
            "is meant for the conditional prediction only (global_pool_conditions)",
        ),
        (
            own,
            {"controlnet": str(tmp_path / "union"), "control_image": picture},
            "is of the kind 'ControlNetUnionModel', not ControlNetModel",
        ),
        (
            own,
            {"controlnet": net, "control_image": str(tmp_path / "text.png")},
            "text.png is no readable picture",
        ),
    ):
        if family == "1" and "another model" in message:
            message = "is for another model: its block_out_channels is"
        with pytest.raises(DNPError) as caught:
            StableDiffusion(name, "cpu", **options)
        assert message in str(caught.value) and "\n" not in str(caught.value)
