"""Directories that are no usable model: each is refused in one line that names the file or value, and the remedy."""

import json
import shutil

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
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1000], lambda data: data[:100], lambda data: b"x" * 500, lambda data: b""]
)
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


@pytest.mark.parametrize(
    "part, message",
    [
        ("unet/config.json", "unet/config.json is not valid JSON: Expecting property name"),
        ("model_index.json", "model_index.json is not valid JSON"),
        ("tokenizer/tokenizer.json", "tokenizer cannot be loaded as CLIPTokenizer"),
    ],
)
def test_a_configuration_that_is_not_json(copy, capfd, replaced, part, message):
    replaced(copy / part, "{")
    refused(capfd, f"{copy}/{message}", name=str(copy))


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
        ('{"words": [1]}', ["words is [1]"]),
        ('{"scale": NaN}', ["is not valid JSON", "NaN is not a finite number"]),
        ('{"scale": 1e999}', ["is not valid JSON", "1e999 is not a finite number"]),
        ('{"steps": 0}', ["steps is 0"]),
        ('{"steps": true}', ["steps is True"]),
        ("[" * 100000, ["is not valid JSON"]),
        # the user's key would go there
        ('{"captioner": "openai:m@https://example.com/v1"}', ["an endpoint comes from --captioner only: take it out"]),
        ('{"captioner": "openai:m"}', ["an endpoint comes from --captioner only"]),
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


@pytest.mark.parametrize("lost", [["tokenizer.json"], ["tokenizer.json", "vocab.json"], []])
def test_a_tokenizer_without_its_vocabulary(copy, capfd, replaced, lost):
    for name in lost:
        (copy / "tokenizer" / name).unlink(missing_ok=True)
    if not lost:
        tokenizer = json.loads((copy / "tokenizer/tokenizer.json").read_text())
        special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
        tokenizer["model"] |= {"vocab": special, "merges": []}
        replaced(copy / "tokenizer/tokenizer.json", json.dumps(tokenizer))
    message = "has no vocabulary (tokenizer.json, or vocab.json and merges.txt)" if lost else "is empty"
    refused(capfd, copy / "tokenizer", message, "every prompt would read the same", name=str(copy))


def test_a_tokenizer_of_another_encoder(copy, checkpoint, capfd):
    (copy / "tokenizer").rename(copy / "elsewhere")
    shutil.copytree(checkpoint("1") / "tokenizer", copy / "tokenizer")
    refused(capfd, "has 49408 tokens, but its text encoder knows 599: they do not belong", name=str(copy))


@pytest.mark.parametrize(
    "file, values, parts",
    [
        ("unet/config.json", {"sample_size": None}, ["sample_size is None", "give --size 512x512"]),
        ("unet/config.json", {"sample_size": "64"}, ["sample_size is '64'"]),
        ("unet/config.json", {"sample_size": [8, 8, 8]}, ["sample_size is [8, 8, 8]"]),
        ("unet/config.json", {"block_out_channels": "x"}, ["unet cannot be loaded as UNet2DConditionModel"]),
        (
            "unet/config.json",
            {"_class_name": "UNet3DConditionModel"},
            ["of the kind 'UNet3DConditionModel', not UNet2D"],
        ),
        ("unet/config.json", {"norm_eps": float("nan")}, ["unet/config.json is not valid JSON: NaN is not a finite"]),
        ("vae/config.json", {"_class_name": "AutoencoderTiny"}, ["of the kind 'AutoencoderTiny', not AutoencoderKL"]),
        ("vae/config.json", {"scaling_factor": float("nan")}, ["vae/config.json is not valid JSON: NaN"]),
        ("vae/config.json", {"scaling_factor": "0.2"}, ["the autoencoder's scaling_factor is '0.2'"]),
        ("vae/config.json", {"scaling_factor": 0.0}, ["the autoencoder's scaling_factor is 0.0"]),
        ("vae/config.json", {"latents_mean": [0.0]}, ["latents_mean is [0.0], not 4 usable number(s)"]),
        ("text_encoder/config.json", {"model_type": "t5"}, ["a text encoder of the kind 't5': only CLIP's are read"]),
        ("scheduler/scheduler_config.json", {"beta_start": "low"}, ["scheduler cannot be loaded as PNDMScheduler"]),
        ("scheduler/scheduler_config.json", {"_class_name": "NoSuch"}, ["the noise levels of NoSuch are not"]),
        ("model_index.json", {"_class_name": "KandinskyPipeline"}, ["the model is for 'KandinskyPipeline', not a"]),
        ("model_index.json", {"_class_name": ["a"]}, ["the model is for ['a'], not a"]),
    ],
)
def test_configurations_of_another_type(copy, capfd, replaced, file, values, parts):
    change(copy / file, replaced, **values)
    refused(capfd, copy, *parts, name=str(copy))


def test_a_latent_consistency_model(checkpoint, tmp_path, capfd):
    from diffusers import UNet2DConditionModel

    folder = shutil.copytree(checkpoint("1"), tmp_path / "lcm")
    config = UNet2DConditionModel.load_config(folder / "unet")
    UNet2DConditionModel.from_config(config, time_cond_proj_dim=16).save_pretrained(folder / "unet")
    refused(capfd, "is a latent consistency model", "time_cond_proj_dim is 16", name=str(folder), device="cpu")


def test_weights_in_half_precision_alone(copy, embedded):
    for part in ("unet", "text_encoder"):
        weights = next((copy / part).glob("*.safetensors"))
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    model = StableDiffusion(str(copy), "cpu")
    assert all(torch.equal(a, b) for a, b in zip(model.unet.parameters(), embedded.unet.parameters(), strict=True))


def test_two_sides_of_a_size_and_a_size_that_is_asked_for(copy, replaced):
    change(copy / "unet/config.json", replaced, sample_size=[8, 12])
    model = StableDiffusion(str(copy), "cpu")
    factor = 2 ** (len(model.autoencoder.config.block_out_channels) - 1)
    assert model.shape[1:] == (8, 12) and (model.width, model.height) == (12 * factor, 8 * factor)
    change(copy / "unet/config.json", replaced, sample_size=None)
    assert StableDiffusion(str(copy), "cpu", size=(64, 32)).shape[1:] == (32 // factor, 64 // factor)


def test_defaults_of_the_scheduler_that_the_file_names(copy, replaced):
    from diffusers import LCMScheduler

    replaced(copy / "scheduler/scheduler_config.json", json.dumps({"_class_name": "LCMScheduler"}))
    model = StableDiffusion(str(copy), "cpu")
    alphas = LCMScheduler().alphas_cumprod  # from β of .00085 to .012, DDIM's own defaults are .0001 to .02
    torch.testing.assert_close(model.denoiser.sigmas, ((1 - alphas) / alphas).sqrt())


def test_what_nothing_reads_is_named(copy, replaced, caplog):
    StableDiffusion(str(copy), "cpu")
    assert not caplog.records
    path = copy / WEIGHTS
    weights = load_file(path) | {"one_more.weight": torch.ones(2)}
    path.unlink()
    save_file(weights, path, {"format": "pt"})
    change(copy / "vae/config.json", replaced, an_unknown_setting=3)
    StableDiffusion(str(copy), "cpu")
    (record,) = caplog.records
    message = f"{copy}: nothing reads 2 of its weights and settings, such as unet/one_more.weight"
    assert record.getMessage() == message


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
    model = StableDiffusion("embedded", torch.device("cpu"), torch.bfloat16)
    assert model.dtype == torch.bfloat16 and model.device == torch.device("cpu")
    refused(capfd, "'int8' is none of float32, bfloat16, float16", name="embedded", device="cpu", dtype=torch.int8)
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
