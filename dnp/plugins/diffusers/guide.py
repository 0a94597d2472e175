"""An ordinary pipeline of diffusers, run with a guidance, our denoiser and our samplers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import samplers
from dnp.errors import DNPError
from dnp.models.flow_denoiser import FIRST_IN_FLOAT64, pack, unpack
from dnp.models.flow_model import KINDS, FlowModel
from dnp.plugins.diffusers.models import UNetModel, model_of
from guidance import Guidance, parse

Texts = str | Sequence[str]


def guide(pipeline: Any, guidance: str | Guidance, **options: Any) -> Guided:
    r"""A pipeline that follows a guidance, and returns what it returned before.

    Nothing of the pipeline given is changed: its weights, scheduler, processors and hooks stay.

    .. code-block:: python

        guided = guide(pipeline, "u + 7.5*(p - u) - 2*(n - u)")
        image = guided("a cat", negative_prompt="a dog", seeds=0).images[0]

    Args:
        pipeline: A `StableDiffusionPipeline`, `…XLPipeline`, `StableDiffusion3Pipeline` or `FluxPipeline`.
        guidance: The guidance, or its formula.
        options: `sampler`, by its name in `samplers` ("euler" by default); `schedule`, by its name there (by default
            the noise levels of the pipeline's own scheduler); of U-Nets `empty`, "encoded" or "zeros"; of flow models
            `table`, `embedded_guidance` and `tokens`, as of `FlowModel`.

    Raises:
        DNPError: A pipeline of another kind. GuidanceError: the text is no formula.
    """
    return Guided(pipeline, guidance, **options)


class Guided:
    """What :func:`guide` makes; called as the pipeline is."""

    def __init__(
        self,
        pipeline: Any,
        guidance: str | Guidance,
        *,
        sampler: str = "euler",
        schedule: str | None = None,
        **options: Any,
    ) -> None:
        self.pipeline, self.guidance = pipeline, parse(guidance) if isinstance(guidance, str) else guidance
        self.sampler, self.schedule, self.options = sampler, schedule, options
        model_of(pipeline, **options)  # what does not fit is said here

    def __call__(
        self,
        prompt: Texts,
        negative_prompt: Texts | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 28,
        sigmas: Tensor | Sequence[float] | None = None,
        seeds: int | Sequence[int] | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        conditions: Mapping[str, Texts] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        progress: samplers.Progress = False,
    ) -> Any:
        r"""Pictures of B prompts.

        Args:
            prompt, negative_prompt: One text or B.
            height, width: Of the pictures; the pipeline's own by default.
            num_inference_steps: The number of steps N.
            sigmas: Noise levels (N + 1) in k-diffusion's state instead, 0 at the end.
            seeds: A seed for each picture, which depends on nothing else; random ones by default.
            generator: Instead of seeds, what the pipeline draws from.
            latents: The initial noise, of unit variance, as the pipeline takes it.
            conditions: Texts of what else the formula names, and of "empty", which is "" by default.
            output_type: "pil", "np", "pt" or "latent".

        Returns:
            What the pipeline returns, its output class or a tuple. Pictures are not looked at by a safety checker.

        Raises:
            DNPError: A text is missing, or one is given that the formula does not name; sizes that do not fit.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        count = len(prompts)
        size = (width or height or 0, height or width or 0) if width or height else None
        if size and isinstance(self.pipeline.vae_scale_factor, int) and not (width and height):
            raise DNPError("give both the width and the height, or neither")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise DNPError(f"the output type {output_type!r} is none of pil, np, pt, latent")
        model = self._model(size)
        texts = self._texts(prompts, negative_prompt, conditions or {})
        noise, drawn = _noise(model, count, seeds, generator, latents)
        levels, start = self._levels(model, num_inference_steps, sigmas)
        dtype = noise.dtype
        if isinstance(model, FlowModel) and model.denoiser.first == FIRST_IN_FLOAT64:
            noise, levels = noise.double(), levels.double()
        follow = self.guidance.wrap(model.denoiser)
        with torch.no_grad():
            found = samplers.sample(
                follow,
                noise,
                levels,
                sampler=self.sampler,
                seeds=drawn,
                start=start,
                progress=progress,
                extra_args={name: model.encode(text) for name, text in texts.items()},
            ).to(dtype)
        follow.check()
        if output_type == "latent":
            images: Any = pack(found) if isinstance(model, FlowModel) and model.flux else found
        else:
            images = model.decode(found)
            if output_type != "pil":
                images = self.pipeline.image_processor.pil_to_numpy(images)
                images = torch.from_numpy(images).permute(0, 3, 1, 2) if output_type == "pt" else images
        return _output(self.pipeline, images, return_dict)

    def _model(self, size: tuple[int, int] | None) -> UNetModel | FlowModel:
        options = dict(self.options)
        if type(self.pipeline).__name__ in KINDS and self.pipeline._execution_device.type != "mps":
            options["first"] = FIRST_IN_FLOAT64  # a flow model's first step is long
        return model_of(self.pipeline, size=size, **options)

    def _texts(self, prompts: list[str], negative: Texts | None, given: Mapping[str, Texts]) -> dict[str, list[str]]:
        count, names = len(prompts), self.guidance.names
        texts: dict[str, Texts] = {"prompt": prompts, "empty": "", **given}
        if negative is not None:
            texts["negative"] = negative
        if extra := [name for name in texts if name not in names and name not in ("prompt", "empty")]:
            raise DNPError(f"there is a text for {extra[0]!r}, which {self.guidance} does not name")
        if missing := [name for name in names if name not in texts]:
            how = "negative_prompt=" if missing[0] == "negative" else f"conditions={{{missing[0]!r}: ...}}"
            raise DNPError(f"{self.guidance} needs a text for {missing[0]!r}: give {how}")
        given_texts = {name: texts[name] for name in names}
        found = {name: [t] * count if isinstance(t, str) else list(t) for name, t in given_texts.items()}
        if wrong := [name for name, text in found.items() if len(text) != count]:
            raise DNPError(f"{len(found[wrong[0]])} texts for {wrong[0]!r} and {count} prompts: give as many, or one")
        return found

    def _levels(self, model: Any, steps: int, sigmas: Any) -> tuple[Tensor, Any]:
        if sigmas is not None:
            return torch.as_tensor(sigmas, dtype=torch.float32), "unit"
        if self.schedule is not None or isinstance(model, FlowModel):
            return samplers.schedule(self.schedule or "model", model.denoiser, steps), "unit"
        own = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        own.set_timesteps(steps)
        if hasattr(own, "sigmas"):
            levels = torch.as_tensor(own.sigmas).float().cpu()
        else:
            alphas = own.alphas_cumprod[own.timesteps.long().cpu()]
            levels = torch.cat([((1 - alphas) / alphas) ** 0.5, torch.zeros(1)])
        levels = levels.unique_consecutive()  # some schedulers evaluate twice at a level
        # Where a pipeline begins with the noise times sigma, not times √(1 + sigma²)
        scaled = abs(float(own.init_noise_sigma) - levels[0].item()) < 1e-6 * levels[0].item()
        return levels, "sigma" if scaled else "unit"


def _noise(
    model: UNetModel | FlowModel, count: int, seeds: Any, generator: Any, latents: Tensor | None
) -> tuple[Tensor, list[int]]:
    """The initial noise (B, C, h, w), and the seeds of the noise of the steps."""
    if seeds is not None and generator is not None:
        raise DNPError("give seeds or a generator, not both")
    drawn: list[int]
    if seeds is None:
        first = generator[0] if isinstance(generator, list) else generator
        where = "cpu" if first is None else first.device
    flux = isinstance(model, FlowModel) and model.flux
    noise = None
    if latents is not None:
        noise = latents.to(model.device)
        if flux and noise.ndim == 3:
            noise = unpack(noise, model.shape[1] // 2, model.shape[2] // 2)
        if noise.shape != (count, *model.shape):
            need = (count, *model.shape)
            raise DNPError(f"the latents are {tuple(noise.shape)}, but {count} prompts of this size need {need}")
    elif seeds is None:
        from diffusers.utils.torch_utils import randn_tensor

        noise = randn_tensor((count, *model.shape), generator=generator, device=model.device)
    if seeds is None:
        drawn = torch.randint(2**62, (count,), generator=first, device=where).tolist()
    else:
        drawn = [seeds] if isinstance(seeds, int) else list(seeds)
        if len(drawn) != count:
            raise DNPError(f"{len(drawn)} seeds for {count} prompts: give one for each")
    if noise is None:
        noise = samplers.noise(model.shape, drawn, device=model.device)
    return noise, drawn


def _output(pipeline: Any, images: Any, return_dict: bool) -> Any:
    """The pictures as the pipeline returns them."""
    from diffusers.pipelines.flux.pipeline_output import FluxPipelineOutput
    from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
    from diffusers.pipelines.stable_diffusion_3.pipeline_output import StableDiffusion3PipelineOutput
    from diffusers.pipelines.stable_diffusion_xl import StableDiffusionXLPipelineOutput

    kind = type(pipeline).__name__
    if kind == "StableDiffusionPipeline":
        return StableDiffusionPipelineOutput(images, None) if return_dict else (images, None)
    outputs = {
        "StableDiffusionXLPipeline": StableDiffusionXLPipelineOutput,
        "StableDiffusion3Pipeline": StableDiffusion3PipelineOutput,
        "FluxPipeline": FluxPipelineOutput,
    }
    return outputs[kind](images) if return_dict else (images,)
