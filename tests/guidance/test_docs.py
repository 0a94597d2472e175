"""The code in docs/own-guidance.md and docs/torch.md runs as it is printed."""

import re
from pathlib import Path

import pytest
import torch

from guidance import CFG

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)


def denoiser(x, sigma, cond=None, class_cond=None, added=None, cross_attn_scale=1.0):
    told = cond if class_cond is None else class_cond.view(-1, 1, 1, 1).to(x)
    shared = 0 if added is None else added["time_ids"].view(-1, 1, 1, 1)
    return 0.5 * x * cross_attn_scale + told + shared


@pytest.fixture
def names():
    x, c = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    classes = torch.tensor([3, 5])
    common = {"denoiser": denoiser, "x": x, "c": c, "e": torch.zeros_like(c), "torch": torch, "classes": classes}
    return common | {"sigma": torch.tensor([2.0, 1.0]), "num_classes": 10, "ids": torch.tensor([1.0])}


def test_a_guidance_of_one_s_own(names):
    for block in blocks("own-guidance.md"):
        exec(block, names)
    u, p, x = names["e"] + 0.5 * names["x"], names["c"] + 0.5 * names["x"], names["x"]
    found = names["guided"](x, names["sigma"], prompt={"cond": names["c"]}, empty={"cond": names["e"]})
    torch.testing.assert_close(found, u + 3 * (p - u))  # the scale of 7.5 is held to 3 times the distance
    assert names["Clipped"](7.5).cost([2.0, 1.0]) == 4 and names["guided"].evaluations == 2
    assert str(names["Clipped"](7.5)) == "Clipped(7.5, most=3)"


def test_gradients_conditions_and_classes(names):
    run = [block for block in blocks("torch.md") if "torch.compile" not in block]
    exec(run[0], names)
    conditions = names["conditions"]
    for block in run[1:]:
        exec(block, names)
    assert names["scale"].grad.abs().item() > 0 and names["x"].grad.shape == (2, 3, 4, 4)
    x, sigma, guided = names["x"].detach(), names["sigma"], CFG(7.5).wrap(denoiser)
    plain = guided(x, sigma, **conditions)
    torch.testing.assert_close(guided(x, sigma, **conditions, cross_attn_scale=0.2), plain - 0.4 * x)
    torch.testing.assert_close(guided(x, sigma, **conditions, shared={"added": {"time_ids": names["ids"]}}), plain + 1)
