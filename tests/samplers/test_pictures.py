import pytest
import torch
from diffusers import DDIMScheduler

import samplers
from samplers import Picture, SamplerError

SHAPE, SEEDS = (4, 6, 6), [3, 5]


@pytest.fixture
def given(gaussian):
    sigmas = samplers.schedule("karras", gaussian, 8)
    rng = torch.Generator().manual_seed(1)
    z = torch.randn(2, *SHAPE, generator=rng)
    mask = (torch.rand(2, 1, 6, 6, generator=rng) > 0.5).float()
    return sigmas, samplers.noise(SHAPE, SEEDS), z, mask


def test_the_last_share_of_the_steps():
    sigmas = torch.arange(10.0, -1, -1)
    assert samplers.denoise_levels(sigmas, 1).tolist() == sigmas.tolist()
    assert samplers.denoise_levels(sigmas, 0.7).tolist() == sigmas[3:].tolist()
    assert samplers.denoise_levels(sigmas, 0.35).tolist() == sigmas[7:].tolist()
    assert samplers.denoise_levels(sigmas, 0.1).tolist() == [1, 0]
    for share in (0, -0.5, 1.2, float("nan")):
        with pytest.raises(SamplerError, match="above 0 and at most 1"):
            samplers.denoise_levels(sigmas, share)
    with pytest.raises(SamplerError, match="0.05 of 10 steps is no step: use at least 0.1"):
        samplers.denoise_levels(sigmas, 0.05)


def test_image_to_image_is_diffusers_ddim(discrete):
    """As `StableDiffusionImg2ImgPipeline` does it, with a denoiser of numbers."""
    theirs = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    theirs.set_timesteps(10)
    noise, z = samplers.noise(SHAPE, SEEDS), torch.randn(2, *SHAPE)
    latents = theirs.add_noise(z, noise, theirs.timesteps[4:5].repeat(2))
    for t in theirs.timesteps[4:]:
        a = theirs.alphas_cumprod[t]
        x0 = torch.tanh(latents / a.sqrt())
        latents = theirs.step((latents - a.sqrt() * x0) / (1 - a).sqrt(), t, latents).prev_sample
    sigmas = samplers.schedule("leading", discrete, 10, final="sigma_min")
    ours = samplers.sample(
        lambda x, sigma: torch.tanh(x), noise, samplers.denoise_levels(sigmas, 0.6), sampler="ddim", picture=Picture(z)
    )
    torch.testing.assert_close(ours, latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", ["euler", "heun", "euler_ancestral", "dpmpp_2m"])
def test_what_is_kept_is_the_picture_at_every_step(gaussian, given, sampler):
    sigmas, noise, z, mask = given
    seen = []

    def look(step):
        seen.append((step.level, step.x.clone()))

    x = samplers.sample(gaussian, noise, sigmas[2:], sampler=sampler, seeds=SEEDS, picture=Picture(z, mask), hook=look)
    kept = (mask == 0).expand_as(z)
    assert torch.equal(x[kept], z[kept])
    assert [level for level, _ in seen] == sigmas[2:-1].tolist()
    for level, state in seen:
        torch.testing.assert_close(state[kept], (z + level * noise)[kept], rtol=1e-6, atol=1e-6)
    assert (x - z)[~kept].abs().max() > 1e-2


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_masks_of_nothing_and_of_all(gaussian, given, sampler):
    sigmas, noise, z, _ = given
    common = {"sampler": sampler, "seeds": SEEDS}
    nothing = samplers.sample(gaussian, noise, sigmas, picture=Picture(z, torch.zeros(1, 1, 6, 6)), **common)
    torch.testing.assert_close(nothing, z, rtol=1e-6, atol=1e-6)
    whole = samplers.sample(gaussian, noise, sigmas, picture=Picture(z, torch.ones(1, 1, 6, 6)), **common)
    torch.testing.assert_close(whole, samplers.sample(gaussian, noise, sigmas, picture=Picture(z), **common))


def test_what_does_not_fit_is_named(gaussian, given):
    sigmas, noise, z, mask = given
    with pytest.raises(
        SamplerError, match=r"the mask has the shape \(2, 1, 5, 6\); for these latents it is \(B, 1, 6, 6\)"
    ):
        Picture(z, mask[:, :, :5])
    with pytest.raises(SamplerError, match="outside of 0"):
        Picture(z, mask * 255)
    with pytest.raises(SamplerError, match=r"latents have the shape \(2, 4, 5, 6\), the noise \(2, 4, 6, 6\)"):
        samplers.sample(gaussian, noise, sigmas, picture=Picture(z[:, :, :5]))
