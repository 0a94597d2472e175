"""What the configurations of a checkpoint say and a picture depends on: honoured, or refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnp.errors import DNPError
from dnp.models.checkpoint import Parts


def check(path: Path, parts: Parts) -> None:
    """Refuse what has the parts of a Stable Diffusion but is for something else than text to image.

    Raises:
        DNPError: Names the setting, its value, and what to give instead.
    """
    config, latent = parts.unet.config, parts.autoencoder.config.latent_channels
    if config.in_channels != latent:
        kinds = {9: "inpainting", 8: "editing pictures", 7: "upscaling", 5: "depth"}
        raise DNPError(
            f"{path} is a model for {kinds.get(config.in_channels, 'another task')}, whose network takes "
            f"{config.in_channels} channels: give a text-to-image model"
        )
    if config.out_channels != latent:
        raise DNPError(
            f"{path} has a U-Net that gives {config.out_channels} channels for {latent}, such as one that learned its "
            "variance: give a model that predicts noise or v alone"
        )
    if config.time_cond_proj_dim is not None:
        raise DNPError(
            f"{path} is a latent consistency model, whose guidance scale is an input of its U-Net "
            f"(time_cond_proj_dim is {config.time_cond_proj_dim}): give the model that it was made of, with its LoRA"
        )
    if (config.addition_embed_type == "text_time") != parts.xl or config.class_embed_type or config.num_class_embeds:
        raise DNPError(f"{path} is neither 1.x, 2.x nor XL, but such as SDXL's refiner: give one of those")
    for key, value in (("addition_embed_type", None if parts.xl else config.addition_embed_type),
                       ("encoder_hid_dim_type", config.encoder_hid_dim_type)):  # fmt: skip
        if value is not None:
            raise DNPError(f"{path} has a U-Net whose {key} is {value!r}: give a Stable Diffusion 1.x, 2.x or XL")
    if config.cross_attention_dim != (width := sum(part.config.hidden_size for part in parts.text_encoders)):
        raise DNPError(
            f"{path} has a U-Net for text of width {config.cross_attention_dim}, but text encoders of {width}: "
            "its parts do not belong together"
        )


def own_size(path: Path, parts: Parts, factor: int) -> tuple[int, int]:
    """Width and height of the pictures that the model was trained on, in pixels.

    Args:
        factor: Pixels for each latent, along a side.

    Raises:
        DNPError: The U-Net's `sample_size` is neither a number nor two.
    """
    size = parts.unet.config.sample_size
    height, width = size if isinstance(size, (list, tuple)) and len(size) == 2 else (size, size)
    if not all(type(side) is int and side > 0 for side in (height, width)):
        raise DNPError(f"{path} does not say how large its pictures are (sample_size is {size!r}): give --size 512x512")
    return width * factor, height * factor


def latent_statistics(path: Path, autoencoder: Any) -> tuple[Tensor, Tensor, float]:
    r"""How the autoencoder's latents z are normalised for the U-Net: :math:`\hat z = f (z - m) / s`.

    Returns:
        :math:`m` and :math:`s`, each with shape (C, 1, 1), and the factor :math:`f`.

    Raises:
        DNPError: One of `scaling_factor`, `shift_factor`, `latents_mean` and `latents_std` is of another type.
    """
    config, channels = autoencoder.config, autoencoder.config.latent_channels
    stated = {
        "scaling_factor": [config.scaling_factor],
        "shift_factor": [config.get("shift_factor") or 0.0],
        "latents_mean": config.get("latents_mean") or [0.0] * channels,
        "latents_std": config.get("latents_std") or [1.0] * channels,
    }
    for key, values in stated.items():
        count = channels if key.startswith("latents") else 1
        numbers = isinstance(values, (list, tuple)) and all(type(v) in (int, float) for v in values)
        good = numbers and len(values) == count and all(map(math.isfinite, values))
        if not good or (key in ("scaling_factor", "latents_std") and min(values) <= 0):
            given = values if key.startswith("latents") else values[0]
            raise DNPError(f"{path}: the autoencoder's {key} is {given!r}, not {count} usable number(s): copy it again")
    shift, mean, std = (
        torch.tensor(values, dtype=torch.float32)[:, None, None] for values in list(stated.values())[1:]
    )
    return mean + shift, std, float(config.scaling_factor)
