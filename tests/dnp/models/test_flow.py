"""Flow models against diffusers' pipelines, their tables, their loading, and samplers on Gaussian data."""

import json
import shutil

import pytest
import torch

import samplers
from dnp import DNPError, Sampling
from dnp.models.flow import FlowModel, load, load_flow
from dnp.models.flow_denoiser import FIRST_IN_FLOAT64, FlowDenoiser, pack
from guidance import CFG, DNS, NegPrompt

PROMPT, NEGATIVE, SEEDS = "a red circle and a blue square", "a dotted pink background", [3, 4]
SIZE = (24, 32)


@pytest.fixture(params=["SD3", "Flux"])
def kind(request):
    return request.param


@pytest.fixture
def model(kind, flow_pipeline):
    return FlowModel(flow_pipeline(kind), size=SIZE, tokens=16)


def noise_of(model, dtype=torch.float32):
    return samplers.noise(model.shape, SEEDS).to(dtype)


def theirs(model, noise, steps, **options):
    options = {"max_sequence_length": 16, "num_inference_steps": steps} | options
    options |= {"width": SIZE[0], "height": SIZE[1], "latents": pack(noise) if model.flux else noise}
    return model.pipeline(**options, output_type="latent").images


def ours(model, guidance, noise, steps, **texts):
    texts = {"prompt": PROMPT, "negative": NEGATIVE, "empty": ""} | texts
    conditions = {name: model.encode([texts[name]] * len(noise)) for name in guidance.names}
    sigmas = Sampling("euler", "model", steps).sigmas(model.denoiser).to(noise.dtype)
    with torch.no_grad():
        z = samplers.sample(guidance.wrap(model.denoiser), noise, sigmas, sampler="euler", extra_args=conditions)
    return pack(z) if model.flux else z


def close(a, b, tolerance=1e-4):
    assert (a - b).norm() < tolerance * b.norm(), (a - b).norm() / b.norm()


# What a pipeline calls negative prompt is the empty one of CFG, and the negative of 2 evaluations.
CASES = {
    "cfg": (CFG(4), lambda scale: {"prompt": [PROMPT] * 2, "negative_prompt": [""] * 2, scale: 4.0}),
    "negative": (
        NegPrompt(5, evaluations=2),
        lambda scale: {"prompt": [PROMPT] * 2, "negative_prompt": [NEGATIVE] * 2, scale: 5.0},
    ),
    "dns": (DNS(2.5), lambda scale: {"prompt": [""] * 2, "negative_prompt": [PROMPT] * 2, scale: 3.5}),
    "plain": (CFG(1), lambda scale: {"prompt": [PROMPT] * 2, scale: 1.0}),
}


@pytest.mark.parametrize("case", CASES)
def test_latents_equal_the_pipeline_s_on_its_table(model, case):
    guidance, options = CASES[case]
    options = options("true_cfg_scale" if model.flux else "guidance_scale")
    # In few steps a walk in float32 loses about 1e-4, since the first is so long: in float64 nothing is lost
    steps, dtype = 28, torch.float32
    if case != "cfg":
        model = FlowModel(model.pipeline, size=SIZE, tokens=16, first=FIRST_IN_FLOAT64)
        steps, dtype = 4, torch.float64
    found = ours(model, guidance, noise_of(model, dtype), steps).float()
    close(found, theirs(model, noise_of(model), steps, **options))
    assert (found[0] - found[1]).norm() > 1e-2 * found.norm()
    if case != "plain":
        plain = ours(model, CFG(1), noise_of(model, dtype), steps).float()
        assert (found - plain).norm() > 1e-2 * plain.norm()


def test_the_embedded_guidance_is_another_thing_than_true_guidance(flow_pipeline):
    found = {}
    for scale in (1.0, 3.5, 8.0):
        model = FlowModel(flow_pipeline("Flux"), size=SIZE, tokens=16, embedded_guidance=scale, first=FIRST_IN_FLOAT64)
        found[scale] = ours(model, CFG(1), noise_of(model, torch.float64), 3).float()
        close(found[scale], theirs(model, noise_of(model), 3, prompt=[PROMPT] * 2, guidance_scale=scale))
        assert model.options["embedded_guidance"] == scale
    assert (found[1.0] - found[8.0]).norm() > 1e-3 * found[1.0].norm()
    sd3 = FlowModel(flow_pipeline("SD3"), embedded_guidance=8.0)
    assert "guidance" not in sd3.encode(["a"]) and "embedded_guidance" not in sd3.options


def times(model, steps):
    return model.denoiser.sigma_to_t(model.denoiser.get_sigmas(steps).double())[:-1]


def test_the_table_is_the_pipeline_s_or_the_paper_s(flow_pipeline):
    pipeline = flow_pipeline("SD3")
    twice, once = FlowModel(pipeline), FlowModel(pipeline, table="paper")
    torch.testing.assert_close(
        times(twice, 4), torch.tensor([1, 0.857692, 0.602151, 0.008929]).double(), atol=3.2e-5, rtol=0
    )
    torch.testing.assert_close(
        times(once, 4), torch.tensor([1, 0.857326, 0.600719, 0.002994]).double(), atol=3.2e-5, rtol=0
    )
    torch.testing.assert_close(
        torch.stack([twice.denoiser.get_sigmas(28)[-2], once.denoiser.get_sigmas(28)[-2]]),
        torch.tensor([0.009009, 0.003003]),
        atol=1e-6,
        rtol=0,
    )
    assert abs((times(twice, 28) - times(once, 28)).abs().max() - 0.0059) < 1e-4
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(28)
    torch.testing.assert_close(times(twice, 28)[1:], scheduler.timesteps[1:].double() / 1000, atol=1e-6, rtol=0)
    assert twice.options["table"] == "diffusers" and once.options["table"] == "paper"
    with pytest.raises(DNPError, match="'cubic' is none of diffusers, paper"):
        FlowModel(pipeline, table="cubic")


def test_flux_shifts_once_by_its_number_of_patches(flow_pipeline):
    pipeline = flow_pipeline("Flux")
    big = FlowModel(pipeline, size=(128 * 2, 128 * 2))  # 4096 patches, as of 1024x1024 at a factor of 8
    assert big.shape == (4, 128, 128)
    torch.testing.assert_close(times(big, 4), torch.tensor([1, 0.9045, 0.7595, 0.5128]).double(), atol=5e-5, rtol=0)
    assert torch.equal(times(big, 4), times(FlowModel(pipeline, size=(256, 256), table="paper"), 4))
    small = FlowModel(pipeline, size=(32 * 2, 32 * 2))  # 256 patches
    t = torch.arange(4, 0, -1, dtype=torch.double) / 4
    shifted = torch.tensor(0.5).exp() * t / (1 - t)  # e^mu · sigma
    torch.testing.assert_close(times(small, 4)[1:], (shifted / (1 + shifted))[1:], atol=1e-6, rtol=0)


@pytest.mark.parametrize("sampler", ["euler", "heun", "euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_2m_sde", "ddpm"])
def test_samplers_keep_the_standard_deviation_of_gaussian_data(sampler):
    std = 0.6

    def velocity(z, t):
        t = t.view(-1, 1, 1, 1)
        mean = z * (1 - t) * std**2 / ((1 - t) ** 2 * std**2 + t**2)  # of x_0 at z
        return (z - mean) / t

    denoiser = FlowDenoiser(velocity, lambda n: torch.linspace(1, 1e-3, n, dtype=torch.double))
    noise = samplers.noise((4, 64, 64), [1, 2])
    steps = 60 if "sde" in sampler else 200
    x = samplers.sample(denoiser, noise, denoiser.get_sigmas(steps), sampler=sampler, seeds=[1, 2])
    assert abs(x.std().item() - std) < 0.015


def test_pictures_do_not_depend_on_the_batch_and_equal_the_pipeline_s(model):
    import numpy as np

    latents = noise_of(model)
    both, one = model.decode(latents), model.decode(latents[1:])
    assert both[0].size == SIZE and np.array_equal(both[1], one[0])
    z = latents / model.pipeline.vae.config.scaling_factor + model.pipeline.vae.config.shift_factor
    with torch.no_grad():
        x = model.pipeline.vae.decode(z).sample
    pixels = ((x / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
    for image, want in zip(both, pixels, strict=True):
        assert np.abs(np.asarray(image, float) - want.numpy()).max() <= 1
    assert (pixels[0] - pixels[1]).abs().mean() > 1


def test_it_loads_from_a_directory_with_t5_in_parts_or_left_out(kind, flow_pipeline, tmp_path):
    pipeline = flow_pipeline(kind)
    pipeline.save_pretrained(tmp_path, max_shard_size="20KB")
    t5 = tmp_path / ("text_encoder_2" if kind == "Flux" else "text_encoder_3")
    assert len(list(t5.glob("*.safetensors"))) > 1
    options = {"size": SIZE, "tokens": 16}
    loaded, direct = load(str(tmp_path), "cpu", **options), FlowModel(pipeline, **options)
    assert isinstance(loaded, FlowModel) and loaded.defaults.schedule == "model"
    for key, value in direct.encode([PROMPT, ""]).items():
        torch.testing.assert_close(loaded.encode([PROMPT, ""])[key], value)
    noise = noise_of(direct)
    close(ours(loaded, CFG(3), noise, 2), ours(direct, CFG(3), noise, 2), 1e-6)
    if kind == "Flux":
        with pytest.raises(DNPError, match="Flux reads prompts by T5 alone"):
            load(str(tmp_path), "cpu", t5=False)
        shutil.rmtree(t5)
        with pytest.raises(DNPError, match="no text_encoder_2/ in it"):
            load(str(tmp_path), "cpu")
        return
    without = load_flow(str(tmp_path), "cpu", t5=False, **options)
    shutil.rmtree(t5)
    missing = load_flow(str(tmp_path), "cpu", **options)
    assert without.options["t5"] is False and missing.options["t5"] is False
    hidden = without.encode([PROMPT])["encoder_hidden_states"]
    assert torch.equal(hidden, missing.encode([PROMPT])["encoder_hidden_states"])
    clip = direct.encode([PROMPT])["encoder_hidden_states"][:, :77]
    assert not hidden[:, 77:].any() and torch.equal(hidden[:, :77], clip)


def test_load_chooses_by_the_kind_and_says_what_an_option_is_not_for(embedded, flow_pipeline, tmp_path):
    assert type(load("embedded", "cpu")) is type(embedded)
    with pytest.raises(DNPError, match="embedded is a Stable Diffusion, which takes no table"):
        load("embedded", "cpu", table="paper")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline"}))
    with pytest.raises(DNPError, match="is a flow model, which takes no loras"):
        load(str(tmp_path), "cpu", loras=["a"])
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "SanaPipeline"}))
    with pytest.raises(DNPError, match="names SanaPipeline"):
        load_flow(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(DNPError, match="not valid JSON"):
        load(str(tmp_path))


def test_what_does_not_fit_is_said_in_a_line(flow_pipeline, pipeline_of):
    with pytest.raises(DNPError, match="StableDiffusionPipeline is no pipeline of a flow model"):
        FlowModel(pipeline_of("1"))
    with pytest.raises(DNPError, match="25x32 does not fit: give multiples of 4"):
        FlowModel(flow_pipeline("SD3"), size=(25, 32))
    with pytest.raises(DNPError, match="knows up to 64"):
        FlowModel(flow_pipeline("SD3"), size=(68, 64))
    with pytest.raises(DNPError, match="'identity' is for U-Nets"):
        FlowModel(flow_pipeline("SD3")).denoiser(torch.zeros(1, 4, 8, 8), torch.ones(1), attention="identity")
    assert FlowModel(flow_pipeline("SD3")).warnings("a " * 90) == [
        "the prompt has 90 tokens, of which CLIP reads the first 75, but T5 reads 256"
    ]
