r"""What the recipe needs of a text-to-image model.

A text-to-image model is four things (and a name for the records)::

    class Mine:
        name = "mine"
        shape = (4, 64, 64)                    # of one image's latents
        denoiser = k_diffusion_denoiser        # model(x, sigma, **condition) -> denoised

        def encode(self, prompts):             # texts → the denoiser's keyword arguments, the batch first
            return {"cond": text_encoder(prompts)}

        def decode(self, latents):             # latents of unit variance → PIL images
            ...

If it has a `device`, noise is made there, else on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from PIL import Image
from torch import Tensor, nn


class TextToImage(Protocol):
    """What the recipe asks of a model."""

    name: str
    shape: tuple[int, int, int]
    denoiser: nn.Module

    def encode(self, prompts: Sequence[str]) -> Mapping[str, Any]:
        """Texts → the denoiser's keyword arguments, tensors with the batch first."""
        ...

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, C, H, W) → B pictures."""
        ...
