"""Words of learned vectors, against diffusers' pipelines with the same ones loaded."""

import pytest
import torch
from safetensors.torch import save_file

from dnp import DNPError
from dnp.models.stable_diffusion import StableDiffusion


def vectors(n, width, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def test_sd_1_equals_the_pipeline_s(checkpoint, pipeline_of, model_of, tmp_path):
    save_file({"emb_params": vectors(3, 64)}, tmp_path / "zork.safetensors")
    save_file({"<one>": vectors(1, 64, 1)[0]}, tmp_path / "learned_embeds.safetensors")
    files = [str(tmp_path / "zork.safetensors"), str(tmp_path / "learned_embeds.safetensors")]
    model, pipeline = StableDiffusion(str(checkpoint("1")), "cpu", embeddings=files), pipeline_of("1")
    pipeline.load_textual_inversion(vectors(3, 64), token="zork")
    pipeline.load_textual_inversion({"<one>": vectors(1, 64, 1)[0]})
    plain = model_of("1")
    for text in ("a red zork, and a cat", "<one> of zork", "a cat"):
        theirs, _ = pipeline.encode_prompt(text, "cpu", 1, False)
        ours = model.encode(text)["encoder_hidden_states"]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        changed = (ours - plain.encode(text)["encoder_hidden_states"]).norm()
        assert changed == 0 if text == "a cat" else changed > 0.1 * theirs.norm()
    # whole words, in upper and lower case
    same, other = (model.encode(["a Zork cat", "a zorkish cat"])["encoder_hidden_states"][i] for i in (0, 1))
    assert torch.equal(same, model.encode("a zork cat")["encoder_hidden_states"][0])
    assert torch.equal(other, plain.encode("a zorkish cat")["encoder_hidden_states"][0])
    assert model.texts.count("a zork cat") == (5, 75)  # a, three vectors, cat
    assert [(r["file"], r["word"], r["vectors"]) for r in model.options["embeddings"]] == [
        ("zork.safetensors", "zork", 3),
        ("learned_embeds.safetensors", "<one>", 1),
    ]


def test_xl_equals_the_pipeline_s_and_pools_at_the_end(checkpoint, pipeline_of, tmp_path):
    tables = {"clip_l": vectors(2, 64), "clip_g": vectors(2, 128, 1)}
    save_file(tables, tmp_path / "zork.safetensors")
    model, pipeline = (
        StableDiffusion(str(checkpoint("XL")), "cpu", embeddings=[str(tmp_path / "zork.safetensors")]),
        pipeline_of("XL"),
    )
    for name, suffix in (("clip_l", ""), ("clip_g", "_2")):
        parts = {key: getattr(pipeline, f"{key}{suffix}") for key in ("tokenizer", "text_encoder")}
        pipeline.load_textual_inversion(tables[name], token="zork", **parts)
    theirs, _, pooled, _ = pipeline.encode_prompt("a zork cat", device="cpu", do_classifier_free_guidance=False)
    ours = model.encode("a zork cat")
    torch.testing.assert_close(ours["encoder_hidden_states"], theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours["added_cond_kwargs"]["text_embeds"], pooled, rtol=1e-5, atol=1e-5)
    # As older configurations have it, which look for the end token by its being the largest
    model.texts.encoders[1].text_model.eos_token_id = 2
    model.texts.forget()
    again = model.encode("a zork cat")["added_cond_kwargs"]["text_embeds"]
    assert torch.equal(again, ours["added_cond_kwargs"]["text_embeds"])


def test_a_pickle_only_if_allowed(checkpoint, tmp_path):
    path = tmp_path / "zork.pt"
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": vectors(2, 64)}, "name": "other"}, path)
    save_file({"emb_params": vectors(2, 64)}, tmp_path / "zork.safetensors")
    with pytest.raises(DNPError, match="is a pickle, which can run any code when loaded: convert it"):
        StableDiffusion(str(checkpoint("1")), "cpu", embeddings=[str(path)])
    first, second = (
        StableDiffusion(str(checkpoint("1")), "cpu", embeddings=[str(file)], allow_pickle=True).encode("a zork")
        for file in (path, tmp_path / "zork.safetensors")
    )
    assert torch.equal(first["encoder_hidden_states"], second["encoder_hidden_states"])


@pytest.mark.parametrize(
    "held, message",
    [
        ({"emb_params": vectors(2, 65)}, "is for another model: its vectors have the shape (2, 65)"),
        ({"clip_l": vectors(2, 64), "clip_g": vectors(2, 128)}, "is for XL, the model is not"),
        ({"a": vectors(2, 64), "b": vectors(2, 64)}, "is no textual inversion of Stable Diffusion: it holds a, b"),
        ({"emb_params": vectors(2, 64) * float("nan")}, "has numbers that are not finite"),
    ],
)
def test_what_cannot_be_a_word(held, message, checkpoint, tmp_path):
    save_file(held, tmp_path / "zork.safetensors")
    with pytest.raises(DNPError) as caught:
        StableDiffusion(str(checkpoint("1")), "cpu", embeddings=[str(tmp_path / "zork.safetensors")])
    assert message in str(caught.value) and "\n" not in str(caught.value)
