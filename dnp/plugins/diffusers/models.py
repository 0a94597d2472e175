"""An ordinary pipeline of diffusers as a text-to-image model of ours, which leaves it as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dnp.errors import DNPError
from dnp.models import checkpoint
from dnp.models.denoisers import EpsDenoiser, VDenoiser
from dnp.models.flow_model import KINDS, FlowModel
from dnp.models.stable_diffusion import _Noise
from dnp.models.supported import latent_statistics

UNETS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


class UNetModel:
    """A Stable Diffusion 1.x, 2.x or XL around its pipeline: prompts are encoded by it, its LoRAs and textual
    inversions with it.

    Args:
        empty: What the empty text is, "encoded" or "zeros"; by default what the pipeline takes where no negative
            prompt is given, zeros for SDXL.
    """

    def __init__(self, pipeline: Any, *, size: tuple[int, int] | None = None, empty: str | None = None) -> None:
        if empty not in (None, "encoded", "zeros"):
            raise DNPError(f"the empty prompt {empty!r} is none of encoded, zeros")
        self.pipeline, self.name, self.xl = pipeline, "pipeline", type(pipeline).__name__ == UNETS[1]
        config, self.tokenizer = pipeline.unet.config, pipeline.tokenizer
        if config.in_channels != pipeline.vae.config.latent_channels or config.time_cond_proj_dim:
            raise DNPError(
                f"the U-Net of the {type(pipeline).__name__} takes more than latents and text (inpainting, editing, or "
                "a scale embedded by distillation): give a plain text-to-image model"
            )
        factor: int = pipeline.vae_scale_factor
        sides = config.sample_size
        height, width = sides if isinstance(sides, (list, tuple)) else (sides, sides)
        self.width: int
        self.height: int
        self.width, self.height = size or (width * factor, height * factor)
        if self.width % factor or self.height % factor or min(self.width, self.height) < factor:
            raise DNPError(f"the size {self.width}x{self.height} does not fit: give multiples of {factor}")
        self.shape = (config.in_channels, self.height // factor, self.width // factor)
        zeros = self.xl and pipeline.config.force_zeros_for_empty_prompt
        self.zeros = zeros if empty is None else empty == "zeros"
        scheduler = pipeline.scheduler
        kinds = {"epsilon": EpsDenoiser, "v_prediction": VDenoiser}
        kind = getattr(scheduler.config, "prediction_type", None)
        if kind not in kinds or not hasattr(scheduler, "alphas_cumprod"):
            raise DNPError(f"the {type(scheduler).__name__} predicts {kind!r}, which is none of {', '.join(kinds)}")
        # A schedule that ends in nothing but noise has an infinite sigma
        alphas = scheduler.alphas_cumprod.clamp(min=2**-24).to(self.device)
        self.denoiser = kinds[kind](_Noise(pipeline.unet, pipeline.unet.dtype), alphas, False)

    @property
    def device(self) -> torch.device:
        """Where the pipeline runs."""
        found: torch.device = self.pipeline._execution_device
        return found

    def encode(self, prompts: str | Sequence[str]) -> dict[str, Any]:
        """Texts → {"encoder_hidden_states": (B, tokens, width)}, with SDXL's pooled embeddings and sizes; each text is
        encoded by itself."""
        prompts = [prompts] if isinstance(prompts, str) else prompts
        hidden, pooled = zip(*(self._encode(prompt) for prompt in prompts), strict=True)
        found: dict[str, Any] = {"encoder_hidden_states": torch.cat(hidden)}
        if self.xl:
            size = [self.height, self.width, 0, 0, self.height, self.width]  # as of an uncropped picture of this size
            times = torch.tensor([size] * len(prompts), dtype=torch.float32, device=self.device)
            found["added_cond_kwargs"] = {"text_embeds": torch.cat(pooled), "time_ids": times}
        return found

    @torch.no_grad()
    def _encode(self, prompt: str) -> tuple[Tensor, Tensor]:
        with checkpoint.silence():
            if self.xl:
                options = {"device": self.device, "do_classifier_free_guidance": False}
                hidden, _, pooled, _ = self.pipeline.encode_prompt(prompt, **options)
            else:
                hidden = pooled = self.pipeline.encode_prompt(prompt, self.device, 1, False)[0]
        if self.zeros and not prompt:
            return torch.zeros_like(hidden), torch.zeros_like(pooled)
        return hidden, pooled

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, 4, h, w) → B pictures, one at a time."""
        autoencoder = self.pipeline.vae
        mean, std, factor = latent_statistics(Path(self.name), autoencoder)
        images: list[Image.Image] = []
        if autoencoder.dtype == torch.float16 and autoencoder.config.force_upcast:
            autoencoder = copy.deepcopy(autoencoder).float()  # SDXL's overflows; the pipeline's own stays as it is
        for z in latents.to(self.device).split(1):
            z = z * std.to(z) / factor + mean.to(z)
            x = autoencoder.decode(z.to(autoencoder.dtype), return_dict=False)[0]
            images += self.pipeline.image_processor.postprocess(x.float())
        self.pipeline.maybe_free_model_hooks()
        return images


def model_of(pipeline: Any, **options: Any) -> UNetModel | FlowModel:
    """The model of a pipeline.

    Args:
        options: `size`, and of U-Nets `empty`, of flow models those of `FlowModel`.

    Raises:
        DNPError: A pipeline of another kind.
    """
    kind = type(pipeline).__name__
    if kind not in (*UNETS, *KINDS):
        raise DNPError(f"{kind} is not supported: give one of {', '.join((*UNETS, *KINDS))}")
    try:
        return UNetModel(pipeline, **options) if kind in UNETS else FlowModel(pipeline, "pipeline", **options)
    except TypeError as error:
        raise DNPError(f"a {kind} takes no such option ({error})") from None
