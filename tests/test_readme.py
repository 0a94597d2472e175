"""The README's code runs as it is printed."""

import re
from pathlib import Path

import torch

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_beside_k_diffusion(capsys, latent_diffusion):
    torch.manual_seed(0)
    block = next(block for block in BLOCKS if "import k_diffusion" in block)
    assert len([line for line in block.splitlines() if line.strip()]) <= 25
    names = {"latent_diffusion": latent_diffusion}
    exec(block, names)
    assert names["image"].shape == names["opposite"].shape == (1, 4, 64, 64)
    assert not torch.allclose(names["image"], names["opposite"])
    assert capsys.readouterr().out == "90 90\nε(empty) + 7.5 (ε(empty) − ε(prompt))\n"
    for line in block.splitlines():  # what it says is true is true
        if line.split("#")[0].count("==") and "True" in line:
            assert eval(line.split("#")[0], names), line


def test_as_a_library(monkeypatch):
    """With the embedded model in place of the real ones, which cannot be had offline."""
    import captioning
    import dnp.models.stable_diffusion
    from dnp.models.locate import EMBEDDED

    load, caption = dnp.models.stable_diffusion.StableDiffusion, captioning.Transformers
    monkeypatch.setattr(dnp, "StableDiffusion", lambda name: load("embedded"), raising=False)
    monkeypatch.setattr(captioning, "Transformers", lambda name: caption(EMBEDDED / "captioner"))
    block = next(block for block in BLOCKS if "from dnp import" in block)
    names: dict = {}
    exec(block.replace('"karras", 30', '"karras", 3'), names)
    result = names["result"]
    assert result.evaluations == {"plain": 6, "dns": 6, "dnp": 9} and set(result.seconds) == {*result.images, "caption"}


def test_commands_are_those_of_the_makefile():
    targets = re.findall(r"^([a-z-]+):.*##", (Path(__file__).parents[1] / "Makefile").read_text(), re.M)
    assert set(re.findall(r"make ([a-z-]+)", README)) <= set(targets)
