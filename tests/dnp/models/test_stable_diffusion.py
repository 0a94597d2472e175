"""Models of every family with guidance and samplers, against diffusers' own pipelines on the same files."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from PIL import Image

import samplers
from dnp import DNPError, Sampling, paint
from dnp.models.stable_diffusion import StableDiffusion
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


def test_one_text_is_one_prompt(model_of):
    model = model_of("XL")
    one, listed = model.encode("a red circle"), model.encode(["a red circle"])
    assert one["encoder_hidden_states"].shape[0] == 1
    assert torch.equal(one["encoder_hidden_states"], listed["encoder_hidden_states"])
    assert one["added_cond_kwargs"]["time_ids"].shape == (1, 6)


@pytest.mark.parametrize("stated", [{}, {"latents_mean": [0.1, -0.2, 0.3, 0.4], "latents_std": [0.9, 1.1, 2.0, 0.5]}])
def test_pictures_to_latents_and_back_as_the_autoencoder_has_it(checkpoint, tmp_path, stated):
    folder = shutil.copytree(checkpoint("XL"), tmp_path / "model")
    config = json.loads((folder / "vae/config.json").read_text()) | stated
    (folder / "vae/config.json").write_text(json.dumps(config))
    model = StableDiffusion(str(folder), "cpu")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    mean = torch.tensor(stated.get("latents_mean", [0.0] * 4)).view(1, 4, 1, 1)
    std = torch.tensor(stated.get("latents_std", [1.0] * 4)).view(1, 4, 1, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (2, model.height, model.width, 3), dtype=np.uint8)
    pictures = [Image.fromarray(image) for image in pixels]
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        found = vae.encode(x).latent_dist
        mode = (found.mode() - mean) * vae.config.scaling_factor / std
        ours = model.encode_image(pictures)
        torch.testing.assert_close(ours, mode, rtol=1e-4, atol=1e-5)
        drawn = [found.sample(torch.Generator().manual_seed(seed))[i] for i, seed in enumerate([5, 5])]
        first = (drawn[0] - mean[0]) * vae.config.scaling_factor / std[0]
        torch.testing.assert_close(model.encode_image(pictures[0], seeds=[5])[0], first, rtol=1e-4, atol=1e-4)
        theirs = vae.decode(ours * std / vae.config.scaling_factor + mean).sample
    for image, expected in zip(model.decode(ours), theirs, strict=True):
        level = ((expected / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(image) - level).max() < 0.51
    smaller = Image.new("RGBA", (5, 7), (255, 0, 0, 9))
    assert model.encode_image(smaller).shape == (1, *model.shape)
    with pytest.raises(DNPError, match="2 pictures and 1 seeds"):
        model.encode_image(pictures, seeds=[1])
