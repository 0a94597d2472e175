"""Stable Diffusion 1.5 at its real size, with random weights: what loading it and a step of it need.

python -m dnp.speed.fullsize
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from dnp.models.checkpoint import Parts
from dnp.models.single_file import tokenizer


def write(folder: Path) -> None:
    """The model in diffusers' format, in float16 as it is mostly shared: 2 GB."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        text = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                            num_attention_heads=12, projection_dim=768))  # fmt: skip
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)  # whose defaults are 1.x's
        levels = ["DownEncoderBlock2D"] * 4, ["UpDecoderBlock2D"] * 4
        autoencoder = AutoencoderKL(3, 3, *levels, block_out_channels=(128, 256, 512, 512), layers_per_block=2)
    finally:
        torch.set_default_dtype(usual)
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = DDIMScheduler(**betas, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    Parts([tokenizer()], [text], unet, autoencoder, scheduler).pipeline().save_pretrained(folder)


if __name__ == "__main__":
    import subprocess
    import sys

    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, whose memory is not that of the other
        code = f"import pathlib, dnp.speed.fullsize as f; f.write(pathlib.Path({folder!r}) / 'sd15')"
        subprocess.run([sys.executable, "-c", code], check=True)
        command = ["generate", "a cat", "--model", f"{folder}/sd15", "--device", "cpu", "--negative", "none"]
        command += ["--steps", "1", "--out", f"{folder}/out"]
        subprocess.run([sys.executable, "-m", "dnp.cli.main", *command], check=True)
        print((Path(folder) / "out" / "manifest.jsonl").read_text())
