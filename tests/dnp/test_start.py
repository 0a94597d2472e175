"""Walks that start at a picture equal those of diffusers' pipelines, and the recipe starts all its walks there."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from PIL import Image

import samplers
from captioning import Fixed
from dnp import DNP, DNPError, Sampling, paint
from guidance import CFG, NegPrompt

PROMPT, SEEDS, STEPS, SHARE = "a red balloon", [3, 5], 6, 0.7
SCHEDULERS = {"euler": EulerDiscreteScheduler, "ddim": DDIMScheduler}


def drawn(size, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def blotches(size):
    """A mask of grays that does not keep to the squares of the latents."""
    return drawn((3, 3), seed=4).convert("L").resize(size, Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def theirs_of(pipeline_of, model_of):
    """Latents of a pipeline whose autoencoder says its mode, which leaves the noise of the seeds as it is."""

    def theirs_of(family, kind, sampler, **options):
        pipeline = pipeline_of(family, kind)
        pipeline.scheduler = SCHEDULERS[sampler].from_config(pipeline.scheduler.config, timestep_spacing="leading")
        encode = pipeline.vae.encode
        pipeline.vae.encode = lambda x, **_: SimpleNamespace(latents=encode(x).latent_dist.mode())
        generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        common = {"guidance_scale": 7.5, "strength": SHARE, "num_inference_steps": STEPS, "output_type": "latent"}
        return pipeline([PROMPT] * 2, generator=generators, **common, **options).images

    return theirs_of


def ours_of(latents_of, model, sampler, **start):
    sampling = Sampling(sampler, "leading", STEPS)
    return latents_of(model, CFG(7.5), {"prompt": PROMPT}, SEEDS, sampling, denoise=SHARE, **start)


@pytest.mark.parametrize("sampler", SCHEDULERS)
@pytest.mark.parametrize("family", ["1", "2"])
def test_image_to_image_equals_the_pipeline_s(model_of, latents_of, theirs_of, family, sampler):
    model = model_of(family)
    pictures = [drawn((model.width, model.height), seed) for seed in range(2)]
    theirs = theirs_of(family, StableDiffusionImg2ImgPipeline, sampler, image=pictures)
    ours = ours_of(latents_of, model, sampler, init=pictures)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    alone = ours_of(latents_of, model, sampler, init=pictures[0])
    assert (alone[0] - theirs[0]).norm() < 1e-4 * theirs[0].norm()  # one picture is that of all seeds
    assert (alone[1] - theirs[1]).norm() > 1e-2 * theirs[1].norm()


@pytest.mark.parametrize("family", ["1", "2"])
def test_inpainting_equals_the_pipeline_s(model_of, latents_of, theirs_of, family):
    model = model_of(family)
    size = model.width * 2, model.height * 2  # which are resized
    init, mask = drawn(size), blotches(size)
    common = {"width": model.width, "height": model.height}
    theirs = theirs_of(family, StableDiffusionInpaintPipeline, "euler", image=init, mask_image=mask, **common)
    ours = ours_of(latents_of, model, "euler", init=init, mask=mask)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    kept = (ours - model.encode_image(init)).abs().amax((0, 1)) < 1e-5
    assert 0.1 < kept.float().mean() < 0.9


class Encoding:
    """A model of one's own that takes pictures: gray, a pixel for each latent."""

    name, shape = "encoding", (1, 4, 4)

    class denoiser(torch.nn.Module):  # noqa: N801
        sigma_min, sigma_max = 0.01, 10.0

        def forward(self, x, sigma, mean):
            return (0.25 * x + sigma.view(-1, 1, 1, 1) ** 2 * mean) / (0.25 + sigma.view(-1, 1, 1, 1) ** 2)

    def __init__(self):
        self.denoiser = self.denoiser()

    def encode(self, prompts):
        return {"mean": torch.tensor([len(prompt) / 10 for prompt in prompts]).view(-1, 1, 1, 1)}

    def decode(self, latents):
        return [Image.fromarray((z[0] * 20 + 128).clamp(0, 255).round().byte().numpy()) for z in latents]

    def encode_image(self, pictures):
        return torch.stack([(torch.from_numpy(np.array(p.convert("L"), np.float32)) - 128) / 20 for p in pictures])[
            :, None
        ]


def levels(image):
    return np.asarray(image, int)


def test_all_walks_of_the_recipe_start_at_the_picture():
    model, shown = Encoding(), []
    init = Image.fromarray(np.random.default_rng(1).integers(90, 160, (4, 4), dtype=np.uint8))
    mask = Image.fromarray(np.uint8([[255, 255, 0, 0]] * 4))

    def say(pictures):
        shown.extend(pictures)
        return ["night and more"] * len(pictures)

    say.name = "said"
    walk = Sampling("euler", steps=5)
    options = {"sampling": walk, "init": init, "mask": mask, "denoise": 0.6}
    result = DNP(model, say, **options)("a day", seed=2)
    assert shown == [result.dns] and result.evaluations == {"plain": 6, "dns": 6, "dnp": 9}  # of 3 steps
    for image in result.images.values():
        assert (levels(image)[:, 2:] == levels(init)[:, 2:]).all()
        assert (levels(image)[:, :2] != levels(init)[:, :2]).any()
    # And each is the closed form of Euler's steps towards the mean from the same noised picture
    sigmas = walk.sigmas(model.denoiser)[2:].double()
    noised = model.encode_image([init]).double() + sigmas[0] * samplers.noise(model.shape, [2]).double()
    a, b = sigmas[:-1], sigmas[1:]
    shrunk = (1 + (b - a) * a / (0.25 + a**2)).prod()
    for stage, mean in (("plain", 7.5 * 0.5), ("dns", -7.5 * 0.5), ("dnp", 7.5 * 0.5 - 7.5 * 1.4)):
        (expected,) = model.decode(mean + (noised - mean)[0][None] * shrunk)
        assert np.abs(levels(result.images[stage]) - levels(expected))[:, :2].max() <= 1


def test_the_default_share_is_three_quarters():
    init, walk = Image.new("L", (4, 4), 99), Sampling("euler", steps=8)
    _, evaluations = paint(Encoding(), CFG(3), {"prompt": "a day"}, 0, walk, init=init)
    assert evaluations == 2 * 6


@pytest.mark.parametrize(
    "start, message",
    [
        ({"mask": (4, 4)}, "mask is for a picture to start at: give init, too"),
        ({"denoise": 0.5}, "denoise is for a picture to start at: give init, too"),
        ({"init": (4, 4), "mask": (4, 5)}, "the mask is 4x5, the picture to start at 4x4: give a mask of the same"),
        ({"init": (4, 4), "denoise": 0}, "denoise is 0: give the share of the steps, above 0 and at most 1"),
        ({"init": (4, 4), "denoise": 1.5}, "denoise is 1.5: give the share"),
        ({"init": (4, 4), "denoise": float("nan")}, "denoise is nan: give the share"),
        ({"init": (4, 4), "denoise": "half"}, "denoise is 'half': give the share"),
        ({"init": "cat.png"}, "'cat.png' is no picture: give PIL images"),
        ({"init": [(4, 4)] * 3}, "3 pictures to start at and 1 seed: give one picture, or one for each seed"),
        ({"init": (4, 4), "mask": (4, 4)}, "the mask has no white at the size of the latents"),
        ({"init": (4, 4), "denoise": 0.1}, "0.1 of 4 steps is no step"),
    ],
)
def test_what_cannot_be_used_is_named(start, message):
    def made(value):
        if isinstance(value, list):
            return [made(one) for one in value]
        return Image.new("L", value) if isinstance(value, tuple) else value

    start = {name: made(value) for name, value in start.items()}
    with pytest.raises(ValueError, match=message):
        paint(Encoding(), CFG(3), {"prompt": "a day"}, 0, Sampling(steps=4), **start)
    with pytest.raises(ValueError, match=message):
        DNP(Encoding(), None, sampling=Sampling(steps=4), **start)("a day")


def test_a_model_that_reads_no_pictures():
    class Blind(Encoding):
        encode_image = property()

    with pytest.raises(DNPError, match="the model encoding has no encode_image to start at a picture"):
        DNP(Blind(), None, init=Image.new("L", (4, 4)))


def test_steps_to_caption_at_are_those_that_are_walked():
    options = {"sampling": Sampling(steps=8), "init": Image.new("L", (4, 4)), "denoise": 0.5}
    with pytest.raises(DNPError, match="there is no step 4 to caption at: the steps go from 0 to 3"):
        DNP(Encoding(), Fixed("night"), NegPrompt(3), at=[4], **options)
