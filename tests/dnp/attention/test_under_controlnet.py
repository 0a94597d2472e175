"""Attention is looked at and changed in the U-Net alone where a ControlNet stands beside it."""

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image

from dnp.attention.attend_and_excite import AttendAndExcite
from dnp.attention.maps import capture
from dnp.models.stable_diffusion import StableDiffusion
from samplers import Step


@pytest.fixture(scope="module")
def controlled(model_of, checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("control")
    torch.manual_seed(5)
    net = ControlNetModel.from_unet(model_of("1").unet, conditioning_embedding_out_channels=(16, 32))
    for weight in net.parameters():  # it is made with zeros, which change nothing
        weight.data += 0.05 * torch.randn_like(weight)
    net.save_pretrained(folder / "net")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    options = {"controlnet": str(folder / "net"), "control_image": str(folder / "picture.png")}
    return StableDiffusion(str(checkpoint("1")), "cpu", **options)


def test_attention_under_a_controlnet(controlled, model_of):
    prompts = ["a red circle and a blue square"]
    torch.manual_seed(0)
    x, sigma = torch.randn(1, *controlled.shape), torch.tensor([3.0])
    condition = controlled.encode(prompts)
    plain = controlled.denoiser(x, sigma, **condition)
    with capture(controlled.unet, controlled.shape[1:], (8, 8)) as maps:
        inside = controlled.denoiser(x, sigma, **condition)
    with capture(model_of("1").unet, controlled.shape[1:], (8, 8)) as without:
        model_of("1").denoiser(x, sigma, **model_of("1").encode(prompts))
    assert torch.equal(inside, plain) and len(maps.cross) == len(without.cross)  # none of the ControlNet's own
    assert (maps.mean - without.mean).abs().max() > 1e-4  # but as they are under control
    moved = AttendAndExcite(thresholds={}, size=(8, 8)).on(controlled, prompts)(Step(0, 4, 3.0, 1.0, x))
    free = AttendAndExcite(thresholds={}, size=(8, 8)).on(model_of("1"), prompts)(Step(0, 4, 3.0, 1.0, x))
    assert (moved - x).norm() > 0 and (moved - free).norm() > 1e-6
    perturbed = controlled.denoiser(x, sigma, **condition, attention="identity")
    assert (perturbed - plain).norm() > 1e-4 * plain.norm()
    assert torch.equal(controlled.denoiser(x, sigma, **condition), plain)
