import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

import samplers
from samplers import SamplerError

SHAPE = (4, 8, 8)
SEEDS = [5, 0, 2**63 - 1]
STOCHASTIC = [
    ("euler_ancestral", {}),
    ("dpm_2_ancestral", {}),
    ("dpm_fast", {"eta": 1.0}),
    ("dpmpp_2s_ancestral", {}),
    ("dpmpp_sde", {}),
    ("dpmpp_2m_sde", {}),
    ("dpmpp_3m_sde", {}),
    ("ddim", {"eta": 0.5}),
    ("ddpm", {}),
    ("euler", {"s_churn": 10.0}),
    ("heun", {"s_churn": 10.0}),
    ("dpm_2", {"s_churn": 10.0}),
]
BATCHED = STOCHASTIC + [(name, {}) for name in ["euler", "heun", "dpm_2", "lms", "dpm_fast", "dpmpp_2m", "ddim"]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_noise_is_that_of_diffusers(dtype):
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    theirs = randn_tensor((3, *SHAPE), generator=generators, dtype=dtype)
    assert torch.equal(samplers.noise(SHAPE, SEEDS, dtype=dtype), theirs)


def test_noise_belongs_to_its_seed():
    together = samplers.noise(SHAPE, SEEDS)
    alone = torch.cat([samplers.noise(SHAPE, [seed]) for seed in SEEDS])
    assert torch.equal(together, alone)
    assert torch.equal(samplers.noise(SHAPE, np.array([5, 0])), together[:2])


@pytest.mark.filterwarnings("error:Should have t:UserWarning")  # torchsde's, at the ends of its range
@pytest.mark.parametrize("sampler, options", BATCHED)
def test_an_image_does_not_depend_on_its_batch(gaussian, sampler, options):
    sigmas = samplers.schedule("karras", gaussian, 8)

    def draw(seeds):
        noise = samplers.noise(SHAPE, seeds)
        return samplers.sample(gaussian, noise, sigmas, sampler=sampler, seeds=seeds, **options)

    batch = draw(SEEDS)
    torch.testing.assert_close(draw(SEEDS[::-1]).flip(0), batch, rtol=1e-6, atol=1e-6)
    for i, seed in enumerate(SEEDS):
        torch.testing.assert_close(draw([seed]), batch[i : i + 1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sampler, options", STOCHASTIC)
def test_fresh_noise_comes_from_the_seeds_alone(gaussian, sampler, options):
    sigmas = samplers.schedule("karras", gaussian, 8)
    noise = samplers.noise(SHAPE, [0, 0])
    state = torch.get_rng_state()
    x = samplers.sample(gaussian, noise, sigmas, sampler=sampler, seeds=[3, 4], **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert (x[0] - x[1]).abs().mean() > 1e-2


@pytest.mark.parametrize("sampler", ["euler_ancestral", "ddpm", "dpmpp_2m_sde"])
def test_no_step_sees_the_initial_noise_again(gaussian, sampler):
    noise, sigmas = samplers.noise((1, 64, 64), [0]), torch.tensor([10.0, 5.0])
    with_fresh = samplers.sample(gaussian, noise, sigmas, sampler=sampler, seeds=[0])
    without = samplers.sample(gaussian, noise, sigmas, sampler=sampler, noise_sampler=lambda *_: 0.0)
    fresh = with_fresh - without
    correlation = torch.corrcoef(torch.stack([fresh.flatten(), noise.flatten()]))[0, 1]
    assert fresh.std() > 0.5 and correlation.abs() < 0.05


@pytest.mark.parametrize("sampler, options", STOCHASTIC)
def test_seeds_are_required_where_noise_is_added(gaussian, sampler, options):
    sigmas = samplers.schedule("karras", gaussian, 4)
    with pytest.raises(SamplerError, match=f"{sampler!r} adds noise at every step: pass seeds="):
        samplers.sample(gaussian, samplers.noise(SHAPE, SEEDS), sigmas, sampler=sampler, **options)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, "1", None, True])
def test_a_seed_that_is_none_is_named(seed):
    with pytest.raises(SamplerError, match=f"seed {seed!r} is not an integer from 0 to"):
        samplers.noise(SHAPE, [0, seed])


@pytest.mark.parametrize("seeds", [3, "12", None])
def test_seeds_that_are_no_list_are_named(seeds):
    with pytest.raises(SamplerError, match="seeds must be a list of integers"):
        samplers.noise(SHAPE, seeds)


def test_the_number_of_seeds_must_fit(gaussian):
    with pytest.raises(SamplerError, match="no seeds given"):
        samplers.noise(SHAPE, [])
    with pytest.raises(SamplerError, match="2 seeds for 3 images"):
        samplers.sample(gaussian, torch.zeros(3, *SHAPE), torch.tensor([1.0, 0.0]), seeds=[1, 2])
