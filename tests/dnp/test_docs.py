"""The wrapper in docs/models.md runs as it is printed, and its options are those of the command."""

import re
from pathlib import Path
from types import SimpleNamespace

import k_diffusion as K
import torch

from dnp import Sampling, paint
from dnp.cli.main import main
from guidance import DNS

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def test_a_wrapper_of_k_diffusion(latent_diffusion):
    names = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.S)[0], names)
    model = names["CompVis"](latent_diffusion)
    images, evaluations = paint(model, DNS(2), {"prompt": ["a cat", "a long dog"]}, [0, 0], Sampling(steps=3))
    assert [image.size for image in images] == [(64, 64)] * 2 and evaluations == 6
    assert images[0].tobytes() != images[1].tobytes()


class ByClass(torch.nn.Module):
    """A model of pixels with the classes 0 (none) to 4."""

    def __init__(self, channels):
        super().__init__()
        torch.manual_seed(0)
        self.look, self.shift = torch.nn.Conv2d(3, channels, 3, padding=1), torch.nn.Embedding(5, channels)

    def forward(self, x, t, y):
        return torch.tanh(self.look(x) + self.shift(y)[:, :, None, None])


def test_wrappers_of_models_of_pixels(monkeypatch):
    monkeypatch.setenv("K_DIFFUSION_USE_COMPILE", "0")
    first, second = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    betas = torch.linspace(1e-4, 0.02, 1000)
    transformer = {"type": "image_transformer_v1", "input_channels": 3, "input_size": [64, 64], "patch_size": [16, 16]}
    config = {"model": transformer | {"depth": 1, "width": 64}, "dataset": {"num_classes": 5}}
    names = {
        "guided_diffusion_model": ByClass(6),  # with its variances
        "diffusion": SimpleNamespace(alphas_cumprod=(1 - betas).cumprod(0).numpy()),
        "v_model": ByClass(3),
        "config": K.config.load_config(config),
    }
    torch.manual_seed(0)
    exec(first, names)
    found = []
    blocks = re.sub(r"^((?:Pixels|Karras)\(K\..*)$", r"found.append(\1)", second, flags=re.M)
    exec(blocks, names | {"found": found})
    assert len(found) == 3
    for model in found:
        for weight in model.denoiser.parameters():  # some begin as zeros
            torch.nn.init.normal_(weight, std=0.1)
        images, evaluations = paint(model, DNS(2), {"prompt": ["1", "4"]}, [0, 0], Sampling(steps=3))
        assert [image.size for image in images] == [(64, 64)] * 2 and evaluations == 6
        assert images[0].tobytes() != images[1].tobytes(), model


def test_the_options_exist():
    known = {name for option in main.commands["generate"].params for name in option.opts}
    assert set(re.findall(r"--[a-z][a-z-]*", PAGE)) <= known
