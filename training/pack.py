"""Writes the trained parts in the formats of the real ones, all weights in float16 safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import nn
from transformers import BlipForConditionalGeneration, BlipProcessor, CLIPTokenizer

from eval.metrics.judge import Judge
from training import contrastive, diffusion


def write(
    out: Path,
    tokenizer: CLIPTokenizer,
    autoencoder: AutoencoderKL,
    parts: nn.ModuleDict,
    judges: dict[str, Judge],
    captioner: tuple[BlipForConditionalGeneration, BlipProcessor],
    clip: Any,
) -> None:
    """The pipeline's folders in `out`, as diffusers writes them, and beside them captioner/, clip/ and the judges'."""
    diffusion.pipeline(parts, autoencoder, tokenizer).to(dtype=diffusion.HALF).save_pretrained(out)
    model, processor = captioner
    model.half().save_pretrained(out / "captioner")
    processor.save_pretrained(out / "captioner")
    contrastive.save(clip, tokenizer, out / "clip")
    for name, judge in judges.items():
        (out / name).mkdir(exist_ok=True)
        state = judge.net.state_dict()
        save_file(
            {key: value.half().contiguous() if value.is_floating_point() else value for key, value in state.items()},
            out / name / "judge.safetensors",
        )
        (out / name / "judge.json").write_text(json.dumps({"architecture": judge.net.architecture}) + "\n")


def further(out: Path, start: Path, parts: nn.ModuleDict) -> None:
    """The model in `start` with a U-Net and a text encoder that were trained further, in `out`."""
    if out.resolve() != start.resolve():
        shutil.copytree(start, out, dirs_exist_ok=True)
    for name in ("unet", "text_encoder"):
        parts[name].half().save_pretrained(out / name)  # type: ignore[operator]
