"""Models of every family with guidance and samplers, against diffusers' own pipelines on the same files."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

import samplers
from dnp import Sampling, paint
from guidance import CFG, DNS, NegPrompt

PROMPT, NEGATIVE, SEEDS, STEPS = "a red circle and a blue square", "a dotted pink background", [3, 4], 4
CASES = {
    # SDXL's pipeline, asked for no negative prompt, takes zeros for the empty one: so does its model here by default.
    "cfg": (CFG(7.5), {"guidance_scale": 7.5, "prompt": PROMPT}),
    "negative": (
        NegPrompt(5, evaluations=2),
        {"guidance_scale": 5, "prompt": PROMPT, "negative_prompt": NEGATIVE},
    ),
    # A tool's negative prompt of 2 evaluations gives the paper's DNS at s when asked for s + 1.
    "dns": (DNS(2.5), {"guidance_scale": 3.5, "prompt": "", "negative_prompt": PROMPT}),
}
SCHEDULERS = {
    "euler, leading": lambda config: EulerDiscreteScheduler.from_config(config),
    # Latents are not bounded by one: clipping is for pixels, and Stable Diffusion turns it off.
    "ddim, leading": lambda config: DDIMScheduler.from_config(config, clip_sample=False),
    "dpmpp_2m, trailing": lambda config: DPMSolverMultistepScheduler.from_config(config, timestep_spacing="trailing"),
    "dpmpp_2m, its own": lambda config: DPMSolverMultistepScheduler.from_config(config, timestep_spacing="linspace"),
}


class At(Sampling):
    """On noise levels of a scheduler of diffusers, which spaces them in a way of its own."""

    def __init__(self, sampler, scheduler):
        super().__init__(sampler, "linspace", STEPS)
        scheduler.set_timesteps(STEPS)
        object.__setattr__(self, "levels", scheduler.sigmas)

    def sigmas(self, denoiser):
        return self.levels


@pytest.fixture(scope="module", params=["embedded", "1", "2", "XL"])
def pipeline(request, pipeline_of):
    pipeline = pipeline_of(request.param)
    pipeline.family, pipeline.config_of_scheduler = request.param, pipeline.scheduler.config
    return pipeline


def run(pipeline, shape, kind, options):
    options = {key: [text] * 2 if isinstance(text := value, str) else value for key, value in options.items()}
    return pipeline(**options, num_inference_steps=STEPS, latents=samplers.noise(shape, SEEDS), output_type=kind).images


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("case", CASES)
def test_latents_equal_the_pipeline_s(pipeline, model_of, latents_of, scheduler, case):
    if pipeline.family == "embedded" and "dpmpp" in scheduler:
        pytest.skip("the three others have it, and are smaller")
    pipeline.scheduler = SCHEDULERS[scheduler](pipeline.config_of_scheduler)
    guidance, options = CASES[case]
    encoded = pipeline.family == "XL" and case == "dns"  # where theirs is asked for the text ""
    model = model_of(pipeline.family, **{"empty": "encoded"} if encoded else {})
    theirs = run(pipeline, model.shape, "latent", options)
    sampler, spacing = scheduler.split(", ")
    sampling = At(sampler, pipeline.scheduler) if spacing == "its own" else Sampling(sampler, spacing, STEPS)
    texts = {"prompt": [PROMPT] * 2, "negative": [NEGATIVE] * 2}
    ours = latents_of(model, guidance, texts, SEEDS, sampling)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    assert (ours[0] - ours[1]).norm() > 1e-2 * ours.norm()  # and not because both are nothing
    plain = latents_of(model, CFG(1), texts, SEEDS, sampling)
    assert (ours - plain).norm() > 1e-2 * plain.norm()  # nor because the text is


def test_pictures_equal_the_pipeline_s(pipeline, model_of):
    pipeline.scheduler = SCHEDULERS["euler, leading"](pipeline.config_of_scheduler)
    guidance, options = CASES["cfg"]
    model = model_of(pipeline.family)
    theirs = run(pipeline, model.shape, "pil", options)
    ours, evaluations = paint(model, guidance, {"prompt": [PROMPT] * 2}, SEEDS, Sampling("euler", "leading", STEPS))
    assert evaluations == 2 * STEPS
    for a, b in zip(ours, theirs, strict=True):
        assert a.size == b.size and a.mode == b.mode
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1


def test_the_size_is_a_condition_of_xl(pipeline_of, model_of, latents_of):
    pipeline, model = pipeline_of("XL"), model_of("XL", size=(24, 32))
    pipeline.scheduler = SCHEDULERS["euler, leading"](pipeline.scheduler.config)
    options = {"width": 24, "height": 32} | CASES["cfg"][1]
    theirs = run(pipeline, model.shape, "latent", options)
    ours = latents_of(model, CFG(7.5), {"prompt": [PROMPT] * 2}, SEEDS, Sampling("euler", "leading", STEPS))
    assert ours.shape == (2, 4, 16, 12) and (ours - theirs).norm() < 1e-4 * theirs.norm()
    assert torch.equal(model.encode(["a"])["added_cond_kwargs"]["time_ids"][0], torch.tensor([32, 24, 0, 0, 32, 24.0]))
