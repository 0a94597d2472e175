r"""Guided sampling with k-diffusion: against closed forms, and with denoisers that are not ours."""

import k_diffusion as K
import pytest
import torch
from torch import nn

from guidance import CFG, DNS, NegPrompt, prediction

p, n, u = prediction("prompt"), prediction("negative"), prediction("empty")
STRATEGIES = [CFG(7.5), DNS(2), NegPrompt(3), NegPrompt(3, evaluations=2), NegPrompt(7.5, strength=0.5)]
STD = 0.7


def gaussian(x, sigma, mean):
    r"""The exact denoiser of data N(mean, STD² I)."""
    sigma = sigma[:, None]
    return (STD**2 * x + sigma**2 * mean) / (STD**2 + sigma**2)


def setting(guidance):
    g = torch.Generator().manual_seed(3)
    x = 20 * torch.randn(4, 5, generator=g, dtype=torch.float64)
    means = {c: torch.randn(4, 5, generator=g, dtype=torch.float64) for c in ("prompt", "negative", "empty")}
    # With equal variances, the guided score is that of one Gaussian around the weighted mean.
    mean = sum(float(w) * means[name] for name, w in guidance.formula.weights.items())
    return x, {name: {"mean": value} for name, value in means.items()}, mean


@pytest.mark.parametrize("guidance", STRATEGIES, ids=repr)
@pytest.mark.parametrize("execution", ["batched", "sequential", 3])
def test_euler_equals_the_closed_form_of_each_step(guidance, execution):
    x, conditions, mean = setting(guidance)
    sigmas = K.sampling.get_sigmas_karras(20, 0.05, 20.0).double()
    model = guidance.wrap(gaussian, execution)
    found = K.sampling.sample_euler(model, x, sigmas, extra_args=conditions, disable=True)
    # D - x = σ² (mean - x) / (STD² + σ²), so each Euler step shrinks x - mean by a known factor.
    a, b = sigmas[:-1], sigmas[1:]
    factor = (1 + (b - a) * a / (STD**2 + a**2)).prod()
    torch.testing.assert_close(found, mean + (x - mean) * factor, atol=1e-9, rtol=1e-9)
    assert model.evaluations == guidance.cost(sigmas) == guidance.cost(sigmas, **conditions)


@pytest.mark.parametrize("guidance", STRATEGIES[:3], ids=repr)
def test_heun_reaches_the_probability_flow(guidance):
    x, conditions, mean = setting(guidance)
    sigmas = K.sampling.get_sigmas_karras(200, 0.01, 20.0).double()
    model = guidance.wrap(gaussian)
    found = K.sampling.sample_heun(model, x, sigmas, extra_args=conditions, disable=True)
    exact = mean + (x - mean) * STD / (STD**2 + sigmas[0] ** 2) ** 0.5
    torch.testing.assert_close(found, exact, atol=1e-3, rtol=1e-3)


class Net(nn.Module):
    r"""A small network with the signature of a U-Net; `cond` has one vector per sample."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4 + 3 + 1, 4)

    def forward(self, x, t, cond):
        inside = torch.cat([x.flatten(1), cond, t[:, None].float() / 1000], 1)
        return self.layer(inside).tanh().view_as(x)


class CompVis(nn.Module):
    r"""A stand-in for a Stable Diffusion model of the CompVis code."""

    def __init__(self, alphas_cumprod):
        super().__init__()
        self.net = Net()
        self.register_buffer("alphas_cumprod", alphas_cumprod)

    def apply_model(self, x, t, cond):
        return self.net(x, t, cond)


def foreign():
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    return [
        K.layers.Denoiser(Net(), sigma_data=0.5),
        K.external.DiscreteEpsDDPMDenoiser(Net(), alphas, quantize=False),
        K.external.CompVisDenoiser(CompVis(alphas)),
        K.external.VDenoiser(Net()),
    ]


@pytest.mark.parametrize("denoiser", foreign(), ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("sampler", ["sample_euler", "sample_heun", "sample_dpmpp_2m"])
def test_denoisers_of_k_diffusion(denoiser, sampler):
    g = torch.Generator().manual_seed(5)
    extra = {c: {"cond": torch.randn(2, 3, generator=g)} for c in ("prompt", "negative", "empty")}
    x = torch.randn(2, 4, 1, 1, generator=g) * 10
    guided = NegPrompt(4, strength=1).wrap(denoiser)
    by_denoiser = hasattr(denoiser, "get_sigmas")
    sigmas = guided.get_sigmas(6) if by_denoiser else K.sampling.get_sigmas_karras(6, 0.1, 10)

    def by_hand(x, sigma, prompt, negative, empty):
        p, n, u = (denoiser(x, sigma, **c) for c in (prompt, negative, empty))
        return u + 4 * (p - u) - (n - u)

    run = getattr(K.sampling, sampler)
    with torch.no_grad():
        found = run(guided, x, sigmas, extra_args=extra, disable=True)
        expected = run(by_hand, x, sigmas, extra_args=extra, disable=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert guided.forwards * 3 == guided.evaluations
