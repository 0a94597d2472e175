"""LoRA files merged into a model, by diffusers' own readers of their many layouts.

References:
    LoRA: Low-Rank Adaptation of Large Language Models, Hu et al., 2022, https://arxiv.org/abs/2106.09685
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dnp.errors import DNPError, first_line
from dnp.models.checkpoint import Parts, readable, silence


def merge(parts: Parts, loras: Sequence[str]) -> list[dict[str, Any]]:
    """Add each `FILE[:WEIGHT]` to the weights of the U-Net and the text encoders, in place.

    Returns:
        For the records: the name, weight and SHA-256 of each.

    Raises:
        DNPError: no such file, no LoRA, one of another model; peft is not installed.
    """
    if find_spec("peft") is None:
        raise DNPError("--lora needs peft: pip install 'dnp[lora]'")
    records = []
    for text in loras:
        path, weight = _file_and_weight(text)
        if not path.is_file():
            raise DNPError(f"there is no LoRA file {str(path)!r}: write --lora FILE or --lora FILE:WEIGHT")
        if path.suffix != ".safetensors" or not readable(path):
            raise DNPError(f"the LoRA {path} is truncated or no safetensors file: give another")
        pipeline = parts.pipeline()
        try:
            with silence():
                pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="lora")
                if not pipeline.get_list_adapters():
                    raise ValueError("none of its weights are of this model")
                pipeline.set_adapters("lora", weight)
                pipeline.fuse_lora(adapter_names=["lora"])
                pipeline.unload_lora_weights()
        except Exception as error:  # of diffusers, peft and torch, of many kinds
            if "peft" in str(error).lower() and "version" in str(error):  # transformers asks, for the text encoders
                raise DNPError(f"the LoRA {path} cannot be loaded: {first_line(error)}: pip install -U peft") from None
            raise DNPError(f"the LoRA {path} does not fit the model ({first_line(error)}): give one for it") from None
        records.append({"file": path.name, "weight": weight, "sha256": sha256(path.read_bytes()).hexdigest()})
    return records


def _file_and_weight(text: str) -> tuple[Path, float]:
    name, _, weight = text.rpartition(":")
    try:
        return Path(name).expanduser(), float(weight)
    except ValueError:
        return Path(text).expanduser(), 1.0
