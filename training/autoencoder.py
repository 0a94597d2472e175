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
        block_out_channels=(24, 32, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=SIZE,
    )


def _difference(y: Tensor, x: Tensor, edges: float = 1.0, colour: float = 0.0) -> Tensor:
    """L1 of pixels, of their differences to neighbours (which keeps edges sharp), of means of 4 × 4, and of how the
    means of 2 × 2 differ from gray: without it the latents keep light and shade, and lose green and purple."""
    steps = F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(y.diff(dim=-2), x.diff(dim=-2))
    total = F.l1_loss(y, x) + edges * steps + 0.5 * F.l1_loss(F.avg_pool2d(y, 4), F.avg_pool2d(x, 4))
    if colour:
        tint, drawn = (F.avg_pool2d(z - z.mean(1, keepdim=True), 2) for z in (y, x))
        total = total + colour * F.l1_loss(tint, drawn)
    return total


def _crops(x: Tensor, rng: torch.Generator) -> Tensor:
    corners = torch.randint(0, SIZE - _CROP + 1, (len(x), 2), generator=rng).tolist()
    return torch.stack(
        [one[:, top : top + _CROP, left : left + _CROP] for one, (top, left) in zip(x, corners, strict=True)]
    )


def train(pictures: Pictures, crops: int, whole: int, work: Path) -> AutoencoderKL:
    """Train for so many steps on crops of half the size (everything in it is local, so crops teach as much at a quarter
    of the cost), then on whole pictures, whose group-norm statistics are those of use, with more weight on colours.

    Beside the pictures' difference there is a slight KL term, so that the latents are smooth. Afterwards the latents
    are made to have zero mean and unit variance in each channel (folded into the 1 × 1 convolutions at both ends of the
    latents), so `scaling_factor` is 1.
    """
    model = build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    count = len(pictures.layouts)

    def back(x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        posterior = model.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist
        y = model.decode(posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=rng)).sample
        return y, posterior.kl().mean() / posterior.mean[0].numel()

    def small(rng: torch.Generator, step: int) -> Tensor:
        last = step >= crops - crops // 6
        x = pictures.batch(torch.randint(count, (10 if last else 32,), generator=rng))
        x = x if last else _crops(x, rng)
        y, kl = back(x, rng)
        return _difference(y, x) + 2e-3 * kl

    def large(rng: torch.Generator, step: int) -> Tensor:
        x = pictures.batch(torch.randint(count, (10,), generator=rng))
        y, kl = back(x, rng)
        return _difference(y, x, edges=0.3, colour=5.0) + 2e-4 * kl

    def look(step: int) -> None:
        x = pictures.batch(torch.arange(24))
        y = model.decode(model.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        print(f"autoencoder, step {step}: L1 {F.l1_loss(y, x):.4f}", flush=True)
        save_image(torch.cat([x, y]) / 2 + 0.5, work / f"autoencoder-{step:06d}.png", nrow=12)

    fit("autoencoder-crops", model, small, crops, work, lr=2e-3, ema=0.995, look=look)
    fit("autoencoder", model, large, whole, work, lr=1e-3, beta2=0.99, ema=0.99, look=look)
    return _whiten(model, pictures)


@torch.no_grad()
def _whiten(model: AutoencoderKL, pictures: Pictures) -> AutoencoderKL:
    """Give the latents zero mean and unit variance in each channel, the pictures unchanged."""
    parts = [
        model.encode(pictures.batch(index)).latent_dist.mean
        for index in torch.arange(min(512, len(pictures.layouts))).split(64)
    ]
    latents = torch.cat(parts)
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, back = model.quant_conv, model.post_quant_conv
    channels = len(mean)
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight *= std[None, :, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / std
    into.weight[:channels] /= std[:, None, None, None]
    into.bias[channels:] -= 2 * std.log()  # the log of the variance
    model.register_to_config(scaling_factor=1.0)
    return model


def train_decoder(model: AutoencoderKL, pictures: Pictures, steps: int, work: Path) -> AutoencoderKL:
    """Train the decoder on, on whole pictures; the encoder stays as it is, so its latents do too."""
    count = len(pictures.layouts)
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)

    def loss(rng: torch.Generator, step: int) -> Tensor:
        x = pictures.batch(torch.randint(count, (10,), generator=rng)).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            posterior = model.encode(x).latent_dist
        # a diffusion model's latents are a little off: noise of a few hundredths of their deviation
        z = posterior.mean + 0.05 * torch.randn(posterior.mean.shape, generator=rng)
        return _difference(model.decode(z).sample, x, colour=1.0)

    fit("decoder", model, loss, steps, work, lr=1e-3, ema=0.998)
    return model
