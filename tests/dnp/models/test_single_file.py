"""Checkpoints in one file, in the original layout, against the directory of the same weights."""

import json
import random

import clip
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from dnp import DNPError, Sampling
from dnp.cli.main import main
from dnp.models.single_file import tokenizer
from dnp.models.stable_diffusion import StableDiffusion
from guidance import CFG


def weights_of(model):
    return [w for part in (*model.texts.encoders, model.unet, model.autoencoder) for w in part.state_dict().values()]


@pytest.mark.parametrize("family", ["1", "2", "XL"])
def test_a_file_equals_the_directory(original, model_of, latents_of, family):
    directory = model_of(family)
    file = StableDiffusion(str(original(family)), "cpu", size=(16, 16))
    for a, b in zip(weights_of(file), weights_of(directory), strict=True):
        assert torch.equal(a, b)
    texts, sampling = {"prompt": ["a red balloon"]}, Sampling("euler", "leading", 3)
    theirs, ours = (latents_of(model, CFG(5), texts, [0], sampling) for model in (directory, file))
    # Weights lie elsewhere in memory, and products round by that
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    assert file.autoencoder.config.scaling_factor == directory.autoencoder.config.scaling_factor
    assert file.options.get("empty") == directory.options.get("empty")


def test_sizes_of_the_families_and_predictions_that_weights_do_not_show(original):
    def kind(path, **options):
        model = StableDiffusion(str(path), "cpu", **options)
        return type(model.denoiser).__name__, model.shape[1]

    eps, v = "EpsDenoiser", "VDenoiser"
    two = original("2")
    assert kind(original("1")) == (eps, 64)
    assert kind(two) == (v, 96) and kind(two, prediction="epsilon") == (eps, 64)
    assert kind(original("2", lambda w: w | {"global_step": torch.tensor(875000)})) == (eps, 64)
    assert kind(original("XL", lambda w: w | {"v_pred": torch.tensor([])})) == (v, 128)


def test_the_statement_of_a_file_wins_over_the_guess(original):
    def predicts(*arguments, **options):
        model = StableDiffusion(str(original(*arguments, **options)), "cpu", allow_pickle=True)
        return type(model.denoiser).__name__

    spec = "modelspec.prediction_type"
    assert predicts("1", lambda w: w | {"v_pred": torch.tensor([])}) == "VDenoiser"
    assert predicts("1", **{spec: "v"}) == "VDenoiser"
    assert predicts("2", **{spec: "epsilon"}) == "EpsDenoiser"
    # beside the weights of a pickle
    assert predicts("2", suffix=".ckpt", beside={"global_step": 875000}) == "EpsDenoiser"
    both = str(original("2", lambda w: w | {"v_pred": torch.tensor([])}, **{spec: "epsilon"}))
    with pytest.raises(DNPError, match=r"says both epsilon and v_prediction \(modelspec.prediction_type, v_pred\)"):
        StableDiffusion(both, "cpu")
    assert type(StableDiffusion(both, "cpu", prediction="epsilon").denoiser).__name__ == "EpsDenoiser"
    with pytest.raises(DNPError, match="modelspec.prediction_type='flow', which is none of epsilon, v"):
        StableDiffusion(str(original("1", **{spec: "flow"})), "cpu")


def test_weights_that_nothing_reads_are_named(original, caplog):
    StableDiffusion(str(original("1")), "cpu")
    assert not caplog.records
    more = ["model.diffusion_model.time_embed.cond_proj.weight", "first_stage_model.decoder.up.9.extra", "other.weight"]
    path = original("1", lambda w: w | {name: torch.ones(2) for name in more} | {"model_ema.decay": torch.ones(1)})
    StableDiffusion(str(path), "cpu")
    (record,) = caplog.records
    assert record.getMessage() == f"{path}: nothing reads 3 of its weights and settings, such as {sorted(more)[0]}"


def test_a_schedule_that_ends_in_noise(original):
    model = StableDiffusion(str(original("XL", lambda w: w | {"ztsnr": torch.tensor([])})), "cpu")
    assert model.denoiser.sigma_max == pytest.approx(4096, rel=1e-3)


def test_a_pickle_only_if_asked_for(original, model_of):
    path = original("1", suffix=".ckpt")
    with pytest.raises(DNPError, match="is a pickle, which can run any code when loaded: convert it") as caught:
        StableDiffusion(str(path), "cpu")
    assert "--allow-pickle" in str(caught.value)
    model = StableDiffusion(str(path), "cpu", size=(16, 16), allow_pickle=True)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(model), weights_of(model_of("1")), strict=True))
    cyclic = {}
    cyclic["state_dict"] = cyclic
    for held, message in (
        ({"state_dict": {}, "code": print}, "holds more than weights, or is damaged, and is not loaded"),
        ({"state_dict": {}}, "holds no weights: give another file"),
        ({"state_dict": 3}, "holds no weights: give another file"),
        (cyclic, "holds no weights: give another file"),
        ([torch.ones(2)], "holds no weights by name, but a list"),
        (3, "holds no weights by name, but a int"),
    ):
        torch.save(held, path)
        with pytest.raises(DNPError, match=message) as caught:
            StableDiffusion(str(path), "cpu", allow_pickle=True)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change, message", [
    (lambda w: {k: v for k, v in w.items() if "output_blocks.1.0.in" not in k}, "2.x (a weight is missing)"),
    (lambda w: {k: v for k, v in w.items() if "resblocks.0.ln_1" not in k}, "lacks the CLIPTextModel's "),
    (lambda w: {k: v for k, v in w.items() if "input_blocks.1." not in k}, "give a whole checkpoint"),
    (lambda w: {k: v for k, v in w.items() if "cond_stage" not in k}, "there is no text encoder of 1.x, 2.x or XL"),
    (lambda w: {k: v for k, v in w.items() if "first_stage" in k}, "is an autoencoder, not a Stable Diffusion"),
    (lambda w: {"lora_unet_x.lora_down.weight": torch.ones(2, 2)}, "is a LoRA, which changes a model, not a Stable "),
    (lambda w: {"double_blocks.0.img_attn.norm.key_norm.scale": torch.ones(2)}, "is a Flux model, which has another"),
    (lambda w: {"x": torch.ones(2)}, "there is no U-Net and autoencoder in it"),
    (lambda w: w | {"edm_mean": torch.ones(4)}, "is a Playground model"),
])  # fmt: skip
def test_a_file_of_something_else(original, change, message, capfd):
    path = original("2", change)
    capfd.readouterr()
    with pytest.raises(DNPError) as caught:
        StableDiffusion(str(path), "cpu")
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_one_network_of_a_directory_and_damage(checkpoint, tmp_path):
    path = checkpoint("1") / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(DNPError, match="is one network of a model in diffusers' format"):
        StableDiffusion(str(path), "cpu")
    for data in (path.read_bytes()[:-99], path.read_bytes()[:99], path.read_bytes()[:7], b"x" * 50, b""):
        (tmp_path / "a.safetensors").write_bytes(data)
        with pytest.raises(DNPError, match="a.safetensors is truncated or no safetensors file: copy it again"):
            StableDiffusion(str(tmp_path / "a.safetensors"), "cpu")


def test_an_inpainting_model(original):
    def wider(weights):
        name = "model.diffusion_model.input_blocks.0.0.weight"
        return weights | {name: torch.cat([weights[name], weights[name], weights[name][:, :1]], 1)}

    with pytest.raises(DNPError, match="is a model for inpainting, whose network takes 9 channels"):
        StableDiffusion(str(original("1", wider)), "cpu")


def test_generate_from_a_file(original, tmp_path):
    path, out = original("XL"), tmp_path / "out"
    arguments = ["generate", "a cat", "--model", str(path), "--device", "cpu", "--steps", "1", "--size", "24x16"]
    arguments += ["--negative", "a dog", "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in (out / "manifest.jsonl").read_text("utf-8").splitlines()]
    assert [record["arm"] for record in records] == ["plain", "dnp"]
    for record in records:
        assert (record["width"], record["height"], record["model"]) == (24, 16, str(path))
        assert record["model_options"] == {"empty": "zeros", "size": "24x16"} and record["peak_mib"] > 100
        with Image.open(out / record["path"]) as image:
            assert image.size == (24, 16)
    for options, message in (
        (["--size", "24x15"], "the size 24x15 does not fit the model: give multiples of 2"),
        (["--size", "24"], "'24' is not a width and a height: write 768x512"),
        (["--size", "24x16", "--empty", "encoded"], "holds another run (model_options is"),
        (["--lora", "no.safetensors:0.5"], "there is no LoRA file 'no.safetensors'"),
    ):
        result = CliRunner().invoke(main, [*arguments, *options])
        (line,) = result.stderr.splitlines()
        assert result.exit_code == 2 and line.startswith("dnp: ") and message in line, line


def test_the_tokenizer_is_openai_s():
    draw = random.Random(0)
    alphabet = "aaabcdeeefghiiklmnoooprstuvwxyz  '.,-0123456789éüß中文😀\n\tABC&;<>()"
    texts = ["a photo of a Café's dogs, 123 <b> naïve!", "", "don't you'll we've I'm"]
    texts += ["".join(draw.choice(alphabet) for _ in range(draw.randrange(60))) for _ in range(300)]
    ours = tokenizer()
    for text in texts:
        (theirs,) = clip.tokenize([text], context_length=300)
        assert ours(text).input_ids == theirs[: int(theirs.argmax()) + 1].tolist(), text
    assert tokenizer("!")("a", padding="max_length").input_ids == clip.tokenize(["a"])[0].tolist()


def test_the_file_is_what_diffusers_reads(original, checkpoint):
    """The layout, checked by diffusers' reader with the directory's own configurations."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_single_file(
        str(original("1")), config=str(checkpoint("1")), local_files_only=True
    )
    saved = load_file(checkpoint("1") / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(weight, saved[name]) for name, weight in pipeline.unet.state_dict().items())
