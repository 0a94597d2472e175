"""The wrapper in docs/models.md runs as it is printed, and its options are those of the command."""

import re
from pathlib import Path

import torch

from dnp import Sampling, paint
from dnp.cli import main
from guidance import DNS

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


class LatentDiffusion(torch.nn.Module):
    """What k-diffusion's CompVisDenoiser and the page want of a model."""

    def __init__(self):
        super().__init__()
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self.register_buffer("alphas_cumprod", (1 - betas).cumprod(0))

    def apply_model(self, x, t, cond):
        return torch.tanh(x + cond.mean((1, 2))[:, None, None, None])

    def get_learned_conditioning(self, texts):
        return torch.stack([torch.full((7, 8), len(text) / 10) for text in texts])

    def decode_first_stage(self, z):
        return z[:, :3]


def test_a_wrapper_of_k_diffusion():
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.S)[1], names)
    model = names["CompVis"](LatentDiffusion())
    images, evaluations = paint(model, DNS(2), {"prompt": ["a cat", "a long dog"]}, [0, 0], Sampling(steps=3))
    assert [image.size for image in images] == [(64, 64)] * 2 and evaluations == 6
    assert images[0].tobytes() != images[1].tobytes()


def test_the_options_exist():
    known = {name for option in main.commands["generate"].params for name in option.opts}
    assert set(re.findall(r"--[a-z][a-z-]*", PAGE)) <= known
