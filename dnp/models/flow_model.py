"""A flow model, Stable Diffusion 3 or 3.5 or Flux, as the recipe takes one, around its pipeline of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dnp.errors import DNPError
from dnp.models import checkpoint
from dnp.models.defaults import Defaults
from dnp.models.flow_denoiser import FIRST, FlowDenoiser, FluxVelocity, SD3Velocity, Table
from dnp.models.supported import latent_statistics

KINDS = ("StableDiffusion3Pipeline", "FluxPipeline")
# How the pipelines sample; the scale is of true guidance, with a prediction for the empty prompt
_DEFAULTS = {"sampler": "euler", "schedule": "model", "steps": 28, "dns_steps": 14}
_SCALES = {"StableDiffusion3Pipeline": 7.0, "FluxPipeline": 4.0}


class FlowModel:
    r"""A Stable Diffusion 3 or 3.5, or a Flux, around its pipeline of diffusers, which is left as it is.

    The pipeline encodes the prompts; the denoiser is of its transformer, in k-diffusion's own state, so that every
    sampler and every guidance holds (:mod:`dnp.models.flow_denoiser`). Flux's embedded guidance is a number that the
    network of Flux-dev takes, one evaluation; it is no guidance of ours, which evaluate the empty prompt, too.

    Args:
        pipeline: A `StableDiffusion3Pipeline` or `FluxPipeline`.
        name: For the records.
        size: Of the pictures, (width, height), multiples of 16; 1024x1024 for Flux, else the transformer's own.
        table: What the schedule "model" is: "diffusers", the pipeline's own noise levels; or "paper", SD 3's levels
            shifted once, as in its paper, where diffusers' scheduler shifts them twice. Of Flux they are the same.
        embedded_guidance: The scale that Flux-dev's network is given; others take none.
        tokens: How many tokens the T5 encoder reads, 256 of SD 3 and 512 of Flux by default.
        first: The time that stands for 1: `flow_denoiser.FIRST_IN_FLOAT64` where the walk is in float64.

    Raises:
        DNPError: A pipeline of another kind, a size that does not fit, an unknown table, another scheduler.
    """

    def __init__(
        self,
        pipeline: Any,
        name: str = "pipeline",
        *,
        size: tuple[int, int] | None = None,
        table: str = "diffusers",
        embedded_guidance: float = 3.5,
        tokens: int | None = None,
        first: float = FIRST,
    ) -> None:
        kind = type(pipeline).__name__
        if kind not in KINDS:
            raise DNPError(f"{kind} is no pipeline of a flow model: give one of {', '.join(KINDS)}")
        self.pipeline, self.name, self.flux = pipeline, name, kind == "FluxPipeline"
        self.folder = Path(name)
        self.cpu_offload = False
        self.autoencoder, self.tokenizer = pipeline.vae, pipeline.tokenizer
        config = pipeline.transformer.config
        factor: int = pipeline.vae_scale_factor
        own: int = pipeline.default_sample_size * factor
        self.width: int
        self.height: int
        self.width, self.height = size or (own, own)
        if self.width % (2 * factor) or self.height % (2 * factor) or min(self.width, self.height) < 2 * factor:
            raise DNPError(f"the size {self.width}x{self.height} does not fit: give multiples of {2 * factor}")
        most = 0 if self.flux else config.pos_embed_max_size * config.patch_size * factor
        if most and max(self.width, self.height) > most:
            raise DNPError(f"the size {self.width}x{self.height} does not fit: the transformer knows up to {most}")
        channels = config.in_channels // 4 if self.flux else config.in_channels
        self.shape = (channels, self.height // factor, self.width // factor)
        self.tokens = tokens or (512 if self.flux else 256)
        self.embedded_guidance = embedded_guidance if self.flux and config.guidance_embeds else None
        self.defaults = Defaults(scale=_SCALES[kind], strength=_SCALES[kind], **_DEFAULTS)  # type: ignore[arg-type]
        velocity = (FluxVelocity if self.flux else SD3Velocity)(pipeline.transformer)
        self.denoiser = FlowDenoiser(velocity, self._table(table), first)
        self._encoded = lru_cache(maxsize=16)(self._encode)
        self.options: dict[str, Any] = {"table": table}
        if self.embedded_guidance is not None:
            self.options["embedded_guidance"] = float(embedded_guidance)
        if not self.flux and pipeline.text_encoder_3 is None:
            self.options["t5"] = False
        if size:
            self.options["size"] = f"{self.width}x{self.height}"

    @property
    def device(self) -> torch.device:
        """Where the pipeline runs, which may move."""
        found: torch.device = self.pipeline._execution_device
        return found

    def encode(self, prompts: str | Sequence[str]) -> dict[str, Any]:
        """Texts → {"encoder_hidden_states": (B, tokens, width), "pooled_projections": (B, width)}, and Flux-dev's
        {"guidance": (B)}; each text is encoded by itself, the last ones once."""
        prompts = [prompts] if isinstance(prompts, str) else prompts
        hidden, pooled = zip(*(self._encoded(prompt, self.device) for prompt in prompts), strict=True)
        found = {"encoder_hidden_states": torch.cat(hidden), "pooled_projections": torch.cat(pooled)}
        if self.embedded_guidance is not None:
            found["guidance"] = torch.full((len(prompts),), float(self.embedded_guidance), device=self.device)
        return found

    @torch.no_grad()
    def _encode(self, prompt: str, device: torch.device) -> tuple[Tensor, Tensor]:
        options: dict[str, Any] = {"device": device, "max_sequence_length": self.tokens}
        with checkpoint.silence():  # a prompt that is too long is told of by `warnings`
            if self.flux:
                hidden, pooled, _ = self.pipeline.encode_prompt([prompt], None, **options)
            else:
                options["do_classifier_free_guidance"] = False
                hidden, _, pooled, _ = self.pipeline.encode_prompt([prompt], None, None, **options)
        return hidden, pooled

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, C, h, w) → B pictures, one at a time, which spares memory and makes none depend on another."""
        mean, std, factor = latent_statistics(self.folder, self.autoencoder)
        images: list[Image.Image] = []
        for z in latents.to(self.device).split(1):
            z = z * std.to(z) / factor + mean.to(z)
            x = self.autoencoder.decode(z.to(self.autoencoder.dtype), return_dict=False)[0]
            images += self.pipeline.image_processor.postprocess(x.float())
        self.pipeline.maybe_free_model_hooks()
        return images

    def warnings(self, prompt: str) -> list[str]:
        """What of a prompt the model does not read, in a line."""
        count = len(self.tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids)
        room = self.tokenizer.model_max_length - 2
        if count <= room:
            return []
        t5 = f", but T5 reads {self.tokens}" if self.flux or self.pipeline.text_encoder_3 is not None else ""
        return [f"the prompt has {count} tokens, of which CLIP reads the first {room}{t5}"]

    def _table(self, name: str) -> Table:
        scheduler = self.pipeline.scheduler
        if not type(scheduler).__name__.startswith("FlowMatchEuler"):
            raise DNPError(
                f"the scheduler {type(scheduler).__name__} has noise levels of another kind: "
                "give the pipeline a FlowMatchEulerDiscreteScheduler"
            )
        if name not in ("diffusers", "paper"):
            raise DNPError(f"the table {name!r} is none of diffusers, paper")
        config = scheduler.config
        if name == "paper" and not self.flux and not config.use_dynamic_shifting:
            shift, least = config.shift, 1 / config.num_train_timesteps

            def paper(steps: int) -> Tensor:
                t = torch.linspace(1, least, steps, dtype=torch.double)
                return shift * t / (1 + (shift - 1) * t)

            return paper
        return _pipeline_table(scheduler, self.shape, self.flux)


def _pipeline_table(scheduler: Any, shape: tuple[int, int, int], flux: bool) -> Callable[[int], Tensor]:
    """The times that a pipeline asks of its scheduler, by a scheduler of the same configuration."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    own, config = type(scheduler).from_config(scheduler.config), scheduler.config
    options: dict[str, Any] = {}
    if flux or config.use_dynamic_shifting:
        bounds = [config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift]
        options["mu"] = calculate_shift(shape[1] // 2 * (shape[2] // 2), *bounds)

    def table(steps: int) -> Tensor:
        if flux:
            options["sigmas"] = np.linspace(1, 1 / steps, steps)
        own.set_timesteps(steps, **options)
        times: Tensor = own.sigmas[:-1]
        return times

    return table
