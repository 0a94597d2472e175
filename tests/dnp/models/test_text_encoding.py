"""Prompts of more tokens than a text encoder takes, against the pipelines given embeddings made by hand."""

import pytest
import torch
from diffusers import EulerDiscreteScheduler

import samplers
from dnp import Sampling
from guidance import CFG

WORDS = "a red balloon and a blue bowl on a white pink background and a apple "
LONG = WORDS * 7  # of a token for each of its 14 words


def by_hand(tokenizer, encoder, text, room, xl):
    """(1, tokens, width): `room` tokens at a time, each part filled up by the tokenizer itself."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    parts = []
    for start in range(0, len(ids), room):
        words = tokenizer.decode(ids[start : start + room])
        tokens = tokenizer(words, padding="max_length", max_length=room + 2, return_tensors="pt").input_ids
        assert tokens.shape == (1, room + 2) and tokens[0, 1].item() == ids[start]
        with torch.no_grad():
            found = encoder(tokens, output_hidden_states=True)
        parts.append((found.hidden_states[-2] if xl else found[0], found[0]))
    return torch.cat([hidden for hidden, _ in parts], 1), parts[0][1]


@pytest.mark.parametrize("family, room", [("1", 75), ("XL", 75), ("embedded", 22)])
def test_a_long_prompt_is_read_in_parts(model_of, pipeline_of, latents_of, family, room):
    model, pipeline = model_of(family), pipeline_of(family)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    names = ["", "_2"] if family == "XL" else [""]
    hands = [
        by_hand(getattr(pipeline, f"tokenizer{n}"), getattr(pipeline, f"text_encoder{n}"), LONG, room, family == "XL")
        for n in names
    ]
    long = torch.cat([hidden for hidden, _ in hands], -1)
    assert long.shape[1] > room + 2
    # Repeated, tokens change no attention: so the short empty prompt fits beside the long one in their one forward.
    found = model.encode([""])
    times = long.shape[1] // (room + 2)
    short = found["encoder_hidden_states"].repeat(1, times, 1)
    options = {"prompt_embeds": long, "negative_prompt_embeds": short, "guidance_scale": 4, "num_inference_steps": 3}
    if family == "XL":
        options |= {"pooled_prompt_embeds": hands[-1][1]}
        options |= {"negative_pooled_prompt_embeds": found["added_cond_kwargs"]["text_embeds"]}
    theirs = pipeline(**options, latents=samplers.noise(model.shape, [0]), output_type="latent").images
    ours = latents_of(model, CFG(4), {"prompt": [LONG]}, [0], Sampling("euler", "leading", 3))
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    cut = latents_of(model, CFG(4), {"prompt": [WORDS]}, [0], Sampling("euler", "leading", 3))
    assert (ours - cut).norm() > 1e-2 * cut.norm()


@pytest.mark.parametrize("family", ["2", "XL"])
def test_a_short_prompt_is_read_as_the_tokenizer_fills_it_up(model_of, family):
    texts = model_of(family).texts
    for i, tokenizer in enumerate(texts.tokenizers):
        for text in ("", "a cat", "cat " * 75):
            expected = tokenizer(text, padding="max_length", return_tensors="pt").input_ids
            assert torch.equal(texts.parts(text, i), expected)
    assert texts.parts("cat " * 76).shape == (2, 77)


def test_a_picture_does_not_depend_on_longer_prompts_beside_it(model_of, latents_of):
    model, sampling = model_of("XL"), Sampling("euler", "leading", 2)
    both = latents_of(model, CFG(4), {"prompt": [WORDS, LONG]}, [0, 1], sampling)
    for i, text in enumerate((WORDS, LONG)):
        (alone,) = latents_of(model, CFG(4), {"prompt": [text]}, [i], sampling)
        assert (both[i] - alone).norm() < 1e-4 * alone.norm()
