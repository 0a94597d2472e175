"""The recipe is its parts, one after the other, and an image is its own whatever the batch."""

import math
from copy import copy as shallow
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

import samplers
from captioning import CaptionError, Fixed, Universal
from dnp import DNP, DNPError, Sampling, paint
from dnp.models.locate import EMBEDDED
from guidance import CFG, DNS, GuidanceError, NegPrompt, parse

PROMPTS = ["a red circle and a blue square", "a star", "a green heart on a plain gray background"]
SEEDS = [3, 1, 7]
CAPTIONS = ["a white cross", "a striped background", "a square and a circle"]


class Said:
    """A captioner that says what it is told to, and keeps the pictures that it was shown."""

    name = "said"

    def __init__(self, *texts):
        self.texts, self.shown = texts, []

    def __call__(self, images):
        self.shown += images
        return list(self.texts[: len(images)])


def same(a, b):
    return a.size == b.size and a.tobytes() == b.tobytes()


def recipe(model, captioner, **options):
    options = {
        "guidance": NegPrompt(3),
        "dns": DNS(1.5),
        "plain": CFG(3),
        "sampling": Sampling("euler", steps=3),
    } | options
    return DNP(model, captioner, **options)


def test_the_result_is_its_parts_called_by_hand(embedded):
    captioner = Said("a  'white' cross ")
    coarse = Sampling("dpmpp_2m", "leading", 2)
    result = recipe(embedded, captioner, dns_sampling=coarse)(PROMPTS[0], seed=5)
    noise = samplers.noise(embedded.shape, [5])
    conditions = {
        "prompt": embedded.encode([PROMPTS[0]]),
        "empty": embedded.encode([""]),
        "negative": embedded.encode([result.caption.used]),
    }

    def by_hand(guidance, sampling):
        sigmas = samplers.schedule(sampling.schedule, embedded.denoiser, sampling.steps)
        x = samplers.sample(
            guidance.wrap(embedded.denoiser), noise, sigmas, sampler=sampling.sampler, extra_args=conditions
        )
        return embedded.decode(x)[0]

    euler = Sampling("euler", "karras", 3)
    assert same(result.plain, by_hand(CFG(3), euler))
    assert same(result.dns, by_hand(DNS(1.5), coarse))
    assert same(result.dnp, by_hand(NegPrompt(3), euler))
    assert captioner.shown == [result.dns]
    assert (result.caption.raw, result.caption.used) == ("a  'white' cross ", "a 'white' cross")
    assert result.seconds.keys() == {"plain", "dns", "caption", "dnp"}


@pytest.mark.parametrize("guidance", [CFG(3), DNS(1.5), NegPrompt(3), NegPrompt(3, strength=0.5)], ids=repr)
def test_a_loop_written_out_gives_the_same(embedded, latents_of, guidance):
    """Each step to 1e-5. Over the walk a trained network amplifies what batches of different size round differently."""
    names = {"prompt": PROMPTS[0], "negative": CAPTIONS[0], "empty": ""}
    texts = {name: [text] for name, text in names.items() if name != "empty"}
    found = latents_of(embedded, guidance, texts, [2], Sampling("euler", "karras", 4))

    s, w = float(guidance.scale), {"CFG": 0, "DNS": 0}.get(type(guidance).__name__, 3)
    w = 0.5 if getattr(guidance, "strength", None) else w
    guided = guidance.wrap(embedded.denoiser)
    conditions = {name: embedded.encode([text]) for name, text in names.items()}
    sigmas = samplers.schedule("karras", embedded.denoiser, 4)
    x = samplers.noise(embedded.shape, [2]) * (1 + sigmas[0] ** 2) ** 0.5
    with torch.no_grad():
        for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
            p, n, u = (
                (x - embedded.denoiser(x, sigma[None], **conditions[name])) / sigma
                for name in ("prompt", "negative", "empty")
            )
            noise = u + s * (u - p) if isinstance(guidance, DNS) else u + s * (p - u) - w * (n - u)
            step = x + (after - sigma) / sigma * (x - guided(x, sigma[None], **conditions))
            x = x + (after - sigma) * noise
            assert (step - x).norm() < 1e-5 * x.norm()
    assert (found - x).norm() < 1e-2 * x.norm()


def test_evaluations_are_those_foretold(embedded):
    result = recipe(embedded, Said("a star"), dns_sampling=Sampling("heun", steps=3))(PROMPTS[0])
    sigmas = Sampling("euler", steps=3).sigmas(embedded.denoiser)
    assert result.evaluations["plain"] == CFG(3).cost(sigmas) == 6
    assert result.evaluations["dnp"] == NegPrompt(3).cost(sigmas) == 9
    # Heun calls twice a step but for the last, which ends in zero.
    assert result.evaluations["dns"] == 10


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun", "dpmpp_3m_sde"])
def test_a_picture_is_the_same_alone_and_in_a_batch(embedded, sampler):
    """Up to rounding, which differs in batches of different size: by one level of 256 in very few places."""
    sampling = Sampling(sampler, steps=2)
    together = recipe(embedded, Said(*CAPTIONS), sampling=sampling)(PROMPTS, SEEDS)
    for prompt, seed, caption, one in zip(PROMPTS, SEEDS, CAPTIONS, together, strict=True):
        alone = recipe(embedded, Said(caption), sampling=sampling)(prompt, seed=seed)
        assert alone.evaluations == one.evaluations
        for stage, image in alone.images.items():
            off = np.abs(np.asarray(image, int) - np.asarray(one.images[stage], int))
            assert off.max() <= 1 and (off > 0).mean() < 0.01


def test_a_caption_that_is_the_prompt_costs_nothing(embedded):
    result = recipe(embedded, Said(PROMPTS[0]))(PROMPTS[0])
    assert result.evaluations["dnp"] == 3  # u + s(p - p): u alone is left


def test_a_captioner_that_loses_count_is_named(embedded):
    with pytest.raises(CaptionError, match="gave 1 texts for 2 images"):
        recipe(embedded, Said("a star"))(PROMPTS[:2], SEEDS[:2])


@pytest.mark.parametrize("captioner", [Fixed("a star"), Universal(["a plain gray background"])], ids=repr)
def test_a_text_given_spares_the_diffusion_negative(embedded, captioner):
    result = recipe(embedded, captioner)(PROMPTS[0])
    assert result.dns is None and result.images.keys() == result.evaluations.keys() == {"plain", "dnp"}
    assert result.caption.used == captioner([None])[0]


def test_no_captioner_makes_the_plain_picture_only(embedded):
    result = recipe(embedded, None)(PROMPTS[0])
    assert result.images.keys() == {"plain"} and result.dnp is None and result.caption is None


class Denoiser(torch.nn.Module):
    """The exact denoiser of Gaussian data around a mean, one for each prompt; it has no weights at all."""

    sigma_min, sigma_max = 0.01, 10.0

    def forward(self, x, sigma, mean):
        sigma = sigma.view(-1, 1, 1, 1)
        return (0.25 * x + sigma**2 * mean) / (0.25 + sigma**2)


class Mine:
    """A model of one's own: no text encoder, no latents, gray pictures."""

    name, shape, denoiser = "mine", (1, 4, 4), Denoiser()

    def encode(self, prompts):
        return {"mean": torch.tensor([float(len(prompt)) / 10 for prompt in prompts]).view(-1, 1, 1, 1)}

    def decode(self, latents):
        return [Image.fromarray((z[0] * 20 + 128).clamp(0, 255).byte().numpy()) for z in latents]


def test_a_model_of_one_s_own():
    captioner = Said("nights", "noon and more")
    day, cat = DNP(Mine(), captioner, sampling=Sampling(steps=5))(["a day", "a cat"], [0, 1])
    assert day.images.keys() == {"plain", "dns", "dnp"} and day.evaluations == {"plain": 10, "dns": 10, "dnp": 15}
    assert not same(day.dnp, day.plain) and not same(day.plain, cat.plain)
    assert cat.caption.used == "noon and more"


def test_the_closed_form_for_gaussian_data(latents_of):
    # Guidance only moves the mean, and from there each Euler step shrinks the distance to it by a known factor.
    sigmas = samplers.schedule("karras", Denoiser(), 12)
    found = latents_of(
        Mine(), NegPrompt(3), {"prompt": ["a day"], "negative": ["night's"]}, [0], Sampling("euler", steps=12)
    )
    mean = 0 + 3 * (0.5 - 0.7)
    start = samplers.noise((1, 4, 4), [0]).double() * (1 + sigmas[0].double() ** 2) ** 0.5
    a, b = sigmas[:-1].double(), sigmas[1:].double()
    exact = mean + (start - mean) * (1 + (b - a) * a / (0.25 + a**2)).prod()
    assert (found - exact).norm() < 1e-5 * exact.norm()


@pytest.mark.parametrize("text", ["", " \n", "…"])
def test_an_empty_caption_is_refused(embedded, text):
    with pytest.raises(CaptionError, match="no words: write one"):
        recipe(embedded, Said(text))(PROMPTS[0])


def test_nan_names_the_prediction(embedded):
    broken = shallow(embedded)
    broken.denoiser = deepcopy(embedded.denoiser)
    with torch.no_grad():
        next(broken.denoiser.parameters()).fill_(math.nan)
    with pytest.raises(GuidanceError, match=r"prediction for .*prompt.* not finite at sigma .*check the model"):
        recipe(broken, None)(PROMPTS[0])


@pytest.mark.parametrize(
    "prompt, seed, message",
    [
        ("", 0, "the prompt is empty"),
        (["a star", " "], [0, 1], "the prompt is empty"),
        (["a star", "a cross"], [0], "2 prompts and 1 seed: give lists of the same length"),
        (["a star", "a cross"], 0, "2 prompts and 1 seed: "),
        ("a star", [0, 1], "1 prompt and 2 seeds: "),
    ],
)
def test_prompts_and_seeds_that_do_not_fit(embedded, prompt, seed, message):
    with pytest.raises(DNPError, match=message):
        recipe(embedded, None)(prompt, seed)


@pytest.mark.parametrize("stage", ["plain", "dns", "guidance"])
def test_a_missing_condition_is_found_before_anything_is_made(embedded, stage):
    with pytest.raises(DNPError, match="needs a text for 'other': there are prompt, empty"):
        recipe(embedded, None, **{stage: parse("u + 2*(p - ε(other))")})


def test_paint_names_what_is_missing(embedded):
    with pytest.raises(DNPError, match="needs a text for 'negative': there are empty, prompt"):
        paint(embedded, NegPrompt(3), {"prompt": ["a star"]}, [0], Sampling(steps=1))


@pytest.mark.parametrize("name", ["sampler", "schedule"])
def test_unknown_names(name):
    with pytest.raises(samplers.SamplerError, match=f"unknown {name} 'warp'.*known: "):
        Sampling(**{name: "warp"})


def test_the_embedded_model_is_where_it_is_said_to_be(embedded):
    assert embedded.name == "embedded" and embedded.folder == EMBEDDED


def test_guidances_may_be_texts(embedded):
    written = recipe(embedded, Fixed("a star"), guidance="u + 3*(p - n)", dns="DNS(2)", plain="CFG(2)")
    assert (written.guidance, written.dns, written.plain) == (NegPrompt(3, evaluations=3), DNS(2), CFG(2))
    with pytest.raises(GuidanceError, match="cannot read 'u . p'"):
        recipe(embedded, None, plain="u + p")


def test_one_text_and_one_seed_may_stand_alone(embedded):
    walk = Sampling("euler", steps=1)
    (alone,), _ = paint(embedded, "CFG(3)", {"prompt": "a star"}, np.int64(4), walk)
    (listed,), _ = paint(embedded, CFG(3), {"prompt": ["a star"]}, [4], walk)
    assert same(alone, listed)
    both, _ = paint(embedded, "CFG(3)", {"prompt": "a star"}, [4, 5], walk)
    assert len(both) == 2 and not same(*both)


def test_a_captioner_that_is_a_text(embedded):
    with pytest.raises(DNPError, match="the captioner 'a star' is a text: give captioning.Transformers"):
        DNP(embedded, "a star")


@pytest.mark.parametrize("steps", [0, 1_000_000])
def test_steps_that_nobody_means(steps):
    with pytest.raises(DNPError, match="give one from 1 to 10,000"):
        Sampling(steps=steps)
