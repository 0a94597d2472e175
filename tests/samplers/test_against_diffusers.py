"""Agreement with diffusers' schedulers around one UNet, configured as Stable Diffusion configures them."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UNet2DConditionModel,
)
from k_diffusion.external import DiscreteEpsDDPMDenoiser

import samplers

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LEADING = {**BETAS, "timestep_spacing": "leading", "steps_offset": 1}
SHAPE, SEEDS = (4, 8, 8), [7, 11]


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        cross_attention_dim=16,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        attention_head_dim=4,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


@pytest.fixture(scope="module")
def cond():
    return torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def denoiser(unet, alphas_cumprod):
    return DiscreteEpsDDPMDenoiser(
        lambda x, t, cond: unet(x, t, encoder_hidden_states=cond).sample, alphas_cumprod, quantize=False
    )


@torch.no_grad()
def by_hand(scheduler, unet, cond, steps, **options):
    """The loop of diffusers' pipelines, with their way to draw from a list of generators."""
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    if not isinstance(scheduler, EulerDiscreteScheduler):
        options["generator"] = generators
    scheduler.set_timesteps(steps)
    z = torch.cat([torch.randn((1, *SHAPE), generator=generator) for generator in generators])
    z = z * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        eps = unet(scheduler.scale_model_input(z, t), t, encoder_hidden_states=cond).sample
        z = scheduler.step(eps, t, z, **options).prev_sample
    return z


CASES = {
    "euler, leading": (EulerDiscreteScheduler(**LEADING), {}, "euler", "leading", {}, {}),
    "euler, trailing": (
        EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing"),
        {},
        "euler",
        "trailing",
        {},
        {"start": "sigma"},
    ),
    "euler_ancestral": (EulerAncestralDiscreteScheduler(**LEADING), {}, "euler_ancestral", "leading", {}, {}),
    **{
        f"ddim({eta})": (
            DDIMScheduler(**LEADING, clip_sample=False, set_alpha_to_one=False),
            {"eta": eta},
            "ddim",
            "leading",
            {"final": "sigma_min"},
            {"eta": eta},
        )
        for eta in [0.0, 0.5, 1.0]
    },
    "ddim to zero": (
        DDIMScheduler(**LEADING, clip_sample=False, set_alpha_to_one=True),
        {},
        "ddim",
        "leading",
        {},
        {},
    ),
    "ddpm": (DDPMScheduler(**LEADING, clip_sample=False), {}, "ddpm", "leading", {}, {}),
}


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("case", CASES)
def test_final_latents_agree(unet, cond, denoiser, case, steps):
    scheduler, theirs, sampler, name, spacing, ours = CASES[case]
    expected = by_hand(scheduler, unet, cond, steps, **theirs)

    sigmas = samplers.schedule(name, denoiser, steps, **spacing)
    noise = samplers.noise(SHAPE, SEEDS)
    z = samplers.sample(denoiser, noise, sigmas, sampler=sampler, seeds=SEEDS, extra_args={"cond": cond}, **ours)
    assert (z - expected).abs().max() < 1e-4 * expected.abs().max()
