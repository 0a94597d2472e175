"""Diffusion-negative sampling where the scores are exact: data from a mixture of Gaussians.

Where a prompt makes a component likely and leaves the others possible, DNS leaves that component and stays near the
data. Where it rules the others out, u − p never vanishes at them, and DNS overshoots by about s times the distance
between components. The improper form of eq. 16 goes as far as the noise did.
"""

import k_diffusion as K
import pytest
import torch

from guidance import CFG, DNS, ImproperNegative

CENTRES = torch.tensor([[0.0, 2.0], [-1.8, -1.0], [1.8, -1.0]])
SPREAD = 0.3


def mixture(x, sigma, weights):
    """The exact denoiser E[x₀ | x] of the mixture with these weights, (B, 3) and a row for each sample."""
    variance = SPREAD**2 + sigma[:, None] ** 2
    squares = (x[:, None] - CENTRES).square().sum(-1)
    shares = (weights.log() - squares / (2 * variance)).softmax(1)
    means = CENTRES + (SPREAD**2 / variance)[..., None] * (x[:, None] - CENTRES)
    return (shares[..., None] * means).sum(1)


LIKELY, CERTAIN = [0.8, 0.1, 0.1], [1.0, 0.0, 0.0]


def samples(guidance, prompt, highest=10.0, count=400):
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(0)) * highest
    conditions = {
        "prompt": {"weights": torch.tensor([prompt]).expand(count, 3)},
        "empty": {"weights": torch.full((count, 3), 1 / 3)},
    }
    sigmas = K.sampling.get_sigmas_karras(60, 0.01, highest)
    return K.sampling.sample_euler(guidance.wrap(mixture), x, sigmas, extra_args=conditions, disable=True)


def distances(x):
    """To each component's centre, in its standard deviations."""
    return torch.cdist(x, CENTRES) / SPREAD


def test_the_denoiser_is_exact():
    """Its ε is the score of the noised density, by automatic differentiation."""
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    sigma, weights = torch.full((5,), 0.7, dtype=torch.float64), torch.tensor([[0.2, 0.5, 0.3]]).double().expand(5, 3)
    variance = SPREAD**2 + 0.7**2
    squares = (x[:, None] - CENTRES.double()).square().sum(-1)
    density = (weights.log() - squares / (2 * variance)).logsumexp(1)
    score = torch.autograd.grad(density.sum(), x)[0]
    torch.testing.assert_close((mixture(x, sigma, weights) - x) / sigma[:, None] ** 2, score)


@pytest.mark.parametrize(("prompt", "least"), [(LIKELY, 0.95), (CERTAIN, 1.0)])
def test_guidance_draws_the_component_of_the_prompt(prompt, least):
    found = distances(samples(CFG(3), prompt))
    assert (found.argmin(1) == 0).float().mean() >= least and (found.min(1).values < 5).all()


@pytest.mark.parametrize("highest", [10.0, 40.0])
def test_diffusion_negatives_leave_the_component_of_the_prompt_and_stay_near_the_data(highest):
    shares = []
    for scale in (0, 1, 3, 7.5):
        found = distances(samples(DNS(scale), LIKELY, highest))
        shares.append((found.argmin(1) == 0).float().mean().item())
        assert (found.min(1).values < 5).all()
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.25 and shares[-1] < 0.02


def test_they_overshoot_by_their_scale_where_the_prompt_rules_the_rest_out():
    far = [distances(samples(DNS(scale), CERTAIN)).min(1).values.median() for scale in (1, 3, 7.5)]
    between = (CENTRES[0] - CENTRES[1]).norm() / SPREAD
    assert all(0.8 * scale * between < x < 1.0 * scale * between for scale, x in zip((1, 3, 7.5), far, strict=True))


def test_the_improper_negative_goes_as_far_as_the_noise_did():
    near, far = (distances(samples(ImproperNegative(), LIKELY, highest)).min(1).values.median() for highest in (10, 40))
    assert near > 500 and far > 4 * near
