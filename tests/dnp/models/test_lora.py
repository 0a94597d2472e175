"""LoRA files, against diffusers' pipeline with the same ones loaded, and against the layers that they stand for."""

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import samplers
from dnp import DNPError, Sampling
from dnp.models.lora import _original
from dnp.models.stable_diffusion import StableDiffusion
from guidance import CFG


@pytest.fixture(scope="module")
def lora(pipeline_of, tmp_path_factory):
    """family, seed → a LoRA of it with random weights, as diffusers' pipeline writes one."""

    def lora(family, seed):
        pipeline, folder = pipeline_of(family), tmp_path_factory.mktemp("lora")
        torch.manual_seed(seed)
        pipeline.unet.add_adapter(
            LoraConfig(r=2, lora_alpha=3, init_lora_weights=False, target_modules=["to_q", "to_v"])
        )
        layers, options = get_peft_model_state_dict(pipeline.unet), {}
        if seed:  # with α in the metadata
            settings = pipeline.unet.peft_config["default"].to_dict()
            listed = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
            options["unet_lora_adapter_metadata"] = listed
        name = f"{family}-{seed}.safetensors"
        pipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=name, **options)
        return folder / f"{family}-{seed}.safetensors"

    return lora


@pytest.mark.parametrize("family", ["1", "XL"])
def test_latents_equal_the_pipeline_s_with_the_same_loras(family, lora, checkpoint, pipeline_of, model_of, latents_of):
    first, second = lora(family, 0), lora(family, 1)
    pipeline = pipeline_of(family)
    for name, path in (("first", first), ("second", second)):
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name)
    pipeline.set_adapters(["first", "second"], [0.7, 1.0])
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    model = StableDiffusion(str(checkpoint(family)), "cpu", loras=[f"{first}:0.7", str(second)])
    theirs = pipeline(
        "a cat", guidance_scale=4, num_inference_steps=2, latents=samplers.noise(model.shape, [0]), output_type="latent"
    ).images
    texts, sampling = {"prompt": ["a cat"]}, Sampling("euler", "leading", 2)
    ours = latents_of(model, CFG(4), texts, [0], sampling)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    without = latents_of(model_of(family), CFG(4), texts, [0], sampling)
    assert (ours - without).norm() > 1e-3 * without.norm()
    records = model.options["loras"]
    assert [(record["file"], record["weight"]) for record in records] == [(first.name, 0.7), (second.name, 1.0)]
    assert len({record["sha256"] for record in records}) == 2


LAYERS = {  # kohya's names of 1.x and of XL → the module, its part
    "1": {
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q": (
            "unet",
            "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
        ),
        "lora_unet_down_blocks_0_resnets_0_conv1": ("unet", "down_blocks.0.resnets.0.conv1"),
        "lora_unet_mid_block_attentions_0_proj_in": ("unet", "mid_block.attentions.0.proj_in"),
        "lora_te_text_model_encoder_layers_1_self_attn_q_proj": ("te1", "encoder.layers.1.self_attn.q_proj"),
        "lora_te_text_model_encoder_layers_0_mlp_fc1": ("te1", "encoder.layers.0.mlp.fc1"),
    },
    "XL": {
        "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_k": (
            "unet",
            "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
        ),
        "lora_unet_input_blocks_1_0_in_layers_2": ("unet", "down_blocks.0.resnets.0.conv1"),
        "lora_unet_label_emb_0_0": ("unet", "add_embedding.linear_1"),
        "lora_te1_text_model_encoder_layers_1_self_attn_q_proj": ("te1", "encoder.layers.1.self_attn.q_proj"),
        "lora_te2_text_model_encoder_layers_0_mlp_fc2": ("te2", "encoder.layers.0.mlp.fc2"),
    },
}


def module_of(model, part, end):
    network = model.unet if part == "unet" else model.texts.encoders[int(part[-1]) - 1]
    (found,) = [module for name, module in network.named_modules() if name.endswith(end)]
    return found


@pytest.mark.parametrize("family", LAYERS)
def test_kohya_s_layers_run_beside_the_weights(family, model_of, checkpoint, tmp_path):
    """y = W x + w (α / r) B A x, of each layer that is named, α in some of them only."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    weights, plain, rank, scale = {}, model_of(family), 3, 0.5
    alphas = {name: [None, 1.5, 3.0][i % 3] for i, name in enumerate(LAYERS[family])}
    for name, (part, end) in LAYERS[family].items():
        weight = module_of(plain, part, end).weight
        conv = weight.ndim == 4
        weights[f"{name}.lora_down.weight"] = random(rank, *weight.shape[1:])
        weights[f"{name}.lora_up.weight"] = random(len(weight), rank, *([1, 1] if conv else []))
        if alphas[name]:
            weights[f"{name}.alpha"] = torch.tensor(alphas[name])
    save_file(weights, tmp_path / "kohya.safetensors")
    model = StableDiffusion(str(checkpoint(family)), "cpu", loras=[f"{tmp_path / 'kohya.safetensors'}:{scale}"])
    for name, (part, end) in LAYERS[family].items():
        before, after = (module_of(found, part, end) for found in (plain, model))
        down, up = (weights[f"{name}.lora_{side}.weight"] for side in ("down", "up"))
        x = random(2, before.weight.shape[1], *([5, 5] if before.weight.ndim == 4 else []))
        if before.weight.ndim == 4:
            beside = F.conv2d(F.conv2d(x, down, padding=before.padding), up)
        else:
            beside = x @ down.T @ up.T
        expected = before(x) + scale * (alphas[name] or rank) / rank * beside
        torch.testing.assert_close(after(x), expected, rtol=1e-4, atol=1e-4)
        assert (after(x) - before(x)).abs().max() > 0.1
    touched = len(LAYERS[family])
    changed = [
        not torch.equal(a, b)
        for ours, theirs in zip((model.unet, *model.texts.encoders), (plain.unet, *plain.texts.encoders), strict=True)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    ]
    assert sum(changed) == touched


@pytest.mark.parametrize("family", ["1", "XL"])
def test_names_of_the_original_layout_are_those_of_diffusers_reader(family, model_of, original_names):
    unet = model_of(family).unet
    weights = original_names(unet)
    attends = [i for i, kind in enumerate(unet.config.up_block_types) if "CrossAttn" in kind]
    for name, module in unet.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            ours = _original(name, unet.config.layers_per_block, attends)
            found = weights[f"model.diffusion_model.{ours}.weight"]
            assert found is module.weight or torch.equal(found, module.weight), name


def test_what_fits_nothing_is_named(lora, checkpoint, tmp_path, caplog):
    weights = load_file(lora("1", 0))
    odd = {"lora_unet_no_such_layer.lora_up.weight": torch.ones(2, 2), "unet.conv_in.lora_A.weight": torch.ones(2, 36)}
    save_file(weights | odd, tmp_path / "more.safetensors")
    StableDiffusion(str(checkpoint("1")), "cpu", loras=[str(tmp_path / "more.safetensors")])
    (record,) = caplog.records
    assert "has 2 weights that fit nothing in the model and are left out, such as " in record.getMessage()


@pytest.mark.parametrize(
    "name, kind",
    [
        ("lora_unet_x.hada_w1_a", "LoHa"),
        ("lora_unet_x.lokr_w1", "LoKr"),
        ("lora_unet_x.dora_scale", "DoRA"),
        ("lora_unet_x.lora_mid.weight", "LoCon with a middle factor"),
        ("lora_unet_x.oft_blocks", "OFT"),
        ("lora_unet_x.diff", "differences of whole weights"),
    ],
)
def test_kinds_that_are_not_supported(name, kind, tmp_path):
    save_file({name: torch.ones(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(DNPError, match=f"is of the kind {kind}, which is not supported: give a LoRA of two factors"):
        StableDiffusion("embedded", "cpu", loras=[str(tmp_path / "a.safetensors")])


def test_what_does_not_fit(lora, tmp_path):
    other = lora("XL", 0)
    foreign, broken, nan = (tmp_path / f"{name}.safetensors" for name in ("foreign", "broken", "nan"))
    save_file({"x": torch.ones(2)}, foreign)
    save_file({name: tensor * float("nan") for name, tensor in load_file(other).items()}, nan)
    broken.write_bytes(other.read_bytes()[:-9])
    (tmp_path / "a.ckpt").write_bytes(b"")
    for text, message in (
        (str(other), f"the LoRA {other} does not fit the model"),
        (f"{foreign}:2", f"the LoRA {foreign} does not fit the model (none of its weights"),
        (f"{foreign}:nan", f"the weight of the LoRA {foreign} is nan"),
        (str(nan), "has numbers that are not finite"),
        (str(broken), f"{broken} is truncated or no safetensors file"),
        (str(tmp_path / "a.ckpt"), "is a pickle, which can run any code when loaded"),
        (str(tmp_path / "no.safetensors"), "there is no LoRA file"),
    ):
        with pytest.raises(DNPError) as caught:
            StableDiffusion("embedded", "cpu", loras=[text])
        assert message in str(caught.value) and "\n" not in str(caught.value)
