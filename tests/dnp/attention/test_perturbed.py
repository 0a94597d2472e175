"""Perturbed networks against diffusers' pipeline of PAG and computations by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, StableDiffusionPAGPipeline

import samplers
from dnp import DNPError, Sampling, paint
from dnp.attention.perturbed import PERTURBED, Blur, Identity, Shuffle, Skip, blur, together
from guidance import CFG, DNS, parse, prediction

PROMPT, SEEDS, DDIM = "a red circle and a blue square", [3, 4], Sampling("ddim", "leading", 4)
p = prediction("prompt")


def difference(a, b):
    return ((a - b).norm() / b.norm()).item()


def some(model, size=None):
    torch.manual_seed(0)
    return torch.randn(2, 4, *(size or model.shape[1:])), torch.tensor([3.0, 0.5])


@pytest.mark.parametrize("family, layers", [("1", ["mid"]), ("1", ["down_blocks.0", "mid"]), ("embedded", ["mid"])])
def test_latents_equal_the_pag_pipeline_s(family, layers, model_of, pipeline_of, latents_of):
    pipeline = pipeline_of(family, StableDiffusionPAGPipeline, pag_applied_layers=layers)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    model = model_of(family)
    expected = pipeline(
        [PROMPT] * 2, num_inference_steps=4, guidance_scale=5, pag_scale=3, output_type="latent",
        latents=samplers.noise(model.shape, SEEDS),
    ).images  # fmt: skip
    change = Identity(layers=tuple("mid_block" if layer == "mid" else layer for layer in layers))
    guidance = CFG(5) + 3 * (p - prediction("perturbed"))
    conditions = {"prompt": model.encode([PROMPT] * 2), "empty": model.encode([""] * 2)}
    conditions["perturbed"] = {**conditions["prompt"], "attention": change}
    guided = guidance.wrap(model.denoiser)
    for each, forwards in ((conditions, 8), (together(conditions), 4)):
        guided.reset()
        found = samplers.sample(
            guided, samplers.noise(model.shape, SEEDS), DDIM.sigmas(model.denoiser), sampler="ddim", extra_args=each
        )
        assert difference(found, expected) < 1e-5
        assert (guided.evaluations, guided.forwards) == (12, forwards)
    plain = latents_of(model, CFG(5), {"prompt": [PROMPT] * 2}, SEEDS, DDIM)
    assert difference(expected, plain) > 1e-3


def test_a_formula_names_a_perturbation(model_of, latents_of):
    model = model_of("1")
    found = latents_of(model, parse("CFG(5) + 3*(p - ε(identity))"), {"prompt": [PROMPT]}, [3], DDIM)
    conditions = {"prompt": model.encode([PROMPT]), "empty": model.encode([""])}
    conditions["perturbed"] = {**conditions["prompt"], "attention": Identity()}
    guided = (CFG(5) + 3 * (p - prediction("perturbed"))).wrap(model.denoiser)
    noise = samplers.noise(model.shape, [3])
    expected = samplers.sample(guided, noise, DDIM.sigmas(model.denoiser), sampler="ddim", extra_args=conditions)
    assert torch.equal(found, expected)
    # As a direction it goes with every guidance
    dns = latents_of(model, DNS(2) + 2 * (p - prediction("skip")), {"prompt": [PROMPT]}, [3], DDIM)
    assert difference(dns, latents_of(model, DNS(2), {"prompt": [PROMPT]}, [3], DDIM)) > 1e-3


@pytest.mark.parametrize("family", ["1", "2", "XL"])
@pytest.mark.parametrize("name", PERTURBED)
def test_the_rows_that_are_not_perturbed_stay(family, name, model_of):
    model = model_of(family)
    x, sigma = some(model)
    condition = model.encode([PROMPT] * 2)
    plain = model.denoiser(x, sigma, **condition)
    whole = model.denoiser(x, sigma, **condition, attention=name)
    half = {"change": PERTURBED[name], "rows": torch.tensor([False, True])}
    part = model.denoiser(x, sigma, **condition, attention=half)
    assert difference(part[:1], plain[:1]) < 1e-6 and difference(part[1:], whole[1:]) < 1e-6
    assert difference(whole, plain) > 1e-4
    assert torch.equal(model.denoiser(x, sigma, **condition), plain)
    assert all(not layer._forward_hooks and not layer._forward_pre_hooks for layer in model.unet.modules())


def by_hand(planes, sigma):
    """A Gaussian over a reflected map, point by point."""
    if math.isinf(sigma):
        return planes.mean((-2, -1), keepdim=True) + 0 * planes
    for axis in (-2, -1):
        side = planes.shape[axis]
        reach = min(math.ceil(6 * sigma) // 2, side // 2)
        weights = [math.exp(-0.5 * (d / sigma) ** 2) for d in range(-reach, reach + 1)]
        matrix = torch.zeros(side, side)
        for i in range(side):
            for d, weight in zip(range(-reach, reach + 1), weights, strict=True):
                j = abs(i + d)
                matrix[i, j if j < side else 2 * (side - 1) - j] += weight / sum(weights)
        planes = (planes.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return planes


def test_blurs_equal_a_gaussian_by_hand():
    torch.manual_seed(1)
    planes = torch.randn(2, 3, 16, 24)
    found = {sigma: blur(planes, sigma) for sigma in (1e-3, 1.0, 10.0, math.inf)}
    assert (found[1e-3] - planes).abs().max() < 1e-6
    for sigma, blurred in found.items():
        assert (blurred - by_hand(planes, sigma)).abs().max() < 1e-5
        assert (blur(planes.mT, sigma).mT - blurred).abs().max() < 1e-6
    several = [found[sigma] for sigma in (1.0, 10.0, math.inf)]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(several) for b in several[:i])


def test_queries_are_blurred_in_the_network(model_of):
    model = model_of("1")
    for size in ((16, 24), (8, 8)):
        x, sigma = some(model, size)
        condition = model.encode([PROMPT] * 2)
        plain = model.denoiser(x, sigma, **condition)
        seen = []
        attn = model.unet.mid_block.attentions[0].transformer_blocks[0].attn1
        watch = attn.to_q.register_forward_hook(lambda layer, args, q, seen=seen: seen.append(q))
        assert difference(model.denoiser(x, sigma, **condition, attention=Blur(sigma=1e-3)), plain) < 1e-6
        found = [model.denoiser(x, sigma, **condition, attention=Blur(sigma=s)) for s in (1.0, 10.0, math.inf)]
        watch.remove()
        assert min(difference(a, plain) for a in found) > 1e-5 and difference(found[1], found[2]) > 1e-6
        # The watch is older than the blur and sees what goes into it: the same at each σ
        assert all(torch.allclose(q, seen[0], atol=1e-5) for q in seen)


def test_what_each_does_to_a_block(model_of):
    model = model_of("1")
    block = model.unet.mid_block.attentions[0].transformer_blocks[0]
    x, sigma = some(model)
    condition = model.encode([PROMPT] * 2)
    seen = {}
    watches = [
        block.attn1.register_forward_hook(
            lambda layer, args, kwargs, out: seen.update(self=(args[0], out)), with_kwargs=True
        ),
        model.unet.mid_block.attentions[0].proj_out.register_forward_pre_hook(
            lambda layer, args: seen.update(out=args[0])
        ),
        model.unet.mid_block.attentions[0].norm.register_forward_hook(lambda layer, args, out: seen.update(norm=out)),
    ]
    with torch.no_grad():
        model.denoiser(x, sigma, **condition, attention="identity")
        hidden, out = seen["self"]
        attn = block.attn1
        assert torch.allclose(out, F.linear(attn.to_v(hidden), attn.to_out[0].weight, attn.to_out[0].bias), atol=1e-6)
        model.denoiser(x, sigma, **condition)
        straight = seen["self"][0]
        model.denoiser(x, sigma, **condition, attention=Shuffle(seed=1))
        shuffled = seen["self"][0]
        order = torch.randperm(straight.shape[1], generator=torch.Generator().manual_seed(1000))
        assert torch.allclose(shuffled, straight[:, order], atol=1e-6) and not torch.equal(shuffled, straight)
        seen.clear()
        model.denoiser(x, sigma, **condition, attention="skip")
        projected = model.unet.mid_block.attentions[0].proj_in(seen["norm"])
        assert torch.allclose(seen["out"], projected, atol=1e-6)
    for watch in watches:
        watch.remove()


def test_what_cannot_be_perturbed(model_of):
    model = model_of("1")
    x, sigma = some(model)
    condition = model.encode([PROMPT] * 2)
    for attention, message in (
        ("identy", "attention='identy' is none of identity, blur, skip, shuffle"),
        (Identity(layers=("mid",)), "the network has no layer 'mid': there are down_blocks.0.attentions.0.transf"),
        ({"change": 3}, "attention=3 is none of"),
    ):
        with pytest.raises(DNPError, match=message):
            model.denoiser(x, sigma, **condition, attention=attention)
    with pytest.raises(DNPError, match="a positive number or inf, not 0"):
        Blur(sigma=0)
    with pytest.raises(DNPError, match="one batch takes one perturbation: here there are 2"):
        together(
            {"a": {**condition, "attention": "skip"}, "b": {**condition, "attention": Skip(layers=("up_blocks.1",))}}
        )
    with pytest.raises(DNPError, match="needs a text for 'other'"):
        paint(model, CFG(2) + 2 * (p - prediction("other")), {"prompt": [PROMPT]}, [0], DDIM)
    assert all(not layer._forward_hooks and not layer._forward_pre_hooks for layer in model.unet.modules())
