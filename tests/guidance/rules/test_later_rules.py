"""The rules published later: each against another implementation, or a computation by hand."""

import math

import pytest
import torch
from diffusers.guiders import FrequencyDecoupledGuidance, MagnitudeAwareGuidance, TangentialClassifierFreeGuidance

from guidance import (
    CFG,
    FDG,
    MAMBOG,
    SLD,
    TCFG,
    CFGNorm,
    EpsilonScaling,
    FeedbackGuidance,
    GuidanceError,
    Mahiro,
    TemporalScoreRescaling,
)

SHAPE = (3, 4, 16, 16)
SIGMA = torch.tensor([5.0, 2.0, 0.7]).double()


@pytest.fixture
def given():
    rng = torch.Generator().manual_seed(int(torch.randint(1 << 30, ())))
    x, u, p, n = (torch.randn(SHAPE, generator=rng, dtype=torch.float64) for _ in range(4))
    return x, {"empty": u, "prompt": u + 0.3 * p, "negative": u - 0.2 * n}


def guided(rule, given, sigma=SIGMA):
    x, answers = given
    model = rule.wrap(lambda x, sigma, d: d[: len(x)] if len(d) > len(x) else d, "sequential")
    return model(x, sigma, **{name: {"d": answer} for name, answer in answers.items()})


def noise(x, d):
    return (x - d) / SIGMA.view(-1, 1, 1, 1)


def denoised(x, noise):
    return x - SIGMA.view(-1, 1, 1, 1) * noise


def test_fdg_equals_diffusers(given):
    x, answers = given
    theirs = FrequencyDecoupledGuidance([9.0, 4.0], use_original_formulation=False)
    expected = theirs.forward(answers["prompt"], answers["empty"]).pred
    torch.testing.assert_close(guided(FDG(9, 4), given), expected, rtol=1e-5, atol=1e-5)
    theirs = FrequencyDecoupledGuidance([9.0, 4.0], parallel_weights=[0.3, 0.3])
    expected = theirs.forward(answers["prompt"], answers["empty"]).pred
    torch.testing.assert_close(guided(FDG(9, 4, 0.3), given), expected, rtol=1e-5, atol=1e-5)


def test_fdg_with_equal_scales_is_cfg_at_any_size(given):
    x, answers = given
    odd = x[..., :13, :9], {name: d[..., :13, :9] for name, d in answers.items()}
    torch.testing.assert_close(guided(FDG(7.5, 7.5), odd), guided(CFG(7.5), odd))


def test_tcfg_equals_diffusers(given):
    x, answers = given
    theirs = TangentialClassifierFreeGuidance(7.5)
    expected = denoised(x, theirs.forward(noise(x, answers["prompt"]), noise(x, answers["empty"])).pred)
    torch.testing.assert_close(guided(TCFG(7.5), given), expected, rtol=1e-3, atol=2e-3)  # theirs is in float32


def test_tcfg_by_the_singular_value_decomposition(given):
    x, answers = given
    p, u = noise(x, answers["prompt"]), noise(x, answers["empty"])
    main = torch.linalg.svd(torch.stack([p, u], 1).flatten(2), full_matrices=False).Vh[:, :1]
    kept = ((u.flatten(1)[:, None] @ main.mT) @ main).view_as(u)
    torch.testing.assert_close(guided(TCFG(7.5), given), denoised(x, kept + 7.5 * (p - kept)))


def test_tcfg_of_predictions_that_are_the_same_is_theirs(given):
    x, answers = given
    same = x, dict.fromkeys(answers, answers["prompt"])
    torch.testing.assert_close(guided(TCFG(7.5), same), answers["prompt"])


def test_mambo_g_equals_diffusers(given):
    x, answers = given
    velocity = {name: noise(x, d) - d for name, d in answers.items()}
    flat = {name: v.flatten(2) for name, v in velocity.items()}  # the norm of a picture's four dimensions fails there
    theirs = MagnitudeAwareGuidance(9.0).forward(flat["prompt"], flat["empty"]).pred.view_as(x)
    level = SIGMA.view(-1, 1, 1, 1)
    torch.testing.assert_close(guided(MAMBOG(9), given), (x - level * theirs) / (1 + level))
    assert MAMBOG(1).wrap(lambda x, sigma: x).guidance.names == ("empty", "prompt")
    torch.testing.assert_close(guided(MAMBOG(1), given), answers["prompt"])


def test_cfg_norm_by_hand(given):
    x, answers = given
    g, p = guided(CFG(7.5), given), answers["prompt"]
    factor = (p.norm(dim=1) / g.norm(dim=1)).clamp(max=1)[:, None]
    torch.testing.assert_close(guided(CFGNorm(CFG(7.5), 0.9), given), 0.9 * factor * g)


def test_mahiro_by_hand_sample_by_sample(given):
    x, answers = given
    s, found = 6.0, guided(Mahiro(6), given)
    for i in range(len(x)):
        u, p = answers["empty"][i], answers["prompt"][i]
        g, leap = u + s * (p - u), s * p
        a, b = ((t.abs().sqrt() * t.sign()).flatten(1) for t in (s * u, (leap + g) / 2))
        c = 2 * (((a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0))).mean() + 1)
        torch.testing.assert_close(found[i], (c * g + (4 - c) * leap) / 4)


def test_epsilon_scaling_by_hand(given):
    x, answers = given
    expected = denoised(x, noise(x, guided(CFG(3), given)) / 1.01)
    torch.testing.assert_close(guided(EpsilonScaling(CFG(3), 1.01), given), expected)


def test_temporal_score_rescaling_is_exact_for_gaussian_data():
    k, deviation, x = 2.5, 0.6, torch.randn(SHAPE, dtype=torch.float64)
    level = SIGMA.view(-1, 1, 1, 1)

    def exact(variance):
        return variance / (variance + level**2) * x

    model = TemporalScoreRescaling(CFG(1), k, deviation).wrap(lambda x, sigma: exact(deviation**2))
    torch.testing.assert_close(model(x, SIGMA, prompt={}, empty={}), exact(deviation**2 / k))


LEVELS = (8.0, 3.0, 1.0, 0.2)


def walk(rule, answers, states):
    model = rule.wrap(lambda x, sigma, d: d, "sequential")
    found = []
    for level, x in zip(LEVELS, states, strict=True):
        conditions = {name: {"d": d + 0.1 * x} for name, d in answers.items()}
        found.append(model(x, torch.full([len(x)], level, dtype=x.dtype), **conditions))
    return found


@pytest.mark.parametrize("below", [None, 3.5])
def test_sld_is_the_recursion_by_hand(given, below):
    x, answers = given
    states = [torch.randn(SHAPE, dtype=torch.float64) for _ in LEVELS]
    momentum = torch.zeros(SHAPE, dtype=torch.float64)
    for level, y, found in zip(LEVELS, states, walk(SLD(7.5, safety=5, below=below), answers, states), strict=True):
        u, p, n = ((y - (answers[name] + 0.1 * y)) / level for name in ("empty", "prompt", "negative"))
        mask = torch.where(p - n >= 0.01, 0.0, (5 * (p - n).abs()).clamp(max=1))
        gamma = mask * (n - u) + 0.3 * momentum
        momentum = 0.4 * momentum + 0.6 * gamma
        used = gamma if below is None or level <= below else torch.zeros_like(gamma)
        torch.testing.assert_close(found, y - level * (u + 7.5 * (p - u - used)))


def test_feedback_guidance_is_the_recursion_by_hand(given):
    x, answers = given
    pi, tau, delta, most = 0.95, 0.01, 0.05, 12.0
    states = [torch.randn(SHAPE, dtype=torch.float64) * level for level in LEVELS]
    rule = FeedbackGuidance(pi, tau, delta, most)
    posterior, before = torch.zeros(len(x), dtype=torch.float64), None
    scales = []
    for level, y, found in zip(LEVELS, states, walk(rule, answers, states), strict=True):
        u, p = answers["empty"] + 0.1 * y, answers["prompt"] + 0.1 * y
        if before:
            higher, z, u_before, p_before = before
            share = (level / higher) ** 2
            far = [(y - share * z - (1 - share) * d).square().sum((1, 2, 3)) for d in (p_before, u_before)]
            posterior = posterior - tau * (far[0] - far[1]) / (2 * level**2 * (1 - share)) + delta
            posterior = posterior.clamp(math.log((1 - pi) * most / (most - 1)), 3)
        before = level, y, u, p
        scale = posterior.exp() / (posterior.exp() - (1 - pi))
        scales.append(scale)
        torch.testing.assert_close(found, u + scale.view(-1, 1, 1, 1) * (p - u))
    assert torch.stack(scales).std(0).min() > 1e-3  # it moved


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: FeedbackGuidance(pi=1.0), "pi of FeedbackGuidance is between 0 and 1, not 1.0"),
        (lambda: FeedbackGuidance(most=1), "the largest scale of FeedbackGuidance is above 1, not 1"),
        (lambda: TemporalScoreRescaling(CFG(3), 0), "k of TemporalScoreRescaling is above 0, not 0"),
        (lambda: SLD(7.5, safety=lambda sigma: sigma), "safety of SLD is one number"),
    ],
)
def test_what_cannot_be_used_is_named(make, told):
    with pytest.raises(GuidanceError, match=told):
        make()
