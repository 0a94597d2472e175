"""Normalised attention guidance, structured diffusion guidance and SynGen, against computations by hand."""

import pytest
import torch
import torch.nn.functional as F

import samplers
from dnp import DNPError, Sampling
from dnp.attention.maps import capture
from dnp.attention.nag import NAG
from dnp.attention.structured import structured
from dnp.attention.syngen import SynGen, colour_pairs, read_pairs, spacy_pairs
from dnp.attention.words import Words
from guidance import CFG, NegPrompt

PROMPTS, NEGATIVES = ["a red balloon and a blue bowl", "a pink apple"], ["a white background", "a cat"]


def difference(a, b):
    return ((a - b).norm() / b.norm()).item()


def some(model):
    torch.manual_seed(0)
    return torch.randn(2, *model.shape), torch.tensor([3.0, 0.5])


class Layers:
    """Cross-attention by hand, in the place of diffusers' processors."""

    def __init__(self, read):
        self.read = read

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        out = self.read(attn, hidden_states, encoder_hidden_states)
        return attn.to_out[0](out)


def attention(attn, hidden, keys, values):
    q, k, v = (
        x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        for x in (attn.to_q(hidden), attn.to_k(keys), attn.to_v(values))
    )
    return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(-2)


def replaced(model, read, x, sigma, condition):
    before = model.unet.attn_processors
    model.unet.set_attn_processor(
        {name: Layers(read) if "attn2" in name else processor for name, processor in before.items()}
    )
    try:
        return model.denoiser(x, sigma, **condition)
    finally:
        model.unet.set_attn_processor(before)


@pytest.mark.parametrize("family", ["1", "2", "XL"])
def test_nag_equals_a_loop_by_hand(family, model_of):
    model = model_of(family)
    x, sigma = some(model)
    positive, negative = model.encode(PROMPTS), model.encode(NEGATIVES)

    def read(attn, hidden, text):
        far = negative["encoder_hidden_states"]
        plus, minus = attention(attn, hidden, text, text), attention(attn, hidden, far, far)
        guided = 5 * plus - 4 * minus  # as the published codes have it
        ratio = guided.norm(p=1, dim=-1, keepdim=True) / plus.norm(p=1, dim=-1, keepdim=True)
        return 0.25 * guided * ratio.clamp(max=1.5) / ratio + 0.75 * plus

    how = NAG(4, tau=1.5, alpha=0.25)
    expected = replaced(model, read, x, sigma, positive)
    found = model.denoiser(x, sigma, **how.condition(positive, negative))
    assert difference(found, expected) < 1e-5
    plain = model.denoiser(x, sigma, **positive)
    assert difference(found, plain) > 1e-4
    assert difference(model.denoiser(x, sigma, **NAG(0).condition(positive, negative)), plain) < 1e-5
    one = model.denoiser(x[1:], sigma[1:], **how.condition(model.encode(PROMPTS[1:]), model.encode(NEGATIVES[1:])))
    assert difference(one, found[1:]) < 1e-5


def test_nag_is_a_condition_of_any_guidance_with_no_evaluation_more(model_of):
    model = model_of("1")
    condition = NAG().condition(model.encode(PROMPTS), model.encode(NEGATIVES))
    guided = CFG(1).wrap(model.denoiser)
    walk = Sampling("euler", "leading", 3)
    noise = samplers.noise(model.shape, [0, 1])
    options = {"extra_args": {"prompt": condition}, "sampler": "euler"}
    found = samplers.sample(guided, noise, walk.sigmas(model.denoiser), **options)
    assert guided.evaluations == 3 and found.isfinite().all()
    with pytest.raises(DNPError, match="alpha is a number from 0 to 1, not 2"):
        NAG(alpha=2)


@pytest.mark.parametrize("family", ["1", "XL"])
def test_structured_diffusion_equals_the_mean_over_phrases(family, model_of):
    model = model_of(family)
    x, sigma = some(model)
    condition = model.encode(PROMPTS)
    whole = condition["encoder_hidden_states"]
    parts = [["a red balloon", "a blue bowl"], ["a pink apple"]]
    written = []
    for row, phrases, prompt in zip(whole, parts, PROMPTS, strict=True):
        several = [row]
        for phrase in phrases:
            alone = model.encode([phrase])["encoder_hidden_states"][0]
            start = 1 + len(model.tokenizer(prompt[: prompt.index(phrase)], add_special_tokens=False).input_ids)
            count = len(model.tokenizer(phrase, add_special_tokens=False).input_ids)
            copy = row.clone()
            copy[start : start + count] = alone[1 : 1 + count]
            several.append(copy)
        written.append(several)

    def read(attn, hidden, text):
        rows = []
        for i, several in enumerate(written):
            each = [attention(attn, hidden[i : i + 1], text[i : i + 1], values[None]) for values in several]
            rows.append(torch.stack(each).mean(0))
        return torch.cat(rows)

    expected = replaced(model, read, x, sigma, condition)
    for phrases in (None, parts):
        assert difference(model.denoiser(x, sigma, **structured(model, PROMPTS, phrases)), expected) < 1e-5
    assert difference(expected, model.denoiser(x, sigma, **condition)) > 1e-4
    with pytest.raises(DNPError, match="'a green apple' is not in the prompt"):
        structured(model, PROMPTS[1:], [["a green apple"]])


def test_structured_diffusion_in_parts_of_a_long_prompt(model_of):
    model = model_of("1")
    prompts = ["a " + "very " * 80 + "big car and a red clock", "a pink apple"]
    condition = structured(model, prompts)
    values, whole = condition["attention"]["values"], condition["encoder_hidden_states"]
    alone = structured(model, prompts[1:])["attention"]["values"]
    assert torch.allclose(values[1], alone[0].repeat(2, 1), atol=1e-6)
    changed = ((values[0] - whole[0]).abs().amax(-1) > 1e-6).nonzero().flatten().tolist()
    columns = Words(model.texts, prompts[0]).columns(Words(model.texts, prompts[0]).tokens("red clock"))
    assert {*columns} <= {*changed} and min(changed) > 0


def test_syngen_s_loss_equals_a_computation_by_hand(model_of):
    model = model_of("1")
    x, sigma = some(model)
    hook = SynGen(size=(8, 8)).on(model, ["a red balloon and a blue bowl", "a pink apple with a red balloon"])
    with capture(model.unet, (8, 8), (8, 8)) as maps:
        model.denoiser(x, sigma, **hook.condition)
    found = hook.loss(maps)
    # BOS a red balloon and a blue bowl; BOS a pink apple with a red balloon
    for sample, count, pairs in ((0, 7, [(1, 2), (5, 6)]), (1, 7, [(1, 2), (5, 6)])):
        if (
            len(
                model.tokenizer(
                    ["a red balloon and a blue bowl", "a pink apple with a red balloon"][sample],
                    add_special_tokens=False,
                ).input_ids
            )
            != count
        ):
            pytest.skip("the tokenizer has these words in parts")
        maps_of = maps.mean[sample][:, 1 : 1 + count]
        maps_of = maps_of / maps_of.sum(0)

        def d(a, b, maps_of=maps_of):
            one, other = maps_of[:, a], maps_of[:, b]
            return 0.5 * (F.kl_div(one.log(), other, reduction="sum") + F.kl_div(other.log(), one, reduction="sum"))

        expected = 0
        for m, n in pairs:
            outside = [u for u in range(count) if u not in (m, n)]
            expected += d(m, n) - 0.5 * sum(d(n, u) + d(m, u) for u in outside) / len(outside)
        assert abs(found[sample] - expected) < 1e-7 + 1e-5 * abs(expected)


def test_syngen_goes_down_its_loss_alone_and_with_dnp(model_of):
    model, walk = model_of("1"), Sampling("euler", "leading", 4)
    texts = ["a red balloon and a blue bowl"]
    conditions = {"prompt": model.encode(texts), "negative": model.encode(NEGATIVES[:1]), "empty": model.encode([""])}
    for guidance in (CFG(5), NegPrompt(5, evaluations=2)):
        found = []
        for hook in (None, SynGen([("red", "balloon")], size=(8, 8)).on(model, texts)):
            guided, noise = guidance.wrap(model.denoiser), samplers.noise(model.shape, [0])
            args = {name: conditions[name] for name in guidance.names}
            options = {"extra_args": args, "sampler": "euler", "hook": hook}
            found.append(samplers.sample(guided, noise, walk.sigmas(model.denoiser), **options))
        assert hook.evaluations == [2] and difference(*found) > 1e-4
    x, sigma = some(model)
    hook = SynGen(size=(8, 8), step_size=0.01).on(model, texts)
    step = samplers.Step(0, 4, 3.0, 1.0, x[:1])
    losses = []
    for state in (x[:1], hook(step)):
        with capture(model.unet, (8, 8), (8, 8)) as maps:
            model.denoiser(state, sigma[:1], **hook.condition)
        losses.append(hook.loss(maps).item())
    assert losses[1] < losses[0]


def test_pairs(model_of):
    assert colour_pairs("a red car and a white clock") == [("red", "car"), ("white", "clock")]
    assert colour_pairs("A red, big car and the blue sky") == [("blue", "sky")]
    assert colour_pairs("a red cat and a red dog") == [("red#1", "cat"), ("red#2", "dog")]
    for prompt in ("a cat and a dog", "red car", "a big red car"):
        with pytest.raises(DNPError, match='no "a COLOUR NOUN" in the prompt'):
            colour_pairs(prompt)
    with pytest.raises(DNPError, match="the word 'green' is not in the prompt"):
        SynGen([("green", "apple")], size=(8, 8)).on(model_of("1"), PROMPTS[1:])
    assert read_pairs("red:car, white :clock#2") == [("red", "car"), ("white", "clock#2")]
    for text in ("red", "red:", "a:b:c", "red:car,"):
        with pytest.raises(DNPError, match="is no pair of a modifier and its noun: write red:car"):
            read_pairs(text)
    with pytest.raises(DNPError, match="the spaCy model 'none' is not installed"):
        spacy_pairs("a red car", "none")
