"""Attend-and-Excite against diffusers' deprecated pipeline, and where that is wrong against a loop by hand."""

import copy
import math

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionAttendAndExcitePipeline
from diffusers.pipelines.deprecated.stable_diffusion_attend_and_excite import (
    pipeline_stable_diffusion_attend_and_excite as deprecated,
)

import samplers
from captioning import Fixed
from dnp import DNP, DNPError, Sampling
from dnp.attention.attend_and_excite import AttendAndExcite
from guidance import CFG, NegPrompt

PROMPT, SEEDS, STEPS = "a red circle and a blue square", [3, 4], 6
DDIM, EULER = Sampling("ddim", "leading", STEPS), Sampling("euler", "leading", STEPS)
# Thresholds that the small networks do not have at once: the first is reached, the second never
HOW = AttendAndExcite(thresholds={0: 0.05, 1 / 3: 0.3}, refinements=4, size=(8, 8))


def walk(model, hook, prompts=(PROMPT, PROMPT), seeds=SEEDS, sampling=DDIM):
    guided = CFG(7.5).wrap(model.denoiser)
    conditions = {"prompt": model.encode(list(prompts)), "empty": model.encode([""] * len(prompts))}
    return samplers.sample(
        guided,
        samplers.noise(model.shape, list(seeds)),
        sampling.sigmas(model.denoiser),
        sampler=sampling.sampler,
        extra_args=conditions,
        seeds=list(seeds),
        hook=hook,
    )


def difference(a, b):
    return ((a - b).norm() / b.norm()).item()


def tokens_of(tokenizer):
    return [1 + tokenizer.tokenize(PROMPT).index(f"{word}</w>") for word in ("circle", "square")]


class Double:
    """A model in float64, where what rounding would make of two ways of computing attention is no difference."""

    def __init__(self, model):
        self.model, self.unet = model, copy.deepcopy(model.unet).double()
        table = model.denoiser.sigmas.double()
        network = copy.copy(model.denoiser.inner_model)
        network._modules, network.dtype = {"unet": self.unet}, torch.float64
        self.denoiser = type(model.denoiser)(network, 1 / (1 + table**2), False)

    def __getattr__(self, name):
        return getattr(self.model, name)

    def encode(self, prompts):
        return {"encoder_hidden_states": self.model.encode(prompts)["encoder_hidden_states"].double()}

    def sigmas(self, sampling):
        """In float64 too: the levels of the table that are meant."""
        table = self.denoiser.sigmas
        return table[(sampling.sigmas(self.denoiser)[:, None] - table).abs().argmin(1)]


@pytest.mark.parametrize("family", ["embedded", "1"])
def test_latents_equal_the_deprecated_pipeline_s(family, model_of, pipeline_of, monkeypatch):
    model = Double(model_of(family))
    pipeline = pipeline_of(family, StableDiffusionAttendAndExcitePipeline)
    pipeline.unet, pipeline.text_encoder = model.unet, pipeline.text_encoder.double()  # whose dtype texts get
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    refine = pipeline._perform_iterative_refinement_step
    monkeypatch.setattr(
        pipeline,
        "_perform_iterative_refinement_step",
        lambda **options: refine(**options, max_refinement_steps=HOW.refinements),
    )
    options = {"max_iter_to_alter": STEPS // 2, "thresholds": {0: 0.05, 2: 0.3}, "attn_res": (8, 8)}
    options |= {"num_inference_steps": STEPS, "output_type": "latent", "token_indices": tokens_of(model.tokenizer)}
    p, u = (model.encode([text])["encoder_hidden_states"] for text in (PROMPT, ""))
    noise = samplers.noise(model.shape, SEEDS).double()
    expected = torch.cat(
        [pipeline(None, prompt_embeds=p, negative_prompt_embeds=u, latents=z, **options).images for z in noise.split(1)]
    )
    hook = HOW.on(model, [PROMPT] * 2)
    guided = CFG(7.5).wrap(model.denoiser)
    conditions = {"prompt": model.encode([PROMPT] * 2), "empty": model.encode([""] * 2)}
    found, plain = (
        samplers.sample(guided, noise, model.sigmas(DDIM), sampler="ddim", extra_args=conditions, hook=each)
        for each in (hook, None)
    )
    assert difference(found, expected) < 1e-6
    assert difference(plain, expected) > 1e-3
    assert max(hook.evaluations) > STEPS // 2  # there was refinement


def test_under_euler_it_equals_a_loop_by_hand(model_of):
    """With diffusers' own processors and loss, in its latents z, and what its pipeline leaves out: that the network
    takes x / sqrt(1 + sigma^2), which is z."""
    model, how = model_of("1"), AttendAndExcite(thresholds={}, size=(8, 8))
    store, unet = deprecated.AttentionStore((8, 8)), model.unet
    before, tokens = unet.attn_processors, tokens_of(model.tokenizer)
    condition, empty = model.encode([PROMPT]), model.encode([""])
    levels = EULER.sigmas(model.denoiser)
    z = samplers.noise(model.shape, SEEDS[:1])
    for i, (sigma, after) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        if i < STEPS // 2:
            store.num_att_layers = len(before)
            unet.set_attn_processor({name: deprecated.AttendExciteAttnProcessor(store, "up") for name in before})
            t = model.denoiser.sigma_to_t(sigma.view(1))
            with torch.enable_grad():
                z = z.requires_grad_()
                unet(z, t, **condition)
                maps = store.aggregate_attention(("up",))
                most = StableDiffusionAttendAndExcitePipeline._compute_max_attention_per_index(maps, tokens)
                loss = StableDiffusionAttendAndExcitePipeline._compute_loss(most)
                z = (z - 20 * torch.linspace(1, 0.5, STEPS)[i].sqrt() * torch.autograd.grad(loss, z)[0]).detach()
            unet.set_attn_processor(dict(before))
        x = z * (1 + sigma**2).sqrt()
        p, u = (model.denoiser(x, sigma.view(1), **each) for each in (condition, empty))
        denoised = u + 7.5 * (p - u)
        z = (x + (x - denoised) / sigma * (after - sigma)) / (1 + after**2).sqrt()
    found = walk(model, how.on(model, [PROMPT]), [PROMPT], SEEDS[:1], EULER)
    assert difference(found, z) < 1e-5


def test_samples_of_a_batch_do_not_depend_on_each_other(model_of):
    model = model_of("1")
    prompts = ["a red circle and a blue square", "a cat"]
    hook = HOW.on(model, prompts)
    both = walk(model, hook, prompts)
    for i, prompt in enumerate(prompts):
        alone = HOW.on(model, [prompt])
        assert difference(walk(model, alone, [prompt], SEEDS[i : i + 1]), both[i : i + 1]) < 1e-5
        assert alone.evaluations == hook.evaluations[i : i + 1]


def test_it_pays_for_the_steps_that_it_alters_alone(model_of):
    """25 forwards and backwards of one row beside 100 guided rows, where diffusers' pipeline has 50 and 25."""
    model, rows = model_of("1"), []
    count = model.unet.register_forward_pre_hook(
        lambda unet, args: rows.append((torch.is_grad_enabled(), len(args[0])))
    )
    hook = AttendAndExcite(thresholds={}, size=(8, 8)).on(model, [PROMPT])
    try:
        walk(model, hook, [PROMPT], [0], Sampling("ddim", "leading", 50))
    finally:
        count.remove()
    assert rows.count((True, 1)) == 25 == hook.evaluations[0] and rows.count((False, 2)) == 50 and len(rows) == 75


def test_with_dnp_the_final_picture_alone_is_attended_to(model_of, latents_of):
    model = model_of("1")
    texts, negative = ["a red circle and a blue square"], "a dotted background"

    class Latent:
        def __getattr__(self, name):
            return getattr(model, name)

        def decode(self, latents):
            return list(latents)

    options = {"plain": CFG(7.5), "guidance": NegPrompt(5, evaluations=2), "sampling": EULER}
    recipe = DNP(Latent(), Fixed(negative), attend=HOW, **options)
    result = recipe(texts[0], 3)
    alone = DNP(Latent(), None, attend=HOW, **options)(texts[0], 3)
    plain = latents_of(model, CFG(7.5), {"prompt": texts}, [3], EULER)[0]
    assert torch.equal(result.plain, plain) and difference(alone.plain, plain) > 1e-3
    guided = NegPrompt(5, evaluations=2).wrap(model.denoiser)
    conditions = {"prompt": model.encode(texts), "negative": model.encode([negative])}
    hook = HOW.on(model, texts)
    expected = samplers.sample(
        guided, samplers.noise(model.shape, [3]), EULER.sigmas(model.denoiser), sampler="euler",
        extra_args=conditions, hook=hook,
    )  # fmt: skip
    assert torch.equal(result.dnp, expected[0])
    assert result.evaluations["dnp"] == 2 * STEPS + hook.evaluations[0]


def test_what_cannot_be_attended_to(model_of):
    model = model_of("1")
    for words, size, message in (
        (["dog"], (8, 8), "the word 'dog' is not in the prompt 'a red circle"),
        ([], (8, 8), "no word to attend to"),
        (None, (5, 5), "does not attend to the text at 5x5: for these latents there are 8x8, 4x4"),
    ):
        with pytest.raises(DNPError, match=message):
            AttendAndExcite(words, size=size).on(model, [PROMPT])
    for options, message in (
        ({"until": 2}, "until is a fraction from 0 to 1, not 2"),
        ({"step_size": math.nan}, "the step size is a positive number, not nan"),
        ({"thresholds": {0.5: 3}}, "the threshold at 0.5 is a fraction"),
    ):
        with pytest.raises(DNPError, match=message):
            AttendAndExcite(**options)
    hook = AttendAndExcite(size=(8, 8)).on(model, [PROMPT])
    with pytest.raises(samplers.SamplerError, match="chooses its own steps: no hook"):
        walk(model, hook, [PROMPT], [0], Sampling("dpm_adaptive", "leading", 4))
    weight = model.unet.conv_in.weight.data
    kept = weight.clone()
    weight.fill_(math.nan)
    try:
        with pytest.raises(DNPError, match="the gradient of the attention maps is not finite at sigma"):
            walk(model, hook, [PROMPT], [0])
    finally:
        weight.copy_(kept)
    assert all(not layer._forward_pre_hooks for layer in model.unet.modules())
