r"""LoRA files merged into a model: :math:`W \leftarrow W + w \, \frac{\alpha}{r} \, B A` for each weight in them.

References:
    LoRA: Low-Rank Adaptation of Large Language Models, Hu et al., 2022, https://arxiv.org/abs/2106.09685
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dnp.errors import DNPError
from dnp.models.checkpoint import Parts
from dnp.models.files import PICKLES, finite, read_weights

log = logging.getLogger(__name__)

# How the two factors and α are called: by kohya's scripts, by peft, by diffusers before and after that
_ROLES = {
    "up": (".lora_up", ".lora_B", ".lora_B.default", ".lora.up", "_lora.up", ".lora_linear_layer.up"),
    "down": (".lora_down", ".lora_A", ".lora_A.default", ".lora.down", "_lora.down", ".lora_linear_layer.down"),
}
_PREFIXES = {
    "lora_unet_": "unet ",
    "unet.": "unet ",
    "lora_te2_": "te2 ",
    "text_encoder_2.": "te2 ",
    "lora_te1_": "te1 ",
    "lora_te_": "te1 ",
    "text_encoder.": "te1 ",
}
_OTHERS = {
    "LoHa": r"\.hada_",
    "LoKr": r"\.lokr_",
    "DoRA": r"dora_scale|lora_magnitude_vector",
    "LoCon with a middle factor": r"\.lora_mid\.",
    "OFT": r"\.oft_|\.boft_",
    "IA3": r"\.on_input$|\.ia3_",
    "GLoRA": r"\.[ab][12]\.weight$",
    "differences of whole weights": r"\.diff(_b)?$",
}


def merge(parts: Parts, loras: Sequence[str], pickle: bool = False) -> list[dict[str, Any]]:
    """Add each `FILE[:WEIGHT]` to the weights of the U-Net and the text encoders, in place.

    The layouts of kohya's scripts, of peft and of diffusers are read. A layer without α has that of its rank.

    Args:
        pickle: Read pickled files too, by torch's loader of weights only.

    Returns:
        For the records: the name, weight and SHA-256 of each.

    Raises:
        DNPError: A file is missing, is no LoRA, is of another model or of a kind that is not supported.
    """
    records = []
    for text in loras:
        path, weight = _file_and_weight(text)
        if not path.is_file():
            raise DNPError(f"there is no LoRA file {str(path)!r}: write --lora FILE or --lora FILE:WEIGHT")
        if not math.isfinite(weight):
            raise DNPError(f"the weight of the LoRA {path} is {weight}: write a number, as in --lora FILE:0.8")
        if path.suffix not in (".safetensors", *PICKLES):
            raise DNPError(f"the LoRA {path} is no .safetensors file: give another")
        _merge(parts, path, weight, *read_weights(path, pickle))
        records.append({"file": path.name, "weight": weight, "sha256": sha256(path.read_bytes()).hexdigest()})
    return records


@torch.no_grad()
def _merge(parts: Parts, path: Path, weight: float, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    for kind, pattern in _OTHERS.items():
        if any(re.search(pattern, name) for name in tensors):
            raise DNPError(f"{path} is of the kind {kind}, which is not supported: give a LoRA of two factors")
    finite(path, {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)})
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    names = defaultdict(list)
    for name, tensor in tensors.items():
        module, role = _module(name)
        layers[module][role] = tensor
        names[module].append(name)
    targets, unread = dict(_targets(parts)), []
    alpha_of = _alphas(path, metadata)
    merged = 0
    for module, layer in layers.items():
        target = targets.get(module)
        pair = [layer.get(role) for role in ("up", "down")]
        if target is None or layer.keys() - {"up", "down", "alpha"} or not all(isinstance(f, Tensor) for f in pair):
            unread += names[module]
            continue
        up, down = (factor.float().flatten(1) for factor in pair if factor is not None)
        rank = down.shape[0]
        if not rank or up.shape != (len(target), rank) or down.shape[1] != target[0].numel():
            raise DNPError(
                f"the LoRA {path} does not fit the model: {names[module][0]} is for another shape than "
                f"{tuple(target.shape)}; give one for this model"
            )
        alpha = float(layer["alpha"]) if "alpha" in layer else alpha_of(module, rank)
        change = (up @ down).reshape(target.shape) * (weight * alpha / rank)
        target.copy_((target.float() + change.to(target.device)).to(target.dtype))
        merged += 1
    if not merged:
        raise DNPError(f"the LoRA {path} does not fit the model (none of its weights are of this model): give another")
    if unread:
        log.warning(
            "the LoRA %s has %d weights that fit nothing in the model and are left out, such as %s",
            path,
            len(unread),
            unread[0],
        )


def _module(name: str) -> tuple[str, str]:
    # "lora_unet_mid_block_attentions_0_proj_in.alpha" → ("unet mid_block_attentions_0_proj_in", "alpha")
    role, end = "alpha" if name.endswith(".alpha") else name, ".alpha"
    for factor, ends in _ROLES.items():
        for found in ends:
            if name.endswith(f"{found}.weight"):
                role, end = factor, f"{found}.weight"
    stem = name.removesuffix(end).removeprefix("base_model.model.")
    prefix = next((prefix for prefix in _PREFIXES if stem.startswith(prefix)), "")
    part = _PREFIXES[prefix] if prefix else "unet "
    module = stem.removeprefix(prefix).replace(".processor.", ".").replace(".", "_")
    if part != "unet ":
        module = module.removeprefix("text_model_")
    if end.startswith("_lora") and module.endswith("to_out"):
        module += "_0"
    return part + module, role


def _targets(parts: Parts) -> Iterator[tuple[str, Tensor]]:
    """The weights that a LoRA may change, by the names of diffusers and of the original layout, with underscores."""
    layers = parts.unet.config.layers_per_block
    attends = [i for i, block in enumerate(parts.unet.up_blocks) if getattr(block, "attentions", None)]
    for name, module in parts.unet.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            yield "unet " + name.replace(".", "_"), module.weight
            if isinstance(layers, int):
                yield "unet " + _original(name, layers, attends).replace(".", "_"), module.weight
    for i, encoder in enumerate(parts.text_encoders, 1):
        for name, module in encoder.named_modules():
            if isinstance(module, nn.Linear):
                yield f"te{i} " + name.removeprefix("text_model.").replace(".", "_"), module.weight


def _original(name: str, layers: int, attends: Collection[int]) -> str:
    """The name of a module of the U-Net in the original layout, in which SDXL's LoRAs are mostly written."""
    renames: dict[str, Any] = {
        r"^conv_in$": "input_blocks.0.0",
        r"^conv_out$": "out.2",
        r"^time_embedding\.linear_([12])": lambda m: f"time_embed.{2 * int(m[1]) - 2}",
        r"^add_embedding\.linear_([12])": lambda m: f"label_emb.0.{2 * int(m[1]) - 2}",
        r"^down_blocks\.(\d+)\.downsamplers\.0\.conv": lambda m: f"input_blocks.{(int(m[1]) + 1) * (layers + 1)}.0.op",
        r"^down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)": lambda m: (
            f"input_blocks.{1 + int(m[1]) * (layers + 1) + int(m[3])}.{int(m[2] == 'attentions')}"
        ),
        r"^mid_block\.resnets\.(\d+)": lambda m: f"middle_block.{2 * int(m[1])}",
        r"^mid_block\.attentions\.0": "middle_block.1",
        r"^up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)": lambda m: (
            f"output_blocks.{int(m[1]) * (layers + 1) + int(m[3])}.{int(m[2] == 'attentions')}"
        ),
        # after the attention, if there is any
        r"^up_blocks\.(\d+)\.upsamplers\.0\.conv": lambda m: (
            f"output_blocks.{int(m[1]) * (layers + 1) + layers}.{2 if int(m[1]) in attends else 1}.conv"
        ),
        r"\.conv1$": ".in_layers.2",
        r"\.conv2$": ".out_layers.3",
        r"\.time_emb_proj$": ".emb_layers.1",
        r"\.conv_shortcut$": ".skip_connection",
    }
    for pattern, new in renames.items():
        name = re.sub(pattern, new, name)
    return name


def _alphas(path: Path, metadata: dict[str, str]) -> Any:
    """α of a layer as diffusers' metadata states it; its rank, if nothing does."""
    names = {"unet": "unet", "text_encoder": "te1", "text_encoder_2": "te2"}
    try:
        stated = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        alphas = {short: float(stated[f"{name}.lora_alpha"]) for name, short in names.items()
                  if stated.get(f"{name}.lora_alpha") is not None}  # fmt: skip
        other = next((f"{name}.{key}" for name in names for key in ("alpha_pattern", "use_rslora", "use_dora")
                      if stated.get(f"{name}.{key}")), None)  # fmt: skip
    except (AttributeError, TypeError, ValueError):
        raise DNPError(f"the LoRA {path} has metadata that cannot be read: give another") from None
    if other:
        raise DNPError(f"the LoRA {path} sets {other} in its metadata, which is not supported: give another")
    return lambda module, rank: alphas.get(module.split()[0], float(rank))


def _file_and_weight(text: str) -> tuple[Path, float]:
    name, _, weight = text.rpartition(":")
    try:
        return Path(name).expanduser(), float(weight)
    except ValueError:
        return Path(text).expanduser(), 1.0
