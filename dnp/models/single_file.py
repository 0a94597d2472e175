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
from dnp.models.configurations import CLIP, OPEN_CLIP, UNET, VAE, Shapes, configurations

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
            configs = configurations(family, shapes)
            configs["unet"]["sample_size"] = {"1": 64, "2": 64 if prediction == "epsilon" else 96, "XL": 128}[
                family
            ]
            _write(Path(folder), configs)
            for name, config in configs.items():
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
    has = {family: f"{prefix}ln_final.weight" in shapes for family, prefix in OPEN_CLIP.items()}
    whole = f"{UNET}input_blocks.0.0.weight" in shapes and any(key.startswith((VAE, "vae.")) for key in shapes)
    if "edm_mean" in shapes:
        raise DNPError(f"{path} is a Playground model, of other noise levels than Stable Diffusion's: use another")
    if whole and (has["2"] or has["XL"]):
        return "XL" if has["XL"] else "2"
    if whole and f"{CLIP['1']}final_layer_norm.weight" in shapes:
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


def _write(folder: Path, configurations: Mapping[str, dict[str, Any]]) -> None:
    """As files, which is how diffusers takes them, with `model_index.json`."""
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    for name, config in configurations.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
        if name.startswith("text_encoder"):
            index[name] = ["transformers", "CLIPTextModelWithProjection" if name.endswith("_2") else "CLIPTextModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
