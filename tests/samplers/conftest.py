import pytest
import torch
from k_diffusion.external import DiscreteEpsDDPMDenoiser


class Gaussian:
    """The exact denoiser of data N(mu, s^2), element by element, and the exact flow of its samples."""

    sigma_min, sigma_max = 0.03, 14.6
    mu, s = 0.4, 0.7

    def __call__(self, x, sigma):
        sigma = sigma.view(-1, *[1] * (x.ndim - 1))
        return (self.s**2 * x + sigma**2 * self.mu) / (self.s**2 + sigma**2)

    def flow(self, x, sigma, sigma_next=0.0):
        ratio = (self.s**2 + sigma_next**2) / (self.s**2 + sigma**2)
        return self.mu + (x - self.mu) * ratio**0.5


@pytest.fixture
def gaussian():
    return Gaussian()


@pytest.fixture(scope="session")
def alphas_cumprod():
    """Stable Diffusion's."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    return torch.cumprod(1 - betas, dim=0)


@pytest.fixture(scope="session")
def discrete(alphas_cumprod):
    """A discrete denoiser whose epsilon is a mild function of x and t."""
    return DiscreteEpsDDPMDenoiser(
        lambda x, t: torch.tanh(x * (1 + t.view(-1, 1, 1, 1) / 1000)), alphas_cumprod, quantize=False
    )
