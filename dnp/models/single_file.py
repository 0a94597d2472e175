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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dnp.errors import DNPError, first_line
from dnp.models.checkpoint import Parts, silence
from dnp.models.configurations import CLIP, OPEN_CLIP, UNET, VAE, Shapes, configurations
from dnp.models.files import PICKLES, read_weights, readable

_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
_BETAS |= {"set_alpha_to_one": False, "steps_offset": 1}
# What a file has beside its networks' weights: statements about it, tables that follow from β, and text encoders, whose
# last layer 2.x does not use
_KNOWN = re.compile(
    r"^(global_step|v_pred|ztsnr|logvar|scale_factor|betas|lvlb_weights|model_ema\.(decay|num_updates)|denoiser\.sigmas)$"
    r"|^(alphas_cumprod|sqrt_|log_one_minus_|posterior_)|position_ids$|logit_scale$|attn_mask$|^first_stage_model\.loss\."
    r"|\.(token_embedding\.weight|positional_embedding|text_projection(\.weight)?|position_embedding\.weight)$"
    r"|\.(ln_final|final_layer_norm)\.(weight|bias)$"
    r"|\.(resblocks|encoder\.layers)\.\d+\.(ln_[12]|layer_norm[12]|attn|self_attn|mlp)\."
)


def from_file(path: Path, dtype: torch.dtype, prediction: str | None = None, pickle: bool = False) -> Parts:
    """Stable Diffusion 1.x, 2.x or XL from a `.safetensors` file, or from a pickled one if that is asked for.

    Args:
        dtype: Of the U-Net and the text encoders; the autoencoder is in float32.
        prediction: "epsilon" or "v_prediction". By default what the file states (`modelspec.prediction_type` in its
            metadata, a key `v_pred`, the `global_step` of 2.0's base model); if it states nothing, v for 2.x and ε for
            the others.
        pickle: Read a pickle too, by torch's loader of weights only.

    Raises:
        DNPError: The file is truncated, holds no such model, or only a part of one.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    held = _read(path, pickle)
    shapes = held.shapes
    family = _family(path, shapes)
    prediction = prediction or _stated(path, family, held) or ("v_prediction" if family == "2" else "epsilon")
    kind = StableDiffusionXLPipeline if family == "XL" else StableDiffusionPipeline
    passed = {} if family == "XL" else {"safety_checker": None, "feature_extractor": None}
    with tempfile.TemporaryDirectory() as folder:
        try:
            configs = configurations(family, shapes)
            configs["unet"]["sample_size"] = {"1": 64, "2": 64 if prediction == "epsilon" else 96, "XL": 128}[family]
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
        _unread(held, pipeline),
    )
    for network in found.networks:
        if lacking := [name for name, weight in network.named_parameters() if weight.is_meta]:
            raise DNPError(f"{path} lacks the {type(network).__name__}'s {lacking[0]}: give a whole checkpoint")
    return found


@dataclass(frozen=True)
class _Held:
    """What a file holds: the shapes of its weights, and what it says beside them."""

    shapes: Shapes
    metadata: Mapping[str, str]
    step: int | None


def _read(path: Path, pickle: bool) -> _Held:
    if path.suffix.lower() not in PICKLES:
        if not readable(path):
            raise DNPError(f"{path} is truncated or no safetensors file: copy it again")
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            step = file.get_tensor("global_step") if "global_step" in shapes else None
            return _Held(shapes, file.metadata() or {}, _number(step))
    outer, _ = read_weights(path, pickle)
    weights = outer["state_dict"] if isinstance(outer.get("state_dict"), dict) else outer
    shapes = {str(key): tuple(value.shape) for key, value in weights.items() if isinstance(value, torch.Tensor)}
    if not shapes:
        raise DNPError(f"{path} holds no weights: give another file")
    return _Held(shapes, {}, _number(outer.get("global_step", weights.get("global_step"))))


def _number(step: Any) -> int | None:
    try:
        return int(step)
    except (TypeError, ValueError, RuntimeError):  # None, a text, several numbers
        return None


def _stated(path: Path, family: str, held: _Held) -> str | None:
    """The prediction type that the file states: in its metadata, by an empty key, or by the step of 2.0's base model.

    Raises:
        DNPError: It states two, or one that is neither of ε nor of v.
    """
    said = {}
    if (spec := held.metadata.get("modelspec.prediction_type")) is not None:
        names = {"epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
        if (name := spec.strip().lower().replace("-", "_")) not in names:
            raise DNPError(f"{path} says modelspec.prediction_type={spec!r}, which is none of epsilon, v")
        said["modelspec.prediction_type"] = names[name]
    if "v_pred" in held.shapes:
        said["v_pred"] = "v_prediction"
    if len(set(said.values())) > 1:
        raise DNPError(
            f"{path} says both {' and '.join(said.values())} ({', '.join(said)}): say which with --prediction"
        )
    if said:
        return next(iter(said.values()))
    return "epsilon" if family == "2" and held.step == 875000 else None


def _unread(held: _Held, pipeline: Any) -> list[str]:
    """The names of weights that no part takes. Which ones a network takes is asked of diffusers' converters."""
    from diffusers.loaders import single_file_utils as converters

    taken: set[str] = set()
    names = list(held.shapes)
    numbered = {name: torch.tensor(i) for i, name in enumerate(names)}
    for convert, network in (
        (converters.convert_ldm_unet_checkpoint, pipeline.unet),
        (converters.convert_ldm_vae_checkpoint, pipeline.vae),
    ):
        taken |= {names[int(number)] for number in convert(dict(numbered), network.config).values()}
    return sorted(name for name in names if name not in taken and not _KNOWN.search(name))


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
