r"""`dnp compare`: our pipeline beside diffusers' own, with the same weights, noise levels, steps and batch."""

from __future__ import annotations

import copy
import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

import samplers
from dnp.errors import DNPError
from dnp.models.stable_diffusion import StableDiffusion
from dnp.recipe import Sampling, paint
from dnp.speed.memory import forget_peak, peak_memory
from dnp.speed.timing import interleave, ratio
from guidance import CFG

PROMPT, SCALE = "a red balloon and a blue bowl", 7.5
# Those that take diffusers' steps to the digit, from the same noise
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
}
RANDOM = {"sd15": "Stable Diffusion 1.5"}


def compare(
    model: str = "embedded",
    *,
    random: str | None = None,
    sampler: str = "euler",
    steps: int = 20,
    batches: Sequence[int] = (1, 16),
    repeats: int = 20,
    device: str | None = None,
    dtype: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Say a table: for each batch the paired ratio of the times, memory, evaluations, and how far the pictures differ.

    Args:
        random: One of `RANDOM` instead of a model: its architecture with random weights, for the speed alone.

    Raises:
        DNPError: a sampler or an architecture that is not known here, or what loading a model raises.
    """
    if sampler not in SCHEDULERS:
        raise DNPError(f"the sampler {sampler!r} is none of those that are compared: {', '.join(SCHEDULERS)}")
    if random is not None and random not in RANDOM:
        raise DNPError(f"there is no architecture {random!r} to fill with random weights: {', '.join(RANDOM)}")
    if not batches or min(batches) < 1:
        raise DNPError("a batch has one picture or more, as in --batch 1,16")
    with _folder(model, random) as name:
        loaded = StableDiffusion(name, device, dtype)
        pipeline = _pipeline(loaded, sampler)
        sampling = Sampling(sampler, "leading", steps)
        on = "" if loaded.device.type == "cuda" else f", {torch.get_num_threads()} threads"
        say(
            f"{f'random weights ({RANDOM[random]})' if random else loaded.name}, "
            f"{str(loaded.dtype).removeprefix('torch.')} on {loaded.device}{on}; {sampler}, {steps} steps. Our time / "
            "that of diffusers' pipeline, the median of pairs with its 95 % interval:\n"
        )
        say("| batch | wall | processor | seconds a batch | memory, MiB | evaluations | pictures apart | pairs |")
        say("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for batch in batches:
            say(_row(loaded, pipeline, sampling, batch, repeats))


Pipeline = Callable[..., list[Image.Image]]


def _row(model: StableDiffusion, pipeline: Pipeline, sampling: Sampling, batch: int, repeats: int) -> str:
    prompts = [PROMPT] * batch

    def ours() -> list[Image.Image]:
        model.texts.forget()  # of texts: the pipeline keeps none
        return paint(model, CFG(SCALE), {"prompt": prompts}, range(batch), sampling)[0]

    def theirs() -> list[Image.Image]:
        noise = samplers.noise(model.shape, range(batch), device=model.device, dtype=model.dtype)
        return pipeline(prompts, sampling.steps, noise)

    # First runs take longer: these tell what else is to be known.
    images, memory, rows = zip(*(_watched(run, model) for run in (ours, theirs)), strict=True)
    a, b = ([np.asarray(image, int) for image in made] for made in images)
    apart = np.abs(np.subtract(a, b)).max()
    with tqdm(total=repeats, desc=f"batch {batch}", unit="pair", leave=False) as bar:
        pair = interleave(ours, theirs, repeats, bar.update)
    cells = [
        str(batch),
        str(ratio(*pair.wall)),
        "" if model.device.type == "cuda" else str(ratio(*pair.cpu)),
        " / ".join(f"{median(seconds):.2f}" for seconds in pair.wall),
        " / ".join(memory),
        " / ".join(f"{count // batch}" for count in rows),
        f"{apart} of 255",
        str(repeats),
    ]
    return f"| {' | '.join(cells)} |"


def _watched(run: Callable[[], list[Image.Image]], model: StableDiffusion) -> tuple[list[Image.Image], str, int]:
    """What it makes, the peak of memory, and the rows that the U-Net evaluated."""
    rows = 0

    def count(module: Any, inputs: tuple[Any, ...]) -> None:
        nonlocal rows
        rows += len(inputs[0])

    gc.collect()
    forget_peak()
    hook = model.unet.register_forward_pre_hook(count)
    try:
        images = run()
    finally:
        hook.remove()
    return images, str(peak_memory() or "?"), rows


def _pipeline(model: StableDiffusion, sampler: str) -> Pipeline:
    """diffusers' own, of the very same parts: (prompts, steps, noise) → pictures."""
    import diffusers

    name, options = SCHEDULERS[sampler]
    config = diffusers.DDIMScheduler.load_config(model.folder / "scheduler")
    # Ours decodes in float32 whatever the dtype; a pipeline is of one dtype
    vae = model.autoencoder
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae if model.dtype == torch.float32 else copy.deepcopy(vae).to(model.dtype),
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=getattr(diffusers, name).from_config(config, timestep_spacing="leading", **options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return lambda prompts, steps, noise: (
        pipeline(prompts, num_inference_steps=steps, guidance_scale=SCALE, latents=noise).images
    )


@contextmanager
def _folder(model: str, random: str | None) -> Iterator[str]:
    """A model's name, or for as long as it is needed a directory of one with random weights."""
    if random is None:
        yield model
        return
    with tempfile.TemporaryDirectory() as folder:
        from dnp.speed.fullsize import write

        write(Path(folder))
        yield folder
