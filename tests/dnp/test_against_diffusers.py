"""The embedded model with guidance and samplers, against diffusers' own pipeline on the same files."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline

import samplers
from dnp import Sampling, paint
from dnp.model import EMBEDDED
from guidance import CFG, DNS, NegPrompt

PROMPT, NEGATIVE, SEEDS = "a red circle and a blue square", "a dotted pink background", [3, 4]
CASES = {
    "cfg": (CFG(7.5), {"guidance_scale": 7.5, "prompt": PROMPT}),
    "negative": (
        NegPrompt(5, evaluations=2),
        {"guidance_scale": 5, "prompt": PROMPT, "negative_prompt": NEGATIVE},
    ),
    # A tool's negative prompt of 2 evaluations gives the paper's DNS at s when asked for s + 1.
    "dns": (DNS(2.5), {"guidance_scale": 3.5, "prompt": "", "negative_prompt": PROMPT}),
}
SCHEDULERS = {
    "euler": lambda config: EulerDiscreteScheduler.from_config(config),
    # Latents are not bounded by one: clipping is for pixels, and Stable Diffusion turns it off.
    "ddim": lambda config: DDIMScheduler.from_config(config, clip_sample=False),
}


@pytest.fixture(scope="module")
def pipeline():
    pipeline = StableDiffusionPipeline.from_pretrained(EMBEDDED, torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module", params=SCHEDULERS)
def sampler(request, pipeline):
    pipeline.scheduler = SCHEDULERS[request.param](pipeline.scheduler.config)
    return request.param


def run(pipeline, embedded, kind, options):
    options = {key: [text] * 2 if isinstance(text := value, str) else value for key, value in options.items()}
    noise = samplers.noise(embedded.shape, SEEDS)
    return pipeline(**options, num_inference_steps=8, latents=noise, output_type=kind).images


@pytest.mark.parametrize("case", CASES)
def test_latents_equal_the_pipeline_s(embedded, pipeline, latents_of, sampler, case):
    guidance, options = CASES[case]
    theirs = run(pipeline, embedded, "latent", options)
    texts = {"prompt": [PROMPT] * 2, "negative": [NEGATIVE] * 2}
    ours = latents_of(embedded, guidance, texts, SEEDS, Sampling(sampler, "leading", 8))
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    assert (ours[0] - ours[1]).norm() > 1e-2 * ours.norm()  # and not because both are nothing


def test_pictures_equal_the_pipeline_s(embedded, pipeline):
    pipeline.scheduler = SCHEDULERS["euler"](pipeline.scheduler.config)
    guidance, options = CASES["cfg"]
    theirs = run(pipeline, embedded, "pil", options)
    ours, evaluations = paint(embedded, guidance, {"prompt": [PROMPT] * 2}, SEEDS, Sampling("euler", "leading", 8))
    assert evaluations == 16
    for a, b in zip(ours, theirs, strict=True):
        assert a.size == b.size and a.mode == b.mode
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
