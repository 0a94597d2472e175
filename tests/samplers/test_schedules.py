import k_diffusion as K
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from diffusers.schedulers import AysSchedules

import samplers
from samplers import SamplerError

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STEPS = [1, 2, 3, 7, 16, 30, 50, 77, 333, 999]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_spacings_are_those_of_diffusers(discrete, name, steps, final):
    theirs = EulerDiscreteScheduler(**STABLE_DIFFUSION, timestep_spacing=name, steps_offset=1, final_sigmas_type=final)
    theirs.set_timesteps(steps)
    ours = samplers.schedule(name, discrete, steps, final=final)
    torch.testing.assert_close(ours, theirs.sigmas, rtol=1e-6, atol=0)


@pytest.mark.parametrize("steps", STEPS)
def test_offset_of_zero_takes_all_steps(discrete, steps):
    theirs = EulerDiscreteScheduler(**STABLE_DIFFUSION, timestep_spacing="leading", steps_offset=0)
    theirs.set_timesteps(steps)
    ours = samplers.schedule("leading", discrete, steps, steps_offset=0)
    torch.testing.assert_close(ours, theirs.sigmas, rtol=1e-6, atol=0)


@pytest.mark.parametrize("steps", STEPS[1:])
def test_karras_is_that_of_diffusers(discrete, steps):
    theirs = EulerDiscreteScheduler(**STABLE_DIFFUSION, timestep_spacing="linspace", use_karras_sigmas=True)
    theirs.set_timesteps(steps)
    torch.testing.assert_close(samplers.schedule("karras", discrete, steps), theirs.sigmas, rtol=1e-5, atol=0)


def test_all_trailing_schedules_have_their_length(discrete):
    for steps in range(1, 1001):
        sigmas = samplers.schedule("trailing", discrete, steps)
        assert len(sigmas) == steps + 1
        assert (sigmas.diff() < 0).all()


def test_continuous_schedules_are_those_of_k_diffusion(discrete):
    low, high = discrete.sigma_min.item(), discrete.sigma_max.item()
    for name in ["karras", "exponential", "polyexponential"]:
        theirs = getattr(K.sampling, f"get_sigmas_{name}")(12, low, high)
        assert torch.equal(samplers.schedule(name, discrete, 12), theirs)
    assert torch.equal(samplers.schedule("model", discrete, 12), discrete.get_sigmas(12))
    theirs = K.sampling.get_sigmas_polyexponential(12, 0.1, 10.0, rho=2.0)
    ours = samplers.schedule("polyexponential", None, 12, sigma_min=0.1, sigma_max=10.0, rho=2.0)
    assert torch.equal(ours, theirs)


EXPECTED = {
    "beta": [14.6146, 11.5428, 7.3718, 4.3728, 2.6152, 1.6183, 1.0273, 0.6549, 0.3955, 0.1991],
    "sgm_uniform": [14.6146, 8.3072, 5.0924, 3.3251, 2.2797, 1.6156, 1.1629, 0.8319, 0.5712, 0.3437],
    "simple": [14.6146, 8.3028, 5.0878, 3.3211, 2.2765, 1.6129, 1.1606, 0.8299, 0.5693, 0.3417],
    "align_your_steps": [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_schedules_of_comfyui_on_stable_diffusion_s_table(discrete, name):
    ours = samplers.schedule(name, discrete, 10)
    torch.testing.assert_close(ours, torch.tensor([*EXPECTED[name], 0.0]), rtol=0, atol=1e-3)


def test_align_your_steps_is_diffusers_and_interpolates(discrete):
    for name, theirs in (("", "StableDiffusionSigmas"), ("_xl", "StableDiffusionXLSigmas")):
        expected = torch.tensor([*AysSchedules[theirs][:10], 0.0])
        torch.testing.assert_close(samplers.schedule(f"align_your_steps{name}", None, 10), expected)
    sigmas = samplers.schedule("align_your_steps", None, 20)
    expected = torch.tensor([14.615, 9.7279, 6.475, 5.000, 3.861])
    torch.testing.assert_close(sigmas[:5], expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(sigmas[-3:], torch.tensor([0.152, 0.0664, 0.0]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 20, 199, 200, 999, 1000])
@pytest.mark.parametrize("name", EXPECTED)
def test_there_is_a_level_for_each_step_and_each_is_below_the_last(discrete, name, steps):
    sigmas = samplers.schedule(name, discrete, steps)
    assert len(sigmas) == steps + 1 and (sigmas.diff() < 0).all() and sigmas[-1] == 0


@pytest.mark.parametrize("name", samplers.SCHEDULES)
def test_every_schedule_falls_to_zero_and_has_a_line_about_it(discrete, name):
    sigmas = samplers.schedule(name, discrete, 10)
    assert sigmas.shape == (11,) and sigmas.dtype == torch.float32
    assert (sigmas.diff() < 0).all() and sigmas[-1] == 0
    assert samplers.SCHEDULES[name] and "\n" not in samplers.SCHEDULES[name]


@pytest.mark.parametrize(
    "name, steps, options, message",
    [
        ("karas", 10, {}, r"unknown schedule 'karas'; did you mean 'karras'\? known: model, karras"),
        ("karras", 0, {}, "steps must be an integer of at least 1; got 0"),
        ("karras", 2.5, {}, "got 2.5"),
        ("karras", True, {}, "got True"),
        ("karras", 10, {"rh": 7}, "'karras' has no option 'rh'; it has: sigma_min, sigma_max, rho"),
        ("model", 10, {"rho": 7}, "'model' has no option 'rho'; it has: none"),
        ("exponential", 10, {"sigma_min": -1.0}, "needs 0 < sigma_min < sigma_max; got -1.0"),
        ("trailing", 1001, {}, "at most the model's 1000 steps; got 1001"),
        ("model", 1001, {}, "at most the model's 1000 steps; got 1001"),
        ("leading", 1000, {}, "use fewer steps or steps_offset=0"),
        ("leading", 10, {"steps_offset": -1}, "steps_offset=-1 leaves the model's timesteps"),
        ("beta", 10, {"a": 0}, "'beta' needs a and b above 0; got 0, 0.6"),
        ("sgm_uniform", 1001, {}, "at most the model's 1000 steps; got 1001"),
        ("leading", 10, {"final": "one"}, "final='one' is not one of"),
    ],
)
def test_what_cannot_be_used_is_named(discrete, name, steps, options, message):
    with pytest.raises(SamplerError, match=message) as error:
        samplers.schedule(name, discrete, steps, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, message",
    [
        ("model", "needs `get_sigmas`, which object lacks"),
        ("leading", "needs a model with a table of noise levels"),
        ("karras", "needs sigma_min and sigma_max, which object lacks; pass them"),
    ],
)
def test_what_a_model_lacks_is_named(name, message):
    with pytest.raises(SamplerError, match=message):
        samplers.schedule(name, object(), 10)
