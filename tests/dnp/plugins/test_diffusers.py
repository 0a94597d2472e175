"""A formula inside diffusers: the same latents as our recipe's through each door, and nothing changed behind them."""

import types

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.modular_pipelines.modular_pipeline import BlockState
from diffusers.modular_pipelines.stable_diffusion_3.denoise import (
    StableDiffusion3LoopAfterDenoiser,
    StableDiffusion3LoopDenoiser,
)
from diffusers.modular_pipelines.stable_diffusion_xl.denoise import (
    StableDiffusionXLLoopAfterDenoiser,
    StableDiffusionXLLoopBeforeDenoiser,
    StableDiffusionXLLoopDenoiser,
)

import samplers
from captioning import Fixed
from dnp import DNP, DNPError, Sampling, paint
from dnp.models.flow import FlowModel
from dnp.models.flow_denoiser import FIRST_IN_FLOAT64, pack
from dnp.plugins.diffusers import DNPPipeline, FormulaGuider, guide
from guidance import GuidanceError, parse

PROMPT, NEGATIVE, SEEDS, STEPS = "a red circle and a blue square", "a dotted pink background", [3, 4], 4
TEXTS = {"prompt": [PROMPT] * 2, "negative": [NEGATIVE] * 2, "empty": [""] * 2}
FORMULAS = [
    "u + 5*(p - u) - 2*(n - u)",
    "NegPrompt(5, evaluations=2)",
    "DNS(3)",
    "PerpNeg(4, 1)",
    "APG(4, eta=0, momentum=-0.5)",
    "Rescale(NegPrompt(4, evaluations=3), 0.7)",
    "Interval(CFG(4), 0.5, 5)",
    "CFGZeroStar(4, zero=5)",  # which needs no prediction at all in its first steps
]


def close(a, b, tolerance=1e-4):
    assert (a - b).norm() < tolerance * b.norm(), ((a - b).norm() / b.norm()).item()


@pytest.fixture(scope="module")
def xl(pipeline_of):
    pipeline = pipeline_of("XL")
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)  # leading, as SDXL's own
    return pipeline


def through_the_loop_of_xl(pipeline, guider, conditions, noise, steps=STEPS):
    """Its real blocks, step by step."""
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(steps)
    guider.scheduler = scheduler
    parts = types.SimpleNamespace(guider=guider, unet=pipeline.unet, scheduler=scheduler, num_channels_unet=4)
    p, n = conditions["prompt"], conditions.get("negative", conditions["empty"])
    state = BlockState(
        latents=noise * scheduler.init_noise_sigma,
        prompt_embeds=p["encoder_hidden_states"],
        negative_prompt_embeds=n["encoder_hidden_states"],
        pooled_prompt_embeds=p["added_cond_kwargs"]["text_embeds"],
        negative_pooled_prompt_embeds=n["added_cond_kwargs"]["text_embeds"],
        add_time_ids=p["added_cond_kwargs"]["time_ids"],
        negative_add_time_ids=n["added_cond_kwargs"]["time_ids"],
        num_inference_steps=steps,
        timestep_cond=None,
        cross_attention_kwargs=None,
        generator=None,
        eta=0.0,
    )
    blocks = (
        StableDiffusionXLLoopBeforeDenoiser(),
        StableDiffusionXLLoopDenoiser(),
        StableDiffusionXLLoopAfterDenoiser(),
    )
    for i, t in enumerate(scheduler.timesteps):
        for block in blocks:
            block(parts, state, i, t)
    return state.latents


def third(guider, conditions, name="empty"):
    given = conditions[name]
    embeds = {"prompt_embeds": given["encoder_hidden_states"][:1]}
    guider.set_condition(name, **embeds, text_embeds=given["added_cond_kwargs"]["text_embeds"][:1])


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_same_latents_by_the_recipe_the_guider_and_guide(xl, model_of, latents_of, formula):
    model, noise = model_of("XL"), samplers.noise(model_of("XL").shape, SEEDS)
    rule = parse(formula)
    recipe = latents_of(model, rule, TEXTS, SEEDS, Sampling("euler", "leading", STEPS))

    guided = guide(xl, formula)
    negative = {"negative_prompt": NEGATIVE} if "negative" in rule.names else {}
    found = guided([PROMPT] * 2, **negative, latents=noise, num_inference_steps=STEPS, output_type="latent")
    assert type(found).__name__ == "StableDiffusionXLPipelineOutput"
    close(found.images, recipe)
    seeded = guided([PROMPT] * 2, **negative, seeds=SEEDS, num_inference_steps=STEPS, output_type="latent")
    assert torch.equal(seeded.images, found.images)

    conditions = {name: model.encode(texts) for name, texts in TEXTS.items()}
    guider = FormulaGuider(formula)
    if "negative" in rule.names:
        third(guider, conditions)
    else:
        del conditions["negative"]
    close(through_the_loop_of_xl(xl, guider, conditions, noise), recipe)
    assert (recipe[0] - recipe[1]).norm() > 1e-2 * recipe.norm()


def test_a_v_model_and_ddim(pipeline_of, model_of, latents_of):
    """The guider's arithmetic of v against the recipe's model of it, on one evaluation; guide on DDIM's levels."""
    pipeline, model = pipeline_of("2"), model_of("2")
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    recipe = latents_of(model, parse(FORMULAS[0]), TEXTS, SEEDS, Sampling("ddim", "leading", STEPS))
    sigmas = Sampling("ddim", "leading", STEPS).sigmas(model.denoiser)
    found = guide(pipeline, FORMULAS[0], sampler="ddim")(
        [PROMPT] * 2, NEGATIVE, seeds=SEEDS, sigmas=sigmas, output_type="latent"
    )
    assert type(found).__name__ == "StableDiffusionPipelineOutput"
    close(found.images, recipe)

    guider, rule = FormulaGuider("Rescale(NegPrompt(4, evaluations=3), 0.7)"), parse("Rescale(NegPrompt(4), 0.7)")
    scheduler = guider.scheduler = pipeline.scheduler
    scheduler.set_timesteps(STEPS)
    t = scheduler.timesteps[1]
    z = samplers.noise(model.shape, SEEDS)
    conditions = {name: model.encode(texts) for name, texts in TEXTS.items()}
    guider.set_condition("empty", encoder_hidden_states=conditions["empty"]["encoder_hidden_states"])
    guider.set_state(1, STEPS, t)
    inputs = {"encoder_hidden_states": tuple(conditions[n]["encoder_hidden_states"] for n in ("prompt", "negative"))}
    batches = guider.prepare_inputs(inputs)
    for batch in batches:
        guider.prepare_models(pipeline.unet)
        with torch.no_grad():
            batch.noise_pred = pipeline.unet(z, t, batch.encoder_hidden_states, return_dict=False)[0]
        guider.cleanup_models(pipeline.unet)
    v = guider(batches).pred
    alpha = scheduler.alphas_cumprod[t]
    sigma = ((1 - alpha) / alpha).sqrt()
    x = z * (1 + sigma**2).sqrt()
    with torch.no_grad():
        want = rule.wrap(model.denoiser)(x, sigma.expand(2), **conditions)
    close(alpha.sqrt() * z - (1 - alpha).sqrt() * v, want)


@pytest.mark.parametrize("kind", ["SD3", "Flux"])
def test_flow_pipelines(flow_pipeline, kind):
    pipeline = flow_pipeline(kind)
    model = FlowModel(pipeline, size=(24, 32), tokens=16)
    noise, steps = samplers.noise(model.shape, SEEDS), 5
    options = {"height": 32, "width": 24, "num_inference_steps": steps, "output_type": "latent"}
    found = guide(pipeline, "NegPrompt(5, evaluations=2)", tokens=16)(
        [PROMPT] * 2, NEGATIVE, latents=pack(noise) if kind == "Flux" else noise, **options
    )
    scale = "true_cfg_scale" if kind == "Flux" else "guidance_scale"
    own = pipeline(
        [PROMPT] * 2,
        negative_prompt=[NEGATIVE] * 2,
        latents=pack(noise) if kind == "Flux" else noise,
        max_sequence_length=16,
        **{scale: 5.0},
        **options,
    )
    assert type(found) is type(own) and found.images.shape == own.images.shape
    close(found.images, own.images)


def test_the_guider_in_the_loop_of_sd3_takes_one_forward_for_all(flow_pipeline):
    pipeline = flow_pipeline("SD3")
    model = FlowModel(pipeline, size=(24, 32), tokens=16, first=FIRST_IN_FLOAT64)
    noise = samplers.noise(model.shape, SEEDS)
    conditions = {name: model.encode(texts) for name, texts in TEXTS.items()}
    formula = "Rescale(NegPrompt(4, evaluations=3), 0.7)"
    guider = FormulaGuider(formula)
    empty = conditions["empty"]
    guider.set_condition(
        "empty", encoder_hidden_states=empty["encoder_hidden_states"], text_embeds=empty["pooled_projections"]
    )
    scheduler = guider.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(5)
    parts = types.SimpleNamespace(guider=guider, transformer=pipeline.transformer, scheduler=scheduler)
    p, n = conditions["prompt"], conditions["negative"]
    state = BlockState(
        latents=noise,
        prompt_embeds=p["encoder_hidden_states"],
        negative_prompt_embeds=n["encoder_hidden_states"],
        pooled_prompt_embeds=p["pooled_projections"],
        negative_pooled_prompt_embeds=n["pooled_projections"],
        num_inference_steps=5,
        joint_attention_kwargs=None,
    )
    rows = []
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    for i, t in enumerate(scheduler.timesteps):
        StableDiffusion3LoopDenoiser()(parts, state, i, t)
        StableDiffusion3LoopAfterDenoiser()(parts, state, i, t)
    hook.remove()
    assert rows == [6] * 5
    sigmas = Sampling("euler", "model", 5).sigmas(model.denoiser)
    guided = parse(formula).wrap(model.denoiser)
    with torch.no_grad():
        want = samplers.sample(guided, noise.double(), sigmas.double(), sampler="euler", extra_args=conditions)
    close(state.latents, want.float())


def test_a_block_state_s_fields(flow_pipeline):
    """The other way in which pipelines hand over their inputs."""
    guider = FormulaGuider("u + 3*(p - u) - (n - u)")
    guider.scheduler = flow_pipeline("SD3").scheduler
    state = BlockState(p=torch.ones(2, 3), n=torch.zeros(2, 3), mask=torch.ones(2))
    guider.set_condition("empty", hidden=torch.full((1, 3), 7.0))
    guider.set_state(0, 4, torch.tensor(500.0))
    batches = guider.prepare_inputs_from_block_state(state, {"hidden": ("p", "n"), "mask": "mask"})
    found = {getattr(batch, guider._identifier_key): batch for batch in batches}
    assert found["prompt"].hidden is state.p and found["negative"].hidden is state.n
    assert torch.equal(found["empty"].hidden, torch.full((2, 3), 7.0)) and found["empty"].mask is state.mask


def test_start_stop_and_what_is_not_needed(xl, model_of, latents_of):
    model, noise = model_of("XL"), samplers.noise(model_of("XL").shape, SEEDS)
    conditions = {name: model.encode(texts) for name, texts in TEXTS.items() if name != "negative"}
    calls = []
    hook = xl.unet.register_forward_hook(lambda *_: calls.append(1))
    plain = through_the_loop_of_xl(xl, FormulaGuider("CFG(1)"), conditions, noise)
    assert len(calls) == STEPS
    close(through_the_loop_of_xl(xl, FormulaGuider("CFG(5)", stop=0.0), conditions, noise), plain, 1e-6)
    calls.clear()
    late = through_the_loop_of_xl(xl, FormulaGuider("CFG(5)", start=0.5), conditions, noise)
    assert len(calls) == STEPS + 2
    hook.remove()
    levels = Sampling("euler", "leading", STEPS).sigmas(model.denoiser)
    within = f"Interval(CFG(5), 0, {(levels[1] * levels[2]).sqrt().item():.4f})"
    close(late, latents_of(model, parse(within), TEXTS, SEEDS, Sampling("euler", "leading", STEPS)))
    before = len(xl.unet._forward_pre_hooks)
    guider = FormulaGuider("CFG(5)")
    guider.prepare_models(xl.unet)  # and an error before it is cleaned up
    guider.prepare_models(xl.unet)
    guider.cleanup_models(xl.unet)
    assert len(xl.unet._forward_pre_hooks) == before
    whole = FormulaGuider("Interval(CFG(5), 2, 5)")
    assert whole.num_conditions == 2  # as a pipeline asks before it begins, to encode the negative prompt


def test_it_is_saved_and_read_back(tmp_path):
    FormulaGuider("u + 5*(p - u) - 2*(n - u)", start=0.25).save_pretrained(tmp_path)
    found = FormulaGuider.from_pretrained(tmp_path)
    assert found.guidance == parse("u + 5*(p - u) - 2*(n - u)") and found._start == 0.25
    assert found.new(guidance="DNS(3)").guidance == parse("DNS(3)")


def test_what_is_wrong_with_a_guider_is_said_in_a_line(xl, model_of):
    with pytest.raises(GuidanceError, match="cannot read"):
        FormulaGuider("u + ")
    with pytest.raises(DNPError, match="elsewhere.*use dnp.plugins.diffusers.guide"):
        FormulaGuider("ANSWER(5, steps=3)")
    model = model_of("XL")
    conditions = {name: model.encode(texts) for name, texts in TEXTS.items()}
    noise = samplers.noise(model.shape, SEEDS)
    with pytest.raises(DNPError, match=r"needs the condition 'empty'.*guider.set_condition\('empty', prompt_embeds="):
        through_the_loop_of_xl(xl, FormulaGuider("NegPrompt(4, evaluations=3)"), conditions, noise)
    guider = FormulaGuider("CFG(3)")
    guider.set_state(0, 4, torch.tensor(500))
    with pytest.raises(DNPError, match="set guider.scheduler = pipeline.scheduler"):
        guider.prepare_inputs({"prompt_embeds": (noise, noise)})


def everything(pipeline):
    """What of a pipeline must stay: tensors by dtype and place, and the objects themselves."""
    networks = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    tensors = {
        (name, key): (value.dtype, value.data_ptr(), value.requires_grad)
        for name, network in networks.items()
        for key, value in [*network.named_parameters(), *network.named_buffers()]
    }
    hooks = {
        (name, key): (len(module._forward_pre_hooks), len(module._forward_hooks), module.training, id(module))
        for name, network in networks.items()
        for key, module in network.named_modules()
    }
    unet = getattr(pipeline, "unet", None) or pipeline.transformer
    processors = {name: id(processor) for name, processor in unet.attn_processors.items()}
    return tensors, hooks, processors, id(pipeline.scheduler), dict(pipeline.scheduler.config), dict(pipeline.config)


@pytest.mark.parametrize("family", ["1", "XL", "SD3"])
def test_nothing_of_the_source_pipeline_changes(pipeline_of, flow_pipeline, family):
    if family == "SD3":
        import copy

        pipeline = copy.deepcopy(flow_pipeline("SD3"))
        pipeline.set_progress_bar_config(disable=True)
    else:
        pipeline = pipeline_of(family)
    pipeline.to(torch.bfloat16)

    def own():
        return pipeline(PROMPT, num_inference_steps=2, generator=torch.manual_seed(0), output_type="latent").images

    before, kept = own(), everything(pipeline)
    size = (pipeline.vae_scale_factor * 8,) * 2
    guided = guide(pipeline, "NegPrompt(4, evaluations=3)")
    image = guided(PROMPT, NEGATIVE, seeds=0, num_inference_steps=2).images[0]
    assert image.size == size

    def broken(images):
        raise KeyError("a captioner that fails")

    captioner = Fixed(NEGATIVE)
    sampling = Sampling("euler", "model", 2)
    output = DNPPipeline.from_pipe(pipeline, captioner, sampling=sampling)(PROMPT, seeds=0)
    assert output.negative_prompts == [NEGATIVE] and output.images[0].size == output.plain[0].size == size
    broken.name = "broken"
    with pytest.raises(KeyError, match="a captioner that fails"):
        DNPPipeline.from_pipe(pipeline, broken, sampling=sampling)(PROMPT, seeds=0)
    assert everything(pipeline) == kept
    assert torch.equal(own(), before)
    if family != "SD3":
        pipeline.to(torch.float32)


def test_the_dnp_pipeline_equals_the_recipe(pipeline_of, model_of):
    import numpy as np

    pipeline, model = pipeline_of("1"), model_of("1")
    sampling = Sampling("euler", "leading", 2)
    captions = []

    def captioner(images):
        captions.append(images)
        return [NEGATIVE] * len(images)

    captioner.name = "fixed"
    found = DNPPipeline.from_pipe(pipeline, captioner, scale=5, sampling=sampling)([PROMPT, "a cat"], seeds=SEEDS)
    recipe = DNP(
        model, captioner, parse("NegPrompt(5, evaluations=3)"), parse("DNS(5)"), parse("CFG(5)"), sampling=sampling
    )
    want = recipe([PROMPT, "a cat"], SEEDS)
    assert found.negative_prompts == [NEGATIVE] * 2 and len(captions) == 2
    for name, images in (("plain", found.plain), ("dns", found.dns), ("dnp", found.images)):
        for image, result in zip(images, want, strict=True):
            assert np.abs(np.asarray(image, int) - np.asarray(result.images[name], int)).max() <= 1


def test_guide_draws_as_the_pipeline_does_and_returns_what_it_returns(pipeline_of, model_of):
    pipeline = pipeline_of("1")
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    options = {"num_inference_steps": 3, "output_type": "latent"}
    theirs = pipeline(PROMPT, generator=torch.manual_seed(7), guidance_scale=4.0, **options).images
    guided = guide(pipeline, "CFG(4)")
    close(guided(PROMPT, generator=torch.manual_seed(7), **options).images, theirs)  # starts from sigma times noise
    images, flags = guided(PROMPT, seeds=[1], num_inference_steps=2, return_dict=False, output_type="np")
    assert images.shape[0] == 1 and images.shape[-1] == 3 and flags is None and 0 <= images.min() <= images.max() <= 1
    tensor = guided(PROMPT, seeds=[1], num_inference_steps=2, output_type="pt").images
    assert torch.allclose(tensor.permute(0, 2, 3, 1), torch.from_numpy(images))
    stochastic = guide(pipeline, "CFG(4)", sampler="euler_ancestral")
    one, two = (stochastic(PROMPT, seeds=5, **options).images for _ in range(2))
    assert torch.equal(one, two) and not torch.allclose(one, guided(PROMPT, seeds=5, **options).images)
    third = guide(pipeline, "CFG(4) + 2*(ε(style) - u)")(
        PROMPT, seeds=SEEDS[0], conditions={"style": "pink"}, num_inference_steps=2
    )
    model = model_of("1")
    sampling = Sampling("euler", "trailing", 2)
    want = paint(model, parse("CFG(4)"), {"prompt": [PROMPT]}, [SEEDS[0]], sampling)[0][0]
    assert third.images[0].size == want.size and third.images[0].tobytes() != want.tobytes()


def test_what_is_wrong_with_a_pipeline_or_a_call_is_said_in_a_line(pipeline_of, flow_pipeline):
    class SanaPipeline:
        pass

    with pytest.raises(DNPError, match="SanaPipeline is not supported: give one of StableDiffusionPipeline, "):
        guide(SanaPipeline(), "CFG(3)")
    with pytest.raises(DNPError, match="a StableDiffusionPipeline takes no such option"):
        guide(pipeline_of("1"), "CFG(3)", table="paper")
    guided = guide(pipeline_of("1"), "CFG(3)")
    with pytest.raises(DNPError, match="there is a text for 'negative', which .* does not name"):
        guided(PROMPT, NEGATIVE)
    with pytest.raises(DNPError, match="needs a text for 'negative': give negative_prompt="):
        guide(pipeline_of("1"), "NegPrompt(3)")(PROMPT)
    with pytest.raises(DNPError, match="1 seeds for 2 prompts"):
        guided([PROMPT] * 2, seeds=[1])
    with pytest.raises(DNPError, match="the latents are"):
        guided(PROMPT, latents=torch.zeros(1, 4, 2, 2))
    with pytest.raises(DNPError, match="give both the width and the height"):
        guided(PROMPT, width=16)
    with pytest.raises(DNPError, match="is none of pil, np, pt, latent"):
        guided(PROMPT, output_type="tensor")
    with pytest.raises(DNPError, match="seeds or a generator, not both"):
        guided(PROMPT, seeds=1, generator=torch.manual_seed(0))
