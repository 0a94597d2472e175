import math

import pytest
import torch

import samplers
from samplers import SamplerError

SHAPE, SEEDS = (2, 4, 4), [0, 1]
ON_SCHEDULE = [name for name in samplers.SAMPLERS if name not in ("dpm_fast", "dpm_adaptive")]
OWN_STEPS = ["dpm_fast", "dpm_adaptive"]


class Recorder:
    """A denoiser that writes down where it is evaluated."""

    def __init__(self, inner_model):
        self.inner_model, self.sigmas = inner_model, []

    def __call__(self, x, sigma, **extra_args):
        self.sigmas.append(sigma[0].item())
        return self.inner_model(x, sigma, **extra_args)


@pytest.fixture
def sigmas(gaussian):
    return samplers.schedule("karras", gaussian, 6)


@pytest.fixture
def noise():
    return samplers.noise(SHAPE, SEEDS)


@pytest.mark.parametrize("sampler", ON_SCHEDULE)
def test_the_plan_of_evaluations_is_what_happens(gaussian, noise, sigmas, sampler):
    model = Recorder(gaussian)
    options = {"s_churn": 2.0} if sampler in ("euler", "heun", "dpm_2") else {}
    samplers.sample(model, noise, sigmas, sampler=sampler, seeds=SEEDS, **options)
    plan = samplers.calls(sampler, sigmas, **options)
    assert len(plan) == 6
    assert model.sigmas == pytest.approx([sigma for step in plan for sigma in step])


@pytest.mark.parametrize("sampler", ON_SCHEDULE)
def test_the_hook_sees_every_step_once_and_may_change_it(gaussian, noise, sigmas, sampler):
    hooked, traced = [], []

    def hook(step):
        assert step.x.shape == noise.shape and step.sigma.shape == (2,) and step.denoised is None
        assert (step.level, step.next_level) == (step.sigma[1].item(), step.sigma_next[1].item())
        hooked.append((step.index, step.count, step.level, step.next_level))
        return step.x + 1 if step.index == 3 else None

    def trace(step):
        traced.append((step.index, step.count, step.level, step.next_level, step.x.clone(), step.denoised.clone()))

    common = {"sampler": sampler, "seeds": SEEDS, "trace": trace}
    samplers.sample(gaussian, noise, sigmas, **common)
    plain, traced = traced, []
    samplers.sample(gaussian, noise, sigmas, hook=hook, **common)

    assert hooked == [(i, 6, sigmas[i].item(), sigmas[i + 1].item()) for i in range(6)]
    assert [entry[:4] for entry in traced] == hooked
    for step, _, sigma, _, x, denoised in traced:
        torch.testing.assert_close(denoised, gaussian(x, torch.full([2], sigma)))
        if step <= 3:
            torch.testing.assert_close(x, plain[step][4] + (step == 3))


def test_the_hook_may_take_gradients_and_leaves_the_noise_alone(gaussian, noise, sigmas):
    def hook(step):
        with torch.enable_grad():
            x = step.x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(gaussian(x, step.sigma).square().sum(), x)
        return x - 0.1 * gradient

    before = noise.clone()
    x = samplers.sample(gaussian, noise, sigmas, hook=hook)
    assert torch.equal(noise, before)
    assert x.square().sum() < samplers.sample(gaussian, noise, sigmas).square().sum()


@pytest.mark.parametrize("sampler", OWN_STEPS)
def test_samplers_with_their_own_steps_have_a_trace_and_no_hook(gaussian, sigmas, sampler):
    noise, steps = samplers.noise(SHAPE, [0]), []
    samplers.sample(gaussian, noise, sigmas, sampler=sampler, trace=steps.append)
    assert [step.index for step in steps] == list(range(len(steps))) and steps
    assert {(step.count, step.next_level) for step in steps} == {(None, None)}
    with pytest.raises(SamplerError, match="chooses its own steps: no hook"):
        samplers.sample(gaussian, noise, sigmas, sampler=sampler, hook=lambda step: None)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_a_bar_only_if_asked_for(gaussian, sigmas, sampler, capsys):
    noise, done = samplers.noise(SHAPE, [0]), []
    common = {"sampler": sampler, "seeds": [0]}
    quiet = samplers.sample(gaussian, noise, sigmas, **common)
    assert capsys.readouterr() == ("", "")
    shown = samplers.sample(gaussian, noise, sigmas, progress="dns", **common)
    out, err = capsys.readouterr()
    assert out == "" and "dns" in err and err.count("\n") == 1
    samplers.sample(gaussian, noise, sigmas, progress=lambda *step: done.append(step), **common)
    assert torch.equal(quiet, shown)
    total = None if sampler in OWN_STEPS else 6
    assert done == [(i + 1, total) for i in range(len(done))] and len(done) == (total or len(done)) > 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_passes_and_the_bar_closes(gaussian, noise, sigmas, error, capsys):
    def hook(step):
        if step.index == 2:
            raise error("stop")

    with pytest.raises(error, match="stop"):
        samplers.sample(gaussian, noise, sigmas, hook=hook, progress="walk")
    err = capsys.readouterr().err
    assert "2/6" in err and err.endswith("\n")


@pytest.mark.parametrize("where", ["hook", "trace"])
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_a_walk_may_be_stopped_and_go_on(gaussian, noise, sigmas, where, sampler):
    def stop(step):
        if step.index == 3:
            step.stop()

    model = Recorder(gaussian)
    half = samplers.sample(model, noise, sigmas, sampler=sampler, **{where: stop})
    assert len({*model.sigmas}) == (3 if where == "hook" and sampler != "heun" else 4)
    torch.testing.assert_close(half, samplers.sample(gaussian, noise, sigmas[:4], sampler=sampler))


def test_extra_arguments_reach_the_model(noise, sigmas):
    x = samplers.sample(
        lambda x, sigma, *, cond: cond.expand_as(x), noise, sigmas, extra_args={"cond": torch.tensor(3.0)}
    )
    torch.testing.assert_close(x, torch.full_like(x, 3.0))


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_walk_is_in_float32_whatever_the_noise(gaussian, sigmas, sampler, dtype):
    def model(x, sigma):
        assert x.dtype == sigma.dtype == torch.float32
        return gaussian(x, sigma)

    noise = samplers.noise(SHAPE, [0], dtype=dtype)
    x = samplers.sample(model, noise, sigmas, sampler=sampler, seeds=[0])
    expected = samplers.sample(model, noise.float(), sigmas, sampler=sampler, seeds=[0])
    assert torch.equal(x, expected.to(dtype))


def test_noise_and_result_are_variance_preserving_latents(gaussian, noise):
    # Two walks, one after the other, are one walk.
    sigmas = torch.tensor([14.0, 6.0, 2.0, 0.5, 0.0])
    whole = samplers.sample(gaussian, noise, sigmas, sampler="heun")
    half = samplers.sample(gaussian, noise, sigmas[:3], sampler="heun")
    torch.testing.assert_close(samplers.sample(gaussian, half, sigmas[2:], sampler="heun"), whole)


def test_a_noise_sampler_of_one_s_own_needs_no_seeds(gaussian, noise, sigmas):
    own = samplers.sample(gaussian, noise, sigmas, sampler="ddpm", noise_sampler=lambda *_: 0.0)
    same = samplers.sample(gaussian, noise, sigmas, sampler="ddpm", seeds=SEEDS, s_noise=0.0)
    torch.testing.assert_close(own, same)
    samplers.sample(gaussian, noise, sigmas, sampler="ddpm", seeds=SEEDS, noise_sampler=None)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sampler": "eular"}, r"unknown sampler 'eular'; did you mean 'euler'\? known: euler, euler_anc"),
        ({"sampler": "zzz"}, "unknown sampler 'zzz'; known: euler"),
        ({"sampler": "dpmpp_2m", "eta": 1.0}, "'dpmpp_2m' has no option 'eta'; it has: none"),
        ({"sampler": "lms", "ordr": 2}, "'lms' has no option 'ordr'; it has: order"),
        ({"start": "vp"}, "start='vp' is not one of"),
        ({"hook": lambda step: step.x[:1]}, r"the hook gave shape \(1, 2, 4, 4\) for \(2, 2, 4, 4\)"),
    ],
)
def test_what_cannot_be_used_is_named(gaussian, noise, sigmas, options, message):
    with pytest.raises(SamplerError, match=message) as error:
        samplers.sample(gaussian, noise, sigmas, **options)
    assert isinstance(error.value, ValueError) and "\n" not in str(error.value)


@pytest.mark.parametrize("levels", [[], [1.0], [1.0, 2.0], [1.0, 0.0, 0.0], [math.nan, 0.0], [1.0, -1.0], [[2.0, 1.0]]])
def test_noise_levels_that_are_none_are_named(gaussian, noise, levels):
    with pytest.raises(SamplerError, match="sigmas must"):
        samplers.sample(gaussian, noise, torch.tensor(levels))


def test_a_result_that_is_not_finite_is_named(noise, sigmas):
    def model(x, sigma):
        x = x.clone()
        x[1, 0, 0, 0] = math.nan
        return x

    with pytest.raises(SamplerError, match=r"'dpmpp_2m' gave values that are not finite, in images \[1\]"):
        samplers.sample(model, noise, sigmas)


@pytest.mark.parametrize("sampler", OWN_STEPS)
def test_samplers_with_their_own_steps_need_two_levels(gaussian, sampler):
    with pytest.raises(SamplerError, match="two positive noise levels"):
        samplers.sample(gaussian, torch.zeros(1, *SHAPE), torch.tensor([5.0, 0.0]), sampler=sampler)
