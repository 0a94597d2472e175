r"""Each rule against its equation, written out for one sample in float64, and against diffusers' guiders."""

import math

import pytest
import torch

from guidance import (
    ANSWER,
    APG,
    CFG,
    DNS,
    Autoguidance,
    CFGZeroStar,
    Composable,
    ContrastiveCFG,
    CosineScale,
    DualCFG,
    DynamicNegative,
    DynamicThreshold,
    GuidanceError,
    ImproperNegative,
    Interval,
    LinearScale,
    Models,
    NegPrompt,
    PerpNeg,
    Rescale,
    StepScale,
    bounds,
    parse,
    prediction,
)

p, n, u = prediction("prompt"), prediction("negative"), prediction("empty")
NAMES = ("prompt", "negative", "empty", "middle", "weak", "cat")
LEVELS = (4.0, 1.5, 1.5, 0.4)  # the second and third as Heun's sampler has them


def denoiser(x, sigma, cond):
    return cond + 0.3 * torch.sin(x + cond.roll(1, 1)) / (1 + sigma.view(-1, *[1] * (x.ndim - 1)))


def setting(batch=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    xs = [torch.randn(batch, 3, 2, 2, generator=g) * (1 + level) for level in LEVELS]
    return xs, {name: {"cond": torch.randn(batch, 3, 2, 2, generator=g)} for name in NAMES}


def needed(guidance, conditions):
    return {name: conditions[name] for name in guidance.names}


def trajectory(guidance, xs, conditions, model=denoiser):
    guided, given = guidance.wrap(model), needed(guidance, conditions)
    return [guided(x, x.new_full((len(x),), level), **given) for x, level in zip(xs, LEVELS, strict=True)]


class One:
    r"""One sample at one noise level: predictions and other spaces, as vectors in float64."""

    def __init__(self, x, sigma, conditions):
        self.x, self.sigma, self.conditions = x.double().flatten(), sigma, conditions
        self.shape = x.shape

    def __call__(self, name, x=None, sigma=None):
        x = (self.x if x is None else x).view(1, *self.shape)
        level = torch.tensor([sigma or self.sigma], dtype=torch.float64)
        return denoiser(x, level, self.conditions[name][None].double()).flatten()

    def eps(self, name):
        return (self.x - self(name)) / self.sigma

    def from_eps(self, eps):
        return self.x - self.sigma * eps


def transcribed(reference, xs, conditions):
    r"""What `reference` gives for each sample by itself, with what it keeps between noise levels."""
    rows = []
    for i in range(len(xs[0])):
        mine, kept = {name: c["cond"][i] for name, c in conditions.items()}, {}
        rows.append([reference(One(x[i], s, mine), kept).view(x[i].shape) for x, s in zip(xs, LEVELS, strict=True)])
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def perpneg(s, w):
    def reference(one, kept):
        a, b = one("prompt") - one("empty"), one("negative") - one("empty")
        return one("empty") + s * (a - w * (b - (a @ b) / (a @ a) * a))

    return reference


def perpneg_in_noise(s, w):
    def reference(one, kept):
        a, b = one.eps("prompt") - one.eps("empty"), one.eps("negative") - one.eps("empty")
        return one.from_eps(one.eps("empty") + s * (a - w * (b - (a @ b) / a.norm() ** 2 * a)))

    return reference


def apg(s, eta, r=None, beta=0.0):
    def reference(one, kept):
        change = one("prompt") - one("empty")
        if kept.get("level") != one.sigma:
            kept["before"], kept["level"] = kept.get("now", 0), one.sigma
        change = change + beta * kept["before"]
        kept["now"] = change
        if r is not None:
            change = change * min(1, r / change.norm().item())
        unit = one("prompt") / one("prompt").norm()
        parallel = (change @ unit) * unit
        return one("prompt") + (s - 1) * (change - parallel + eta * parallel)

    return reference


def cfgzero(s, zero):
    def reference(one, kept):
        # On the straight path of flow matching, x_t = (1 - t) x_0 + t ε and v = ε - x_0.
        t = one.sigma / (1 + one.sigma)
        v_p, v_u = (one.eps(name) - one(name) for name in ("prompt", "empty"))
        alpha = (v_p @ v_u) / (v_u @ v_u)
        v = torch.zeros_like(v_p) if one.sigma >= zero else alpha * v_u + s * (v_p - alpha * v_u)
        return one.x * (1 - t) - t * v

    return reference


def dynamic(s, strength, prior, tau, most):
    def reference(one, kept):
        if not kept:
            kept.update(level=math.inf, before=None, now=None, posterior=prior)
        if one.sigma < kept["level"]:
            kept.update(level=one.sigma, before=kept["now"], last=kept["posterior"])
        posterior = kept["last"]
        if kept["before"] is not None:
            old = kept["before"]
            # DDPM's step in the variance-preserving scale, from its own formulas.
            bar, bar_old = 1 / (1 + one.sigma**2), 1 / (1 + old.sigma**2)
            alpha = bar_old / bar
            variance = (1 - bar) / (1 - bar_old) * (1 - alpha)
            y, x = old.x * bar_old**0.5, one.x * bar**0.5
            mu = {
                name: (y - (1 - alpha) / (1 - bar_old) ** 0.5 * old.eps(name)) / alpha**0.5
                for name in ("negative", "empty")
            }
            evidence = (x - mu["negative"]).square().sum() - (x - mu["empty"]).square().sum()
            posterior = posterior * math.exp(-tau * evidence / (2 * variance))
            posterior = min(max(posterior, 1e-6), most)
        kept.update(now=one, posterior=posterior)
        odds = posterior / (1 - posterior)
        guided = one("empty") + s * (one("prompt") - one("empty"))
        return guided - strength * odds * (one("negative") - one("empty"))

    return reference


def contrastive(s, w, tau):
    def reference(one, kept):
        a, b = one.eps("prompt") - one.eps("empty"), one.eps("negative") - one.eps("empty")
        positive = 2 / (1 + math.exp(-tau * (a @ a)))
        negative = 2 * math.exp(-tau * (b @ b)) / (1 + math.exp(-tau * (b @ b)))
        return one.from_eps(one.eps("empty") + s * positive * a - w * negative * b)

    return reference


def improper(norm):
    def reference(one, kept):
        eps = one.eps("prompt")
        return one.from_eps(-(norm or eps.norm()) * eps / eps.norm())

    return reference


def answer(s, steps, w, above, rho):
    def reference(one, kept):
        reference, plain = one.eps("empty"), one.eps("empty")
        if one.sigma >= above:
            y, level = one.x, one.sigma
            for _ in range(steps):
                d = one("empty", y, level) + w * (one("empty", y, level) - one("prompt", y, level))
                eps = (y - d) / level
                y, level = y + (rho * level - level) * eps, rho * level
            reference = (one.x - d) / one.sigma
            reference = (reference - reference.mean()) / reference.std() * plain.std() + plain.mean()
        return one.from_eps(reference + s * (one.eps("prompt") - reference))

    return reference


def cfg(s):
    return lambda one, kept: one("empty") + s * (one("prompt") - one("empty"))


def rescale(inner, phi):
    def reference(one, kept):
        g = (one.x - inner(one, kept)) / one.sigma
        scaled = g * one.eps("prompt").std() / g.std()
        return one.from_eps(phi * scaled + (1 - phi) * g)

    return reference


def rescale_v(inner, phi):
    r"""In v = α ε − σ x₀ of the variance-preserving z = α x₀ + σ ε."""

    def reference(one, kept):
        alpha, sigma = 1 / (1 + one.sigma**2) ** 0.5, one.sigma / (1 + one.sigma**2) ** 0.5
        d = inner(one, kept)
        v = alpha * (one.x - d) / one.sigma - sigma * d
        v_p = alpha * one.eps("prompt") - sigma * one("prompt")
        v = phi * v * v_p.std() / v.std() + (1 - phi) * v
        return alpha * (alpha * one.x) - sigma * v

    return reference


def threshold(inner, quantile, r):
    def reference(one, kept):
        g = inner(one, kept)
        t = max(r, torch.quantile(g.abs(), quantile).item())
        return g.clamp(-t, t) / t * r

    return reference


def interval(inner, low, high):
    return lambda one, kept: inner(one, kept) if low < one.sigma <= high else one("prompt")


def schedule(first, last, shape):
    r"""Classifier-free guidance with a scale that changes with the noise level."""
    return lambda one, kept: cfg(first + (last - first) * shape(one.sigma))(one, kept)


def fraction(sigma):
    return min(1, max(0, (math.log(3) - math.log(sigma)) / (math.log(3) - math.log(0.5))))


RULES = [
    (Composable(cat=7.5, prompt=3, weak=-2), lambda one, kept: one("empty") + 7.5 * (one("cat") - one("empty"))
     + 3 * (one("prompt") - one("empty")) - 2 * (one("weak") - one("empty"))),
    # Weights that sum to zero are divided by nothing.
    (Composable(cat=2, weak=-2), lambda one, kept: one("empty") + 2 * (one("cat") - one("weak"))),
    (DualCFG(5, 2), lambda one, kept: one("empty") + 2 * (one("middle") - one("empty"))
     + 5 * (one("prompt") - one("middle"))),
    (Autoguidance(2.5), lambda one, kept: one("weak") + 2.5 * (one("prompt") - one("weak"))),
    (PerpNeg(7.5), perpneg(7.5, 1)),
    (PerpNeg(7.5, 0.6), perpneg_in_noise(7.5, 0.6)),
    (APG(7.5), apg(7.5, 0)),
    (APG(7.5, eta=0.4, threshold=2.5), apg(7.5, 0.4, 2.5)),
    (APG(5, eta=0.4, threshold=2.5, momentum=-0.5), apg(5, 0.4, 2.5, -0.5)),
    (APG(7.5, eta=1), cfg(7.5)),
    (CFGZeroStar(4), cfgzero(4, math.inf)),
    (CFGZeroStar(4, zero=1.5), cfgzero(4, 1.5)),
    (DynamicNegative(0, strength=2, prior=0.2, temperature=0.05), dynamic(0, 2, 0.2, 0.05, 0.99)),
    (DynamicNegative(3, prior=0.3, temperature=0.02, most=0.5), dynamic(3, 1, 0.3, 0.02, 0.5)),
    (ContrastiveCFG(3), contrastive(3, 3, 0.2)),
    (ContrastiveCFG(3, strength=1, temperature=0.02), contrastive(3, 1, 0.02)),
    (ContrastiveCFG(0, strength=1), contrastive(0, 1, 0.2)),
    (ImproperNegative(), improper(None)),
    (ImproperNegative(norm=3), improper(3)),
    (ANSWER(7.5), answer(7.5, 1, 7.5, 0, 0.8)),
    (ANSWER(3, steps=4, strength=1.5, above=1, ratio=0.7), answer(3, 4, 1.5, 1, 0.7)),
    (Rescale(CFG(7.5), 0.7), rescale(cfg(7.5), 0.7)),
    (Rescale("CFG(7.5)", 0.7, space="v"), rescale_v(cfg(7.5), 0.7)),
    (DynamicThreshold(CFG(7.5), 0.9), threshold(cfg(7.5), 0.9, 1)),
    (DynamicThreshold(CFG(7.5), 0.6, range=4), threshold(cfg(7.5), 0.6, 4)),
    (Interval(CFG(7.5), 0.5, 2), interval(cfg(7.5), 0.5, 2)),
    (Interval(CFG(7.5), 1.5, 4), interval(cfg(7.5), 1.5, 4)),  # the lower bound is outside, the upper one inside
    (Rescale(Interval(PerpNeg(7.5), 0.5, 2), 0.7), rescale(interval(perpneg(7.5, 1), 0.5, 2), 0.7)),
    (Interval(Rescale(PerpNeg(7.5), 0.7), 0.5, 2), interval(rescale(perpneg(7.5, 1), 0.7), 0.5, 2)),
    (APG(3) + 2 * (p - n), lambda one, kept: apg(3, 0)(one, kept) + 2 * (one("prompt") - one("negative"))),
    (CFG(LinearScale(7.5, 1, 3, 0.5)), schedule(7.5, 1, fraction)),
    (CFG(CosineScale(7.5, 1, 3, 0.5)), schedule(7.5, 1, lambda s: (1 - math.cos(math.pi * fraction(s))) / 2)),
    (CFG(StepScale(0, 7.5, 1.5)), schedule(0, 7.5, lambda s: s <= 1.5)),
]  # fmt: skip


@pytest.mark.parametrize(("guidance", "reference"), RULES, ids=lambda v: str(v) if hasattr(v, "names") else "")
def test_equals_its_equation(guidance, reference):
    for seed in range(2):
        xs, conditions = setting(seed=seed)
        for mine, expected in zip(
            trajectory(guidance, xs, conditions), transcribed(reference, xs, conditions), strict=True
        ):
            scale = expected.abs().amax().item()
            torch.testing.assert_close(mine.double(), expected, atol=1e-5 * scale, rtol=1e-5)


@pytest.mark.parametrize("guidance", [guidance for guidance, _ in RULES], ids=str)
def test_samples_never_influence_each_other(guidance):
    xs, conditions = setting(4, seed=5)
    together = trajectory(guidance, xs, conditions)
    for i in range(4):
        mine = {name: {"cond": c["cond"][i : i + 1]} for name, c in conditions.items()}
        alone = trajectory(guidance, [x[i : i + 1] for x in xs], mine)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i : i + 1], b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("guidance", [guidance for guidance, _ in RULES], ids=str)
def test_noise_levels_may_differ_within_a_batch(guidance):
    xs, conditions = setting(seed=6)
    sigma = torch.tensor([0.4, 1.5, 4.0])
    together = guidance.wrap(denoiser)(xs[0], sigma, **needed(guidance, conditions))
    for i in range(3):
        mine = {name: {"cond": conditions[name]["cond"][i : i + 1]} for name in guidance.names}
        alone = guidance.wrap(denoiser)(xs[0][i : i + 1], sigma[i : i + 1], **mine)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [APG, CFGZeroStar, PerpNeg, ContrastiveCFG, ANSWER, DynamicNegative])
def test_scales_per_sample(make):
    xs, conditions = setting()
    scales = torch.tensor([1.0, 7.5, 3.0])
    together = trajectory(make(scales), xs, conditions)
    for i, s in enumerate(scales.tolist()):
        for a, b in zip(together, trajectory(make(s), xs, conditions), strict=True):
            torch.testing.assert_close(a[i], b[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("guidance", [APG(5, momentum=-0.5), DynamicNegative(3, prior=0.3, temperature=0.02)], ids=str)
def test_what_is_kept_of_a_run_is_not_kept_of_the_next(guidance):
    xs, conditions = setting()
    conditions = needed(guidance, conditions)
    model = guidance.wrap(denoiser)
    levels = [x.new_full((3,), level) for x, level in zip(xs, LEVELS, strict=True)]
    first = [model(x, sigma, **conditions) for x, sigma in zip(xs, levels, strict=True)]
    again = [model(x, sigma, **conditions) for x, sigma in zip(xs, levels, strict=True)]
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    # A run that was stopped, and one that starts lower: what a fresh process gives, and not what the first run had.
    fresh = guidance.wrap(denoiser)(xs[-1], levels[-1], **conditions)
    model(xs[0], levels[0], **conditions)
    model.begin()
    assert torch.equal(model(xs[-1], levels[-1], **conditions), fresh) and model.evaluations > len(conditions)
    assert (fresh - first[-1]).abs().max() > 1e-3
    model.reset()
    assert torch.equal(model(xs[-1], levels[-1], **conditions), fresh) and model.evaluations == len(conditions)
    one = {name: {"cond": c["cond"][:1]} for name, c in conditions.items()}
    torch.testing.assert_close(model(xs[-1][:1], levels[-1][:1], **one), fresh[:1])  # another batch, another run


def test_against_diffusers():
    guiders = pytest.importorskip("diffusers.guiders")
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer
    from diffusers.guiders.guider_utils import rescale_noise_cfg

    xs, conditions = setting()
    for x, level in zip(xs, LEVELS, strict=True):
        sigma = torch.full((3,), level)
        found = {name: denoiser(x, sigma, **c) for name, c in conditions.items()}
        d_p, d_u = found["prompt"], found["empty"]
        eps_p, eps_u = (x - d_p) / level, (x - d_u) / level

        def same(guidance, denoised, x=x, sigma=sigma):
            mine = guidance.wrap(denoiser)(x, sigma, **needed(guidance, conditions))
            torch.testing.assert_close(mine, denoised, atol=1e-5 * denoised.abs().amax().item(), rtol=1e-5)

        theirs = guiders.ClassifierFreeGuidance(guidance_scale=7.5, guidance_rescale=0.7).forward(eps_p, eps_u).pred
        same(Rescale(CFG(7.5), 0.7), x - level * theirs)
        same(Rescale(DNS(2), 1), x - level * rescale_noise_cfg(3 * eps_u - 2 * eps_p, eps_p, 1.0))

        v_p, v_u = eps_p - d_p, eps_u - d_u
        theirs = guiders.ClassifierFreeZeroStarGuidance(guidance_scale=4.0, zero_init_steps=0)
        theirs.set_state(3, 10, torch.tensor(0))
        same(CFGZeroStar(4), (x - level * theirs.forward(v_p, v_u).pred) / (1 + level))

        options = {"eta": 0.4, "adaptive_projected_guidance_rescale": 2.5}
        theirs = guiders.AdaptiveProjectedGuidance(guidance_scale=6.5, use_original_formulation=True, **options)
        same(APG(7.5, eta=0.4, threshold=2.5), theirs.forward(d_p, d_u).pred)
        # Their default starts from D_u, which is another rule unless eta is 1.
        shifted = guiders.AdaptiveProjectedGuidance(guidance_scale=7.5, **options).forward(d_p, d_u).pred
        assert not torch.allclose(shifted, theirs.forward(d_p, d_u).pred, rtol=1e-2)

    theirs.momentum_buffer = MomentumBuffer(-0.5)
    model = APG(7.5, eta=0.4, threshold=2.5, momentum=-0.5).wrap(denoiser)
    conditions = {name: conditions[name] for name in ("prompt", "empty")}
    for x, level in ((xs[0], 4.0), (xs[1], 1.5), (xs[3], 0.4)):  # their buffer would count Heun's second call
        sigma = torch.full((3,), level)
        expected = theirs.forward(*(denoiser(x, sigma, **conditions[name]) for name in ("prompt", "empty"))).pred
        torch.testing.assert_close(model(x, sigma, **conditions), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0.2, 0.8), (0, 0.25), (0.34, 0.5), (0.95, 1)])
def test_fractions_of_the_steps_are_those_of_diffusers(start, stop):
    guiders = pytest.importorskip("diffusers.guiders")
    sigmas = [10.0 * 0.8**i for i in range(20)] + [0.0]
    theirs = guiders.ClassifierFreeGuidance(guidance_scale=7.5, start=start, stop=stop)
    low, high = bounds(sigmas, start, stop)
    guidance, late = Interval(CFG(7.5), low, high), CFG(StepScale(1, 7.5, high or 100))
    for step, sigma in enumerate(sigmas[:-1]):
        theirs.set_state(step, 20, torch.tensor(0))
        assert guidance.cost([sigma]) == theirs.num_conditions
        assert late.cost([sigma]) == (2 if step >= int(start * 20) else 1)
    assert parse(str(guidance)) == guidance
    with pytest.raises(GuidanceError, match="from 0.5 to 0.51 of 20 steps there is none"):
        bounds(sigmas, 0.5, 0.51)


def test_predictions_that_are_the_same_divide_by_nothing():
    xs, conditions = setting()
    same = dict.fromkeys(NAMES, conditions["prompt"])
    plain = trajectory(p, xs, same)
    for guidance in (PerpNeg(7.5), APG(7.5, threshold=1), CFGZeroStar(4), ContrastiveCFG(3), DynamicNegative(3)):
        for a, b in zip(trajectory(guidance, xs, same), plain, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    zeros = {name: {"cond": torch.zeros(2, 3)} for name in NAMES}
    x, sigma = torch.ones(2, 3), torch.ones(2)
    for guidance in (APG(7.5), Rescale(CFG(7.5)), ANSWER(3), CFGZeroStar(4), ImproperNegative(norm=1)):
        for constant in (lambda x, s, cond: cond, lambda x, s, cond: x + cond, lambda x, s, cond: x / 2 + cond):
            assert guidance.wrap(constant)(x, sigma, **needed(guidance, zeros)).isfinite().all()


def test_a_weaker_model_is_a_condition():
    xs, conditions = setting()

    def weak(x, sigma, cond):
        return denoiser(x, sigma, cond) * 0.5

    models = Models(denoiser, small=weak)
    conditions = {"prompt": conditions["prompt"], "weak": conditions["prompt"] | {"model": "small"}}
    sigma = torch.full((3,), 1.5)
    guided = Autoguidance(2).wrap(models)
    d = denoiser(xs[0], sigma, **conditions["prompt"])
    torch.testing.assert_close(guided(xs[0], sigma, **conditions), 1.5 * d)
    assert guided.forwards == guided.evaluations == 2
    conditions["weak"]["model"] = "large"
    with pytest.raises(GuidanceError, match="no model 'large': there are small"):
        guided(xs[0], sigma, **conditions)
    assert Models(torch.nn.Linear(2, 2), other=torch.nn.Linear(3, 3)).in_features == 2
    assert len(list(Models(torch.nn.Linear(2, 2), other=torch.nn.Linear(3, 3)).parameters())) == 4


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda: Rescale(CFG(2), space="x"), "space of Rescale is one of epsilon, v, flow, not 'x'"),
        (lambda: Rescale(7.5), r"Rescale wraps a guidance, as in Rescale\(CFG\(7.5\), ...\), not 7.5"),
        (lambda: Interval(p - n, 1, 2), "Interval wraps a guidance"),
        (lambda: DynamicThreshold(None), "DynamicThreshold wraps a guidance"),
        (lambda: Interval(CFG(2), 5, 1), "from 5 to 1 is empty"),
        (lambda: Interval(CFG(2), -1), "low of Interval is one number of 0 or more"),
        (lambda: Interval(CFG(2), torch.ones(2)), "low of Interval is one number"),
        (lambda: DynamicThreshold(CFG(2), 1.5), "from 0 to 1, not 1.5"),
        (lambda: DynamicThreshold(CFG(2), range=0), "above 0"),
        (lambda: Rescale(CFG(torch.ones(2)), torch.ones(3)), "for batches of 2 and 3"),
        (lambda: CFG(torch.ones(2)) + torch.ones(3) * (p - n), "for batches of 2 and 3"),
        (lambda: APG(3) + CFG(2), "a direction can"),
        (lambda: APG(3) - p, "a direction can"),
        (lambda: CFG(3) - APG(2), "cannot be subtracted"),
        (lambda: 2 * APG(3), "cannot be scaled"),
        (lambda: -APG(3), "cannot be scaled"),
        (lambda: (p - n) - APG(3), "write it first"),
        (lambda: 1 - APG(3), "cannot be subtracted from 1"),
        (lambda: (p - n) * APG(3), "cannot be multiplied"),
        (lambda: APG("much"), "a scale is"),
        (lambda: APG(3, threshold=-1), "norm above 0"),
        (lambda: APG(3, momentum=torch.ones(2)), "momentum of APG is one number"),
        (lambda: CFGZeroStar(3, zero=0), "noise level above 0"),
        (lambda: DynamicNegative(3, prior=1), "a probability"),
        (lambda: ContrastiveCFG(3, temperature=-1), "of 0 or more"),
        (lambda: ANSWER(3, steps=0), "of 1 or more"),
        (lambda: ANSWER(3, steps=1.5), "whole number"),
        (lambda: ANSWER(3, ratio=1), "between 0 and 1"),
        (lambda: Composable(), "a weight for each condition"),
        (lambda: LinearScale(1, 2, 1, 3), "falls from high to low"),
        (lambda: StepScale(1, 2, 0), "a noise level above 0"),
        (lambda: StepScale(abs, 2, 1), "first of StepScale is one number"),
        (lambda: APG(3).rename(cat="dog"), "no 'cat' to rename in APG"),
        (lambda: parse("2 APG(3)"), "no weighted sum"),
        (lambda: parse("APG(3) - APG(2)"), "no weighted sum"),
        (lambda: parse("APG(3) + p - n"), "only a difference can be added to APG.3, momentum=0., in brackets"),
        (lambda: parse("Rescale(p - n)"), "sum to 0"),
        (lambda: parse("Added(APG(3), p - n)"), "'Added' is unknown"),
        (lambda: NegPrompt(3, strength=parse("APG(2)")), "a scale is"),
    ],
)
def test_what_cannot_be_combined_says_why_when_it_is_built(wrong, why):
    with pytest.raises(GuidanceError, match=why) as caught:
        wrong()
    assert "\n" not in str(caught.value)
