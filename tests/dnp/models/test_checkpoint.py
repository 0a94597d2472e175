"""Directories that are no usable model: each is refused in one line that names the file or value, and the remedy."""

import json

import httpx
import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from dnp import DNPError, Sampling, paint
from dnp.models.defaults import Defaults
from dnp.models.stable_diffusion import StableDiffusion
from guidance import CFG

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def refused(capfd, *parts, **options):
    """The one line with which a model is refused, which has all the parts; nothing else is printed."""
    capfd.readouterr()
    with pytest.raises(DNPError) as caught:
        StableDiffusion(**options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    assert capfd.readouterr() == ("", "")


def change(path, replaced, **values):
    replaced(path, json.dumps(json.loads(path.read_text()) | values))


def test_a_copy_loads_as_it_is(copy, embedded):
    model = StableDiffusion(str(copy))
    assert model.name == str(copy) and model.defaults == embedded.defaults
    assert all(torch.equal(a, b) for a, b in zip(model.unet.parameters(), embedded.unet.parameters(), strict=True))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_pickled_weights(copy, capfd, part):
    weights = next((copy / part).glob("*.safetensors"))
    pickled = weights.with_suffix(".bin")
    torch.save(load_file(weights), pickled)
    weights.unlink()
    refused(capfd, pickled, "is a pickle", "convert it to safetensors", name=str(copy))


def test_no_weights(copy, capfd):
    (copy / WEIGHTS).unlink()
    refused(capfd, "there are no .safetensors weights in", copy / "unet", name=str(copy))


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("damage", [lambda data: data[:-1000], lambda data: b"x" * 500, lambda data: b""])
def test_damaged_weights(copy, capfd, replaced, part, damage):
    weights = next((copy / part).glob("*.safetensors"))
    replaced(weights, damage(weights.read_bytes()))
    refused(capfd, weights, "truncated or no safetensors file: copy it again", name=str(copy))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("damage", ["shape", "missing"])
def test_a_weight_that_does_not_fit(copy, capfd, part, damage):
    path = next((copy / part).glob("*.safetensors"))
    weights = load_file(path)
    name = sorted(weights)[0]
    if damage == "shape":
        weights[name] = torch.zeros(3, 5)
    else:
        del weights[name]
    path.unlink()
    save_file(weights, path, {"format": "pt"})
    refused(capfd, copy / part, name, name=str(copy))


@pytest.mark.parametrize("part", ["tokenizer", "unet", "scheduler"])
def test_a_part_that_is_not_there(copy, capfd, part):
    (copy / part).rename(copy / "elsewhere")
    refused(capfd, copy, "no Stable Diffusion in diffusers' format", f"there is no {part}/ in it", name=str(copy))


@pytest.mark.parametrize("part", ["unet/config.json", "tokenizer/tokenizer.json"])
def test_a_configuration_that_is_not_json(copy, capfd, replaced, part):
    replaced(copy / part, "{")
    refused(capfd, (copy / part).parent, "cannot be loaded as", name=str(copy))


def test_a_prediction_type_of_another_kind(copy, capfd, replaced):
    change(copy / "scheduler/scheduler_config.json", replaced, prediction_type="sample")
    refused(capfd, copy / "scheduler", "'sample' is none of epsilon, v_prediction", name=str(copy))


def test_v_prediction(copy, replaced, embedded):
    change(copy / "scheduler/scheduler_config.json", replaced, prediction_type="v_prediction")
    model = StableDiffusion(str(copy))
    # With v = αε − σ'x₀ and z = αx₀ + σ'ε, the same network says x₀ = αz − σ'v.
    x, sigma, condition = torch.ones(1, *model.shape), torch.tensor([2.0]), model.encode(["a star"])
    signal, noise = 1 / 5**0.5, 2 / 5**0.5
    t = model.denoiser.sigma_to_t(sigma)
    v = model.unet(x * signal, t, **condition).sample
    found = model.denoiser(x, sigma, **condition)
    torch.testing.assert_close(found, signal * x * signal - noise * v, rtol=1e-4, atol=1e-4)
    (image,), _ = paint(model, CFG(2), {"prompt": ["a star"]}, [0], Sampling(steps=1))
    assert image.size == (64, 64)


@pytest.mark.parametrize(
    "text, parts",
    [
        ("{", ["is not valid JSON"]),
        ("[]", ["is no JSON object"]),
        ('{"scales": 3}', ["'scales' is none of scale, strength"]),
        ('{"scale": "3"}', ["scale is '3', not of the kind float"]),
        ('{"words": "a b"}', ["words is 'a b'"]),
    ],
)
def test_defaults_that_cannot_be_read(copy, capfd, replaced, text, parts):
    replaced(copy / "dnp.json", text)
    refused(capfd, copy / "dnp.json", *parts, name=str(copy))


def test_a_directory_without_defaults_has_the_general_ones(copy):
    (copy / "dnp.json").unlink()
    assert Defaults.of(copy) == Defaults()


def test_names_that_are_no_model(tmp_path, capfd):
    refused(
        capfd, repr(str(tmp_path / "no")), "there is no model directory", "give 'embedded'", name=str(tmp_path / "no")
    )
    refused(capfd, "'unembedded'", "a hub name such as", name="unembedded")
    refused(capfd, "is no Stable Diffusion in diffusers' format", name=str(tmp_path))


def test_a_hub_name_without_a_network(capfd):
    refused(
        capfd, "'nobody/nothing-at-all'", "download it elsewhere and give its directory", name="nobody/nothing-at-all"
    )


def test_a_hub_name_that_needs_a_token(capfd, monkeypatch):
    def gated(*_, **__):
        response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co/some/model"))
        raise huggingface_hub.errors.GatedRepoError("403 Client Error", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    refused(capfd, "'some/model'", "`hf auth login` or set HF_TOKEN", name="some/model")


def test_pickled_weights_that_are_asked_for(copy, embedded):
    weights = next((copy / "unet").glob("*.safetensors"))
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    model = StableDiffusion(str(copy), "cpu", allow_pickle=True)
    assert all(torch.equal(a, b) for a, b in zip(model.unet.parameters(), embedded.unet.parameters(), strict=True))


def test_models_of_other_families(copy, capfd, replaced):
    change(copy / "model_index.json", replaced, _class_name="StableDiffusion3Pipeline")
    (copy / "unet").rename(copy / "transformer")
    refused(capfd, copy, "there is no unet/ in it (model_index.json says StableDiffusion3Pipeline)", name=str(copy))


def test_noise_levels_of_another_kind(copy, capfd, replaced):
    change(copy / "scheduler/scheduler_config.json", replaced, _class_name="EDMEulerScheduler")
    refused(capfd, copy / "scheduler", "the noise levels of EDMEulerScheduler are not", name=str(copy))


def test_offloading_changes_nothing(embedded):
    model = StableDiffusion("embedded", "cpu", cpu_offload=True)
    (ours,), _ = paint(model, CFG(2), {"prompt": ["a star"]}, [0], Sampling(steps=1))
    (theirs,), _ = paint(embedded, CFG(2), {"prompt": ["a star"]}, [0], Sampling(steps=1))
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_offloading_leaves_nothing_on_the_gpu():
    model = StableDiffusion("embedded", "cuda", cpu_offload=True)
    paint(model, CFG(2), {"prompt": ["a star"]}, [0], Sampling(steps=1))
    for part in (model.text_encoder, model.unet, model.autoencoder):
        assert {weight.device.type for weight in part.parameters()} == {"cpu"}


def test_devices_and_dtypes(capfd):
    refused(capfd, "the device 'abacus' cannot be used", "try --device cpu", name="embedded", device="abacus")
    refused(capfd, "'float64' is none of float32, bfloat16, float16", name="embedded", device="cpu", dtype="float64")


def test_half_precision_loads_and_walks_in_float32():
    model = StableDiffusion("embedded", device="cpu", dtype="bfloat16")
    assert {p.dtype for p in model.unet.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.autoencoder.parameters()} == {torch.float32}
    found = model.denoiser(torch.ones(1, *model.shape), torch.ones(1), **model.encode(["a star"]))
    assert found.dtype == torch.float32


def test_warnings_of_a_prompt(embedded):
    (warning,) = embedded.warnings("a Red zebra, and a star or two")
    assert "never shown 'zebra', 'or', 'two'; it knows: a an and" in warning
    assert embedded.warnings("a red star") == []
    (warning,) = embedded.warnings("a red star and " * 40)
    assert "160 tokens, more than the 30 that the model reads at once: it is read in 6 parts" in warning
