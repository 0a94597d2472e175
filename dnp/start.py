r"""Where a walk starts: at noise, or at a picture with noise (SDEdit), of which a mask may keep a part.

The picture is encoded as the mode of the autoencoder's distribution, so that it takes nothing of the noise of a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import samplers
from dnp.errors import DNPError
from dnp.wording import counted
from eval.pictures import decode

DENOISE = 0.75
"""The share of the steps by default, as in most tools."""


@dataclass(frozen=True)
class Start:
    """Where the walks of a batch start.

    Args:
        init: The picture, or one for each seed; resized to the model's size. Noise alone by default.
        denoise: The share of the steps, the last ones, that are walked; `DENOISE` by default.
        mask: White where it is painted anew, black where it is kept; of the size of `init`. As in diffusers it is
            black or white, split at half, and each latent takes the value at the corner of its square.

    Raises:
        DNPError: One of them cannot be used, alone or with the others.
    """

    init: Image.Image | Sequence[Image.Image] | None = None
    denoise: float | None = None
    mask: Image.Image | None = None

    def __post_init__(self) -> None:
        if self.init is None:
            for name, value in (("mask", self.mask), ("denoise", self.denoise)):
                if value is not None:
                    raise DNPError(f"{name} is for a picture to start at: give init, too, or leave {name} out")
            return
        for picture in (*self.pictures, *([] if self.mask is None else [self.mask])):
            if not isinstance(picture, Image.Image):
                raise DNPError(f"{str(picture)[:40]!r} is no picture: give PIL images as init and mask")
        if not isinstance(self.share, Real) or not 0 < self.share <= 1:
            raise DNPError(f"denoise is {self.denoise!r}: give the share of the steps, above 0 and at most 1")
        for picture in self.pictures:
            if self.mask is not None and picture.size != self.mask.size:
                (a, b), (c, d) = self.mask.size, picture.size
                raise DNPError(f"the mask is {a}x{b}, the picture to start at {c}x{d}: give a mask of the same size")

    @property
    def pictures(self) -> list[Any]:
        return [] if self.init is None else list(self.init) if isinstance(self.init, list | tuple) else [self.init]

    @property
    def share(self) -> float:
        return DENOISE if self.denoise is None else self.denoise

    def steps(self, steps: int) -> int:
        """How many of the steps are walked.

        Raises:
            SamplerError: None is.
        """
        return steps if self.init is None else len(self._levels(torch.arange(steps, -1, -1))) - 1

    def check(self, model: Any) -> None:
        """
        Raises:
            DNPError: The model cannot start at a picture.
        """
        if self.init is not None and not hasattr(model, "encode_image"):
            raise DNPError(f"the model {model.name} has no encode_image to start at a picture: leave init out")

    def of(self, model: Any, sigmas: Tensor, seeds: Sequence[int]) -> tuple[Tensor, samplers.Picture | None]:
        """The noise levels that are walked, and what `samplers.sample` takes as its picture.

        Raises:
            DNPError: The model cannot start at a picture; there is another number of them than seeds; nothing of the
                mask is white.
            SamplerError: The share is too small for a single step.
        """
        if self.init is None:
            return sigmas, None
        self.check(model)
        if len(self.pictures) not in (1, len(seeds)):
            raise DNPError(
                f"{counted(len(self.pictures), 'picture')} to start at and {counted(len(seeds), 'seed')}: give one "
                "picture, or one for each seed"
            )
        levels, latents = self._levels(sigmas), model.encode_image(self.pictures)
        return levels, samplers.Picture(latents, None if self.mask is None else self._mask(model, latents))

    def _levels(self, sigmas: Tensor) -> Tensor:
        return samplers.denoise_levels(sigmas, self.share)

    def _mask(self, model: Any, latents: Tensor) -> Tensor:
        from diffusers.image_processor import VaeImageProcessor

        assert self.mask is not None
        width, height = getattr(model, "width", self.mask.width), getattr(model, "height", self.mask.height)
        processor = VaeImageProcessor(True, 1, do_normalize=False, do_binarize=True, do_convert_grayscale=True)
        pixels = processor.preprocess(self.mask, height=height, width=width)
        mask = torch.nn.functional.interpolate(pixels, latents.shape[-2:])
        if not mask.any():
            raise DNPError("the mask has no white at the size of the latents: paint white what is to be made anew")
        return mask.to(latents.device)


def read_picture(path: str, what: str) -> tuple[Image.Image, dict[str, str]]:
    """A picture in RGB (what is transparent is white), and the name of its file and its hash for the records.

    Raises:
        DNPError: There is no such file.
        PictureError: It is no readable picture.
    """
    file = Path(path)
    if not file.is_file():  # a pipe would be waited for
        raise DNPError(f"{what} {path} is no file: give a picture")
    data = file.read_bytes()
    return decode(data, f"{what} {path}"), {"name": file.name, "sha256": sha256(data).hexdigest()}
