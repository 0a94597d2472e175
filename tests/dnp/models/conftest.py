"""Tiny models in the original layout, as one file."""

import pytest
import torch
from diffusers.loaders import single_file_utils as diffusers_
from safetensors.torch import save_file

PREFIXES = {"1": ["cond_stage_model.transformer."], "2": ["cond_stage_model.model."]}
PREFIXES["XL"] = ["conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."]


def renamed(weights, convert, candidates):
    """Weights under the names of the original layout, of which `convert`, diffusers' own reader, makes these here."""
    numbers = {name: torch.tensor(i) for i, name in enumerate(candidates)}
    names = {new: candidates[i] for new, i in convert(numbers).items()}
    return {names[name]: weight for name, weight in weights.items()}


def original_unet(unet):
    weights, prefix = unet.state_dict(), diffusers_.LDM_UNET_KEY
    count = len(unet.config.block_out_channels) * (unet.config.layers_per_block + 1)
    ends = (".weight", ".bias")
    resnet = "in_layers.0 in_layers.2 out_layers.0 out_layers.3 emb_layers.1 skip_connection".split()
    attention = {name.split(".", 4 if "mid" not in name else 3)[-1] for name in weights if ".attentions." in name}
    inner = [f"0.{part}{end}" for part in [*resnet, "op"] for end in ends] + [f"1.{part}" for part in attention]
    inner += [f"{i}.conv{end}" for i in (1, 2) for end in ends]  # of output blocks: their upsamplers
    layers = diffusers_.DIFFUSERS_TO_LDM_MAPPING["unet"]
    names = list(layers["layers"].values())
    names += layers["addition_embed_type"].values() if unet.config.addition_embed_type else []
    names += [f"input_blocks.{i}.{part}" for i in range(1, count) for part in inner if ".conv" not in part]
    names += [f"middle_block.{i}.{part}{end}" for i in (0, 2) for part in resnet for end in ends]
    names += [f"middle_block.1.{part}" for part in attention]
    # Without attention the upsampler stands where that would be.
    attends = ["CrossAttn" in kind for kind in unet.config.up_block_types]
    for i in range(count):
        here = attends[i // (unet.config.layers_per_block + 1)]
        names += [f"output_blocks.{i}.{part}" for part in inner if ".conv" not in part and ".op" not in part]
        names += [f"output_blocks.{i}.{2 if here else 1}.conv{end}" for end in ends]

    def convert(numbers):
        return diffusers_.convert_ldm_unet_checkpoint(numbers, unet.config)

    return renamed(weights, convert, [prefix + name for name in names])


def original_vae(vae):
    ends = (".weight", ".bias")
    blocks = [f"block.{i}" for i in range(vae.config.layers_per_block + 1)]
    parts = [f"{part}{end}" for part in ("norm1", "conv1", "norm2", "conv2", "nin_shortcut") for end in ends]
    names = [f"{side}.mid.block_{i}.{part}" for side in ("encoder", "decoder") for i in (1, 2) for part in parts]
    for side, way, sample in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        for level in range(len(vae.config.block_out_channels)):
            names += [f"{side}.{way}.{level}.{block}.{part}" for block in blocks for part in parts]
            names += [f"{side}.{way}.{level}.{sample}.conv{end}" for end in ends]
        names += [f"{side}.mid.attn_1.{part}{end}" for part in ("norm", "q", "k", "v", "proj_out") for end in ends]
    names += diffusers_.DIFFUSERS_TO_LDM_MAPPING["vae"].values()

    def convert(numbers):
        return diffusers_.convert_ldm_vae_checkpoint(numbers, vae.config)

    found = renamed(vae.state_dict(), convert, ["first_stage_model." + name for name in names])
    for name, weight in found.items():  # attention was of convolutions
        if ".attn_1." in name and weight.ndim == 2:
            found[name] = weight[..., None, None]
    return found


def original_text(encoder, prefix):
    weights = {f"text_model.{name.removeprefix('text_model.')}": w for name, w in encoder.state_dict().items()}
    if not prefix.endswith("model."):
        return {prefix + name: weight for name, weight in weights.items()}
    renames = diffusers_.DIFFUSERS_TO_LDM_MAPPING["openclip"]
    found = {}
    for name, weight in weights.items():
        if name.endswith("text_projection.weight"):
            found["text_projection"] = weight.T
        elif ours := renames["layers"].get(name):
            found[ours] = weight
        elif ".k_proj" in name or ".v_proj" in name:
            continue
        else:
            if ".q_proj" in name:
                weight = torch.cat([weights[name.replace(".q_", f".{i}_")] for i in "qkv"])
                name = name.replace(".q_proj.", ".in_proj_")
            for new, old in renames["transformer"].items():
                name = name.replace(new, old)
            found["transformer." + name] = weight
    return {prefix + name: weight for name, weight in found.items()}


@pytest.fixture(scope="session")
def original(model_of, tmp_path_factory):
    """family → its tiny model as one file in the original layout; `beside` its weights if it is pickled."""
    folder = tmp_path_factory.mktemp("files")

    def original(family, change=dict, suffix=".safetensors", beside=None, **metadata):
        model = model_of(family)
        weights = original_unet(model.unet) | original_vae(model.autoencoder)
        for encoder, prefix in zip(model.texts.encoders, PREFIXES[family], strict=True):
            weights |= original_text(encoder, prefix)
        path = folder / f"{family}-{len(list(folder.iterdir()))}{suffix}"
        weights = {name: weight.contiguous() for name, weight in change(weights).items()}
        if suffix == ".safetensors":
            save_file(weights, path, metadata or None)
        else:
            torch.save({"state_dict": weights} | (beside or {}), path)
        return path

    return original


@pytest.fixture(scope="session")
def original_names():
    """A U-Net → its weights by the names of the original layout."""
    return original_unet
