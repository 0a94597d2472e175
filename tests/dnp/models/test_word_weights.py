"""Weights of words, and the layer of the text encoder that is read."""

import pytest
import torch

from dnp.errors import DNPError
from dnp.models.word_weights import parse_weights


@pytest.mark.parametrize(
    "prompt, pieces",
    [
        ("a cat", [("a cat", 1)]),
        ("cat:1.2", [("cat:1.2", 1)]),
        (r"\(cat\)", [("(cat)", 1)]),
        ("(cat:1.0)", [("cat", 1)]),
        ("((cat))", [("cat", 1.21)]),
        ("(a (cat:1.5):1.2)", [("a ", 1.2), ("cat", 1.8)]),
        ("a (cat:0) on grass", [("a ", 1), ("cat", 0), (" on grass", 1)]),
        ("(a cat: tabby:0.5)", [("a cat: tabby", 0.5)]),
        (r"(a \(b\):2)", [("a (b)", 2)]),
        ("()", [("", 1)]),
    ],
)
def test_pieces(prompt, pieces):
    found = parse_weights(prompt)
    assert [text for text, _ in found] == [text for text, _ in pieces]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in pieces])


@pytest.mark.parametrize(
    "prompt, told",
    [
        ("(cat", r"'\(cat' does not close a bracket"),
        ("cat)", r"'cat\)' closes a bracket that it did not open"),
        ("(cat:nan)", "the weight 'nan' in"),
        ("(cat:inf)", "the weight 'inf' in"),
        ("(cat:-1)", "the weight '-1' in"),
        ("(cat:big)", "the weight 'big' in"),
    ],
)
def test_what_is_no_weight_is_one_line(prompt, told):
    with pytest.raises(DNPError, match=told) as error:
        parse_weights(prompt)
    assert "\n" not in str(error.value)


def encoded(model, prompt):
    found = model.encode([prompt])
    return found["encoder_hidden_states"][0], found.get("added_cond_kwargs", {}).get("text_embeds")


@pytest.mark.parametrize("family", ["1", "XL", "embedded"])
def test_weights_move_the_rows_away_from_the_empty_prompt_s(model_of, family):
    model = model_of(family)
    plain, pooled = encoded(model, "a cat on grass")
    for same in ("a (cat:1.0) on grass", "(a cat on grass:1)"):
        assert torch.equal(encoded(model, same)[0], plain)
    if family == "XL":  # whose empty prompt is zeros, but whose words are measured from the encoding of no words
        nothing = torch.cat(
            [
                model.texts._read(e, e(model.texts.parts("", i), output_hidden_states=True))[0]
                for i, e in enumerate(model.texts.encoders)
            ],
            -1,
        )
    else:
        nothing = encoded(model, "")[0]
    for text, weight in (("(cat:1.5)", 1.5), ("((cat))", 1.21), ("(cat:0)", 0)):
        rows, its_pooled = encoded(model, f"a {text} on grass")
        expected = plain.clone()
        expected[2] = nothing[2] + weight * (plain[2] - nothing[2])
        torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-6)
        if family == "XL":
            assert torch.equal(its_pooled, pooled)
            for half in (slice(0, 64), slice(64, None)):
                assert (rows[2, half] - plain[2, half]).abs().max() > 1e-3


def test_brackets_are_no_tokens(model_of):
    model = model_of("1")
    assert model.texts.count("a (big (cat:1.5):1.2)") == model.texts.count("a big cat")
    assert torch.equal(encoded(model, r"\(cat\)")[0], encoded(model, r"(\(cat\):1)")[0])
    assert not torch.equal(encoded(model, r"\(cat\)")[0], encoded(model, "cat")[0])


def test_clip_skip_is_the_pipeline_s(model_of, pipeline_of):
    ours = model_of("1", clip_skip=2)
    theirs = pipeline_of("1").encode_prompt("a cat", "cpu", 1, False, clip_skip=1)[0][0]
    torch.testing.assert_close(encoded(ours, "a cat")[0], theirs, rtol=1e-5, atol=1e-5)
    assert ours.options["clip_skip"] == 2
    first, again = (encoded(model_of("1", **k), "a cat")[0] for k in ({}, {"clip_skip": 1}))
    assert torch.equal(first, again) and (first - theirs).abs().max() > 1e-3


def test_a_layer_that_is_not_there_is_named(model_of):
    with pytest.raises(DNPError, match=r"clip skip is from 1 \(the last layer\) to 2 in this model, not 3"):
        model_of("1", clip_skip=3)
