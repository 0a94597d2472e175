"""The autoencoder: four channels at a quarter of the picture's size (16 × 16 × 4 for 64 pixels)."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import save_image

from training.data import Pictures
from training.loop import fit
from training.render import SIZE

_CROP = 32


def build() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(24, 48, 96),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=SIZE,
    )


def train(pictures: Pictures, steps: int, work: Path) -> AutoencoderKL:
    """Train on crops of half the size (everything in it is local, so crops teach as much at a quarter of the cost),
    the last tenth on whole pictures, whose group-norm statistics are those of use.

    The loss is L1 of pixels and of their differences to neighbours (which keeps edges sharp), and a slight KL term
    so that the latents are smooth. `scaling_factor` is set so that latents have unit variance.
    """
    model = build()

    def loss(rng: torch.Generator, step: int) -> Tensor:
        whole = step >= 0.9 * steps
        batch = 12 if whole else 32
        x = pictures.batch(torch.randint(len(pictures.layouts), (batch,), generator=rng))
        if not whole:
            top, left = torch.randint(0, SIZE - _CROP + 1, (2,), generator=rng).tolist()
            x = x[..., top : top + _CROP, left : left + _CROP]
        posterior = model.encode(x).latent_dist
        y = model.decode(posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=rng)).sample
        edges = F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(y.diff(dim=-2), x.diff(dim=-2))
        return F.l1_loss(y, x) + edges + 1e-5 * posterior.kl().mean()

    def look(step: int) -> None:
        x = pictures.batch(torch.arange(24))
        save_image(
            torch.cat([x, model(x).sample.clamp(-1, 1)]) / 2 + 0.5,
            work / f"autoencoder-{step:06d}.png",
            nrow=12,
        )

    fit("autoencoder", model, loss, steps, work, look=look, lr=2e-3)
    with torch.no_grad():
        latents = model.encode(pictures.batch(torch.arange(min(512, len(pictures.layouts))))).latent_dist.mean
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return model
