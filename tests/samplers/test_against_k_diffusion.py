import warnings

import k_diffusion as K
import pytest
import torch

import samplers
from samplers import SamplerError

SHAPE = (4, 8, 8)
SEEDS = [3, 1]
SDE = ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"]
K_DIFFUSION = [name for name in samplers.SAMPLERS if name not in ("ddim", "ddpm")]


def replayed(x, seeds):
    """The noise of ancestral steps, drawn by hand."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(*_):
        return torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators])

    draw()  # the initial noise
    return draw


@pytest.mark.parametrize("start", ["unit", "sigma"])
@pytest.mark.parametrize("name", K_DIFFUSION)
def test_every_sampler_is_k_diffusion_s_own(discrete, name, start):
    seeds = SEEDS[:1] if name == "dpm_adaptive" else SEEDS
    sigmas = samplers.schedule("karras", discrete, 7)
    noise = samplers.noise(SHAPE, seeds)
    ours = samplers.sample(discrete, noise, sigmas, sampler=name, seeds=seeds, start=start)

    x = noise * (sigmas[0] if start == "sigma" else (1 + sigmas[0] ** 2).sqrt())
    function = getattr(K.sampling, f"sample_{name}")
    ends = {"sigma_min": sigmas[-2].item(), "sigma_max": sigmas[0].item()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchsde warns of k-diffusion's rounding errors
        if name == "dpm_fast":
            theirs = function(discrete, x, **ends, n=7, disable=True)
        elif name == "dpm_adaptive":
            theirs = function(discrete, x, **ends, disable=True)
        elif name in SDE:
            tree = K.sampling.BrownianTreeNoiseSampler(x, sigmas[-2], sigmas[0], seed=seeds)
            theirs = function(discrete, x, sigmas, noise_sampler=tree, disable=True)
        elif "ancestral" in name:
            theirs = function(discrete, x, sigmas, noise_sampler=replayed(x, seeds), disable=True)
        else:
            theirs = function(discrete, x, sigmas, disable=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2"])
def test_churn_is_k_diffusion_s_own_with_other_noise(discrete, name, monkeypatch):
    sigmas = samplers.schedule("karras", discrete, 7)
    noise = samplers.noise(SHAPE, SEEDS)
    ours = samplers.sample(discrete, noise, sigmas, sampler=name, seeds=SEEDS, s_churn=3.0, s_noise=1.01)

    monkeypatch.setattr(torch, "randn_like", replayed(noise, SEEDS))
    x = noise * (1 + sigmas[0] ** 2).sqrt()
    function = getattr(K.sampling, f"sample_{name}")
    theirs = function(discrete, x, sigmas, s_churn=3.0, s_noise=1.01, disable=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


FIRST_ORDER = ["euler", "euler_ancestral", "ddim"]


@pytest.mark.parametrize("name", [name for name in samplers.SAMPLERS if name != "ddpm"])
def test_without_fresh_noise_every_sampler_follows_the_exact_flow(gaussian, name):
    # The largest error of 256 values of order 1, after 60 steps.
    tolerance = 0.1 if name in FIRST_ORDER else 0.005
    sigmas = samplers.schedule("karras", gaussian, 60)
    noise = samplers.noise(SHAPE, [0])
    options = {"eta": 0.0} if "ancestral" in name or name in SDE else {}
    options |= {"rtol": 1e-4, "atol": 1e-5} if name == "dpm_adaptive" else {}
    ours = samplers.sample(gaussian, noise, sigmas, sampler=name, **options)

    end = gaussian.sigma_min if name in ("dpm_fast", "dpm_adaptive") else 0.0
    exact = gaussian.flow(noise * (1 + sigmas[0] ** 2).sqrt(), sigmas[0], end)
    assert (ours - exact).abs().max() < tolerance


@pytest.mark.parametrize("name", ["euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", *SDE, "ddpm"])
def test_with_fresh_noise_every_sampler_reaches_the_exact_distribution(gaussian, name):
    sigmas = samplers.schedule("karras", gaussian, 60 if name not in ("euler_ancestral", "ddpm") else 240)
    x = samplers.sample(gaussian, samplers.noise((1, 128, 128), [0]), sigmas, sampler=name, seeds=[0])
    assert abs(x.mean() - gaussian.mu) < 0.02  # the standard error is 0.0055
    assert abs(x.std() - gaussian.s) < 0.02


@pytest.mark.parametrize("name", [name for name in samplers.SAMPLERS if name not in ("dpm_fast", "dpm_adaptive")])
def test_one_step_is_the_denoiser_s_prediction(gaussian, name):
    noise = samplers.noise(SHAPE, SEEDS)
    ours = samplers.sample(gaussian, noise, torch.tensor([8.0, 0.0]), sampler=name, seeds=SEEDS, hook=lambda step: None)
    expected = gaussian(noise * 65**0.5, torch.full([2], 8.0))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_all_names_are_given_with_a_line_about_them():
    theirs = {name.removeprefix("sample_") for name in dir(K.sampling) if name.startswith("sample_")}
    assert set(samplers.SAMPLERS) == theirs | {"ddim", "ddpm"}
    assert all(line and "\n" not in line for line in samplers.SAMPLERS.values())


def test_dpm_adaptive_takes_one_image_at_a_time(gaussian):
    sigmas = samplers.schedule("karras", gaussian, 5)
    with pytest.raises(SamplerError, match="one image at a time, not 2"):
        samplers.sample(gaussian, samplers.noise(SHAPE, SEEDS), sigmas, sampler="dpm_adaptive")
    x = samplers.sample(
        gaussian, samplers.noise(SHAPE, [1]), sigmas, sampler="dpm_adaptive", eta=1.0, seeds=[1], order=2
    )
    assert x.isfinite().all()
