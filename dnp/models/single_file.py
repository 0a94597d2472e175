"""A Stable Diffusion in one file, as other tools have them (CompVis' and Stability's own layout), without a network.

diffusers reads such files, given the configurations of the parts and the tokenizers' vocabulary, which it would fetch
from the hub. Nearly all of a configuration shows in the shapes of the weights; the rest is the same in all of a family
(Rombach et al. 2022 for 1.x and 2.x, Podell et al. 2023 for XL). The vocabulary is CLIP's own, which open_clip ships.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dnp.errors import DNPError, first_line
from dnp.models.checkpoint import PICKLES, Parts, a_pickle, readable, silence

Shapes = Mapping[str, tuple[int, ...]]

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_CLIP = {"1": "cond_stage_model.transformer.text_model.", "XL": "conditioner.embedders.0.transformer.text_model."}
_OPEN_CLIP = {"2": "cond_stage_model.model.", "XL": "conditioner.embedders.1.model."}
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
_BETAS |= {"set_alpha_to_one": False, "steps_offset": 1}


def from_file(path: Path, dtype: torch.dtype, prediction: str | None = None, pickle: bool = False) -> Parts:
    """Stable Diffusion 1.x, 2.x or XL from a `.safetensors` file, or from a pickled one if that is asked for.

    Args:
        dtype: of the U-Net and the text encoders; the autoencoder is in float32.
        prediction: "epsilon" or "v_prediction", which the weights do not show. By default as diffusers has it: v for
            2.x, but for a file that says to be the base model by its `global_step`; v for an XL that says `v_pred`.
        pickle: read a pickle too, by torch's loader of nothing but weights.

    Raises:
        DNPError: it is none, or a part of one, or truncated.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    shapes, step = _read(path, pickle)
    family = _family(path, shapes)
    if prediction is None:
        base = family == "1" or (family == "2" and step == 875000) or (family == "XL" and "v_pred" not in shapes)
        prediction = "epsilon" if base else "v_prediction"
    kind = StableDiffusionXLPipeline if family == "XL" else StableDiffusionPipeline
    passed = {} if family == "XL" else {"safety_checker": None, "feature_extractor": None}
    with tempfile.TemporaryDirectory() as folder:
        try:
            configurations = _configurations(family, shapes)
            configurations["unet"]["sample_size"] = {"1": 64, "2": 64 if prediction == "epsilon" else 96, "XL": 128}[
                family
            ]
            _write(Path(folder), configurations)
            for name, config in configurations.items():
                if name.startswith("text_encoder"):  # 2.x and the second of XL fill up with zeros
                    pad = "!" if config["hidden_act"] == "gelu" else "<|endoftext|>"
                    passed[name.replace("text_encoder", "tokenizer")] = tokenizer(
                        pad, config["max_position_embeddings"]
                    )
            passed["scheduler"] = DDIMScheduler(
                **_BETAS, prediction_type=prediction, rescale_betas_zero_snr="ztsnr" in shapes
            )
            options = {"config": folder, "local_files_only": True}
            with silence():
                passed["vae"] = AutoencoderKL.from_single_file(
                    str(path), subfolder="vae", torch_dtype=torch.float32, **options
                )
                pipeline = kind.from_single_file(str(path), torch_dtype=dtype, **options, **passed)
        except Exception as error:  # a missing weight is a KeyError here, an IndexError there
            why = "a weight is missing" if "meta tensor" in str(error) else first_line(error)
            raise DNPError(
                f"{path} cannot be loaded as Stable Diffusion {family if family == 'XL' else family + '.x'} ({why}): "
                "it lacks weights or is of another kind; give a whole checkpoint"
            ) from None
    suffixes = ["", "_2"] if family == "XL" else [""]
    found = Parts(
        [getattr(pipeline, f"tokenizer{suffix}") for suffix in suffixes],
        [getattr(pipeline, f"text_encoder{suffix}") for suffix in suffixes],
        pipeline.unet,
        pipeline.vae,
        pipeline.scheduler,
        family == "XL",
    )
    for network in found.networks:
        if lacking := [name for name, weight in network.named_parameters() if weight.is_meta]:
            raise DNPError(f"{path} lacks the {type(network).__name__}'s {lacking[0]}: give a whole checkpoint")
    return found


def _read(path: Path, pickle: bool) -> tuple[Shapes, int | None]:
    if path.suffix in PICKLES:
        if not pickle:
            raise DNPError(a_pickle(path))
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            raise DNPError(f"{path} holds more than weights, and is not loaded ({first_line(error)})") from None
        while "state_dict" in weights:
            weights = weights["state_dict"]
        return {key: tuple(value.shape) for key, value in weights.items() if hasattr(value, "shape")}, None
    if not readable(path):
        raise DNPError(f"{path} is truncated or no safetensors file: copy it again")
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        step = int(file.get_tensor("global_step")) if "global_step" in shapes else None
    return shapes, step


def _family(path: Path, shapes: Shapes) -> str:
    has = {family: f"{prefix}ln_final.weight" in shapes for family, prefix in _OPEN_CLIP.items()}
    whole = f"{_UNET}input_blocks.0.0.weight" in shapes and any(key.startswith((_VAE, "vae.")) for key in shapes)
    if "edm_mean" in shapes:
        raise DNPError(f"{path} is a Playground model, of other noise levels than Stable Diffusion's: use another")
    if whole and (has["2"] or has["XL"]):
        return "XL" if has["XL"] else "2"
    if whole and f"{_CLIP['1']}final_layer_norm.weight" in shapes:
        return "1"
    kinds = {
        "a LoRA, which changes a model": r"lora_|lora\.|\.lokr_|\.hada_",
        "a ControlNet": r"^control_model\.|^controlnet_",
        "an SD 3 model, which has another kind of network": r"joint_blocks\.",
        "a Flux model, which has another kind of network": r"double_blocks\.",
        "one network of a model in diffusers' format": r"^(down_blocks|mid_block|conv_in)\.|^encoder\.down_blocks\.",
        "an autoencoder": r"^(first_stage_model\.)?(encoder|decoder|post_quant_conv)\.",
    }
    for kind, pattern in kinds.items():
        if not whole and any(re.search(pattern, key) for key in shapes):
            remedy = "add it with --lora" if "LoRA" in kind else "give the whole model's file or directory"
            raise DNPError(f"{path} is {kind}, not a Stable Diffusion of its own: {remedy}")
    lacking = "no text encoder of 1.x, 2.x or XL" if whole else "no U-Net and autoencoder"
    raise DNPError(f"{path} is no Stable Diffusion as one file: there is {lacking} in it")


def tokenizer(pad: str = "<|endoftext|>", length: int = 77) -> Any:
    """CLIP's tokenizer as transformers has it, of the vocabulary that open_clip ships."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    clip = SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): number for token, number in clip.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=list(clip.bpe_ranks), pad_token=pad, model_max_length=length)


def _configurations(family: str, shapes: Shapes) -> dict[str, dict[str, Any]]:
    """Of the networks, by the folders that diffusers has them in."""
    vae = "vae." if any(key.startswith("vae.") for key in shapes) else _VAE
    texts = [_clip(_below(shapes, _CLIP[family]))] if family in _CLIP else []
    texts += [_open_clip(_below(shapes, _OPEN_CLIP[family]))] if family in _OPEN_CLIP else []
    return {
        "unet": _unet(_below(shapes, _UNET), pooled=texts[-1]["projection_dim"]),
        "vae": _vae(_below(shapes, vae)) | {"scaling_factor": 0.13025 if family == "XL" else 0.18215},
    } | {f"text_encoder{'_2' if i else ''}": config for i, config in enumerate(texts)}


def _write(folder: Path, configurations: Mapping[str, dict[str, Any]]) -> None:
    """As files, which is how diffusers takes them, with `model_index.json`."""
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    for name, config in configurations.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
        if name.startswith("text_encoder"):
            index[name] = ["transformers", "CLIPTextModelWithProjection" if name.endswith("_2") else "CLIPTextModel"]
    (folder / "model_index.json").write_text(json.dumps(index))


def _below(shapes: Shapes, prefix: str) -> Shapes:
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def _count(shapes: Shapes, prefix: str) -> int:
    """How many `prefix0.`, `prefix1.`, … there are."""
    return len({key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)})


def _unet(shapes: Shapes, pooled: int) -> dict[str, Any]:
    blocks = _count(shapes, "input_blocks.")
    downs = [i for i in range(blocks) if f"input_blocks.{i}.0.op.weight" in shapes]
    layers = (downs[0] if downs else blocks) - 1
    firsts = [1, *(i + 1 for i in downs)]  # of each resolution
    widths = [shapes[f"input_blocks.{i}.0.out_layers.3.weight"][0] for i in firsts]
    depths = [_count(shapes, f"input_blocks.{i}.1.transformer_blocks.") for i in firsts]
    middle = _count(shapes, "middle_block.1.transformer_blocks.")
    first = next(f"input_blocks.{i}.1." for i, depth in zip(firsts, depths, strict=True) if depth)
    linear = len(shapes[f"{first}proj_in.weight"]) == 2
    found = {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [depth or middle for depth in depths],
        "cross_attention_dim": shapes[f"{first}transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": linear,
        # heads, under diffusers' name: of 64 channels each since 2.0, eight of them before
        "attention_head_dim": [max(width // 64, 1) for width in widths] if linear else 8,
    }
    if "label_emb.0.0.weight" in shapes:  # SDXL's pooled text, and six sizes
        total = shapes["label_emb.0.0.weight"][1]
        found |= {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": total}
        found |= {"addition_time_embed_dim": (total - pooled) // 6}
    return found


def _vae(shapes: Shapes) -> dict[str, Any]:
    levels = _count(shapes, "encoder.down.")
    return {
        "block_out_channels": [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": _count(shapes, "encoder.down.0.block."),
        "latent_channels": shapes["decoder.conv_in.weight"][1],
    }


def _clip(shapes: Shapes) -> dict[str, Any]:
    vocabulary, width = shapes["embeddings.token_embedding.weight"]
    return _text(vocabulary, width, shapes["embeddings.position_embedding.weight"][0]) | {
        "num_hidden_layers": _count(shapes, "encoder.layers."),
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "hidden_act": "quick_gelu",
        "projection_dim": width,
    }


def _open_clip(shapes: Shapes) -> dict[str, Any]:
    vocabulary, width = shapes["token_embedding.weight"]
    return _text(vocabulary, width, shapes["positional_embedding"][0]) | {
        # 2.x reads the last layer but one: the 24th, where it is there, is not used
        "num_hidden_layers": 23 if (layers := _count(shapes, "transformer.resblocks.")) == 24 else layers,
        "intermediate_size": shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        "hidden_act": "gelu",
        "projection_dim": shapes["text_projection"][1] if "text_projection" in shapes else width,
    }


def _text(vocabulary: int, width: int, length: int) -> dict[str, Any]:
    return {
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_attention_heads": max(width // 64, 1),
        "max_position_embeddings": length,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }
