r"""A ControlNet beside a U-Net: the picture that steers it is one more of the denoiser's conditions.

So every guidance works under it: DNS asks for what is least like the prompt, in the same pose.

References:
    Adding Conditional Control to Text-to-Image Diffusion Models, Zhang et al., ICCV 2023, https://arxiv.org/abs/2302.05543
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from dnp.errors import DNPError
from dnp.models.checkpoint import Parts, load_network

log = logging.getLogger(__name__)


class Controlled(nn.Module):
    """A U-Net with the residuals of a ControlNet, of which `control` (B, 3, H, W) among the conditions is the picture.

    Args:
        scale: The weight of the residuals.
    """

    def __init__(self, unet: nn.Module, controlnet: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.unet, self.controlnet, self.scale = unet, controlnet, scale

    def forward(self, x: Tensor, t: Tensor, *, control: Tensor, return_dict: bool = False, **condition: Any) -> Any:
        down, middle = self.controlnet(
            x, t, controlnet_cond=control.to(x.dtype), conditioning_scale=self.scale, return_dict=False, **condition
        )
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return self.unet(x, t, **condition, **residuals, return_dict=return_dict)


def load_controlnet(folder: str, parts: Parts, dtype: torch.dtype, pickle: bool = False) -> nn.Module:
    """A ControlNet from a directory in diffusers' format.

    Raises:
        DNPError: It is missing, of another class, for another model, or for the conditional prediction only.
    """
    from diffusers import ControlNetModel

    if not Path(folder).is_dir():
        raise DNPError(f"there is no ControlNet directory {folder!r}: give one in diffusers' format")
    unread: list[str] = []
    found: Any = load_network(ControlNetModel, Path(folder), dtype, pickle, unread)
    if unread:
        log.warning("%s: nothing reads %d of its weights and settings, such as %s", folder, len(unread), unread[0])
    mine, its = parts.unet.config, found.config
    if its.global_pool_conditions:
        raise DNPError(
            f"the ControlNet {folder} is meant for the conditional prediction only (global_pool_conditions), which is "
            "not supported: give one that acts on all"
        )
    if its.conditioning_channels != 3:
        raise DNPError(f"the ControlNet {folder} takes {its.conditioning_channels} channels: give one for RGB pictures")
    for key in ("cross_attention_dim", "block_out_channels", "layers_per_block", "addition_embed_type"):
        if mine[key] != its[key]:
            raise DNPError(
                f"the ControlNet {folder} is for another model: its {key} is {its[key]}, the model's {mine[key]}"
            )
    return found  # type: ignore[no-any-return]


def read_control(path: str, width: int, height: int) -> Tensor:
    """A picture as a ControlNet takes it: (1, 3, height, width) in [0, 1].

    Raises:
        DNPError: It is not a readable picture.
    """
    from diffusers.image_processor import VaeImageProcessor

    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError) as error:
        raise DNPError(f"the control image {path} is no readable picture ({error})") from None
    found: Tensor = VaeImageProcessor(do_normalize=False).preprocess(picture, height=height, width=width)
    return found
