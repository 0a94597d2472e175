"""Stable Diffusion 1.x and 2.x from a directory in diffusers' format."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from dnp.errors import DNPError
from dnp.model import EMBEDDED, Defaults, first_line, locate


class _Noise(nn.Module):
    """A diffusers U-Net as k-diffusion calls one: its output as a tensor, in the dtype of its input."""

    def __init__(self, unet: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.unet, self.dtype = unet, dtype

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        return self.unet(x.to(self.dtype), t, **condition, return_dict=False)[0].to(x.dtype)


class StableDiffusion:
    """A Stable Diffusion 1.x or 2.x (ε- or v-prediction), by directory or hub name.

    Only safetensors weights are loaded. The U-Net and the text encoder run in float32 on a CPU and in bfloat16 on a
    GPU (float16 where it has none) unless asked otherwise, the autoencoder in float32.

    Args:
        name: "embedded", a hub name, or a directory with `unet/`, `vae/`, `text_encoder/`, `tokenizer/`, `scheduler/`.
        device: "cpu", "cuda", …; a GPU where there is one by default.
        dtype: of the U-Net and the text encoder, "float32", "bfloat16" or "float16".

    Raises:
        DNPError: not there, not of this kind, with pickled or broken weights; names the file and the remedy.
    """

    def __init__(self, name: str = "embedded", device: str | None = None, dtype: str | None = None) -> None:
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer
        from transformers.utils.logging import disable_progress_bar

        from dnp.discrete import EpsDenoiser, VDenoiser

        disable_progress_bar()  # of reading weights: it would come between those of the stages
        folder = locate(str(name))
        self.name = "embedded" if folder == EMBEDDED else str(name)
        self.folder, self.defaults = folder, Defaults.of(folder)
        self.device, self.dtype = _device(device), _dtype(dtype, _device(device))
        self.tokenizer = _load(CLIPTokenizer, folder / "tokenizer")
        self.text_encoder = self._part(CLIPTextModel, "text_encoder", "dtype", self.dtype)
        self.unet = self._part(UNet2DConditionModel, "unet", "torch_dtype", self.dtype)
        self.autoencoder = self._part(AutoencoderKL, "vae", "torch_dtype", torch.float32)
        config = self.unet.config
        self.shape: tuple[int, int, int] = (config.in_channels, config.sample_size, config.sample_size)
        scheduler = _load(DDIMScheduler, folder / "scheduler")
        kinds = {"epsilon": EpsDenoiser, "v_prediction": VDenoiser}
        if (kind := scheduler.config.prediction_type) not in kinds:
            raise DNPError(f"{folder / 'scheduler'}: the prediction type {kind!r} is none of {', '.join(kinds)}")
        self.denoiser: nn.Module = kinds[kind](
            _Noise(self.unet, self.dtype), scheduler.alphas_cumprod.to(self.device), False
        )
        self._encoded = lru_cache(maxsize=256)(self._encode)

    def _part(self, kind: Any, name: str, keyword: str, dtype: torch.dtype) -> Any:
        folder = self.folder / name
        options = {"use_safetensors": True, "output_loading_info": True, keyword: dtype}
        if keyword == "dtype":  # transformers, whose error would not name the weight
            options["ignore_mismatched_sizes"] = True
        part, report = _load(kind, folder, **options)
        # Of these the libraries make random numbers, or nothing.
        if lacking := sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]):
            raise DNPError(f"the weights in {folder} lack {lacking[0]}, or have it in another shape: copy them again")
        return part.to(self.device).requires_grad_(False).eval()

    @torch.no_grad()
    def _encode(self, prompt: str) -> Tensor:
        tokens = self.tokenizer(prompt, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.text_encoder(tokens.to(self.device)).last_hidden_state

    def encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Texts → {"encoder_hidden_states": (B, tokens, width)}; each is encoded by itself, the last ones once."""
        return {"encoder_hidden_states": torch.cat([self._encoded(prompt) for prompt in prompts])}

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, 4, h, w) → B pictures, one at a time, which spares memory and makes none depend on another."""
        images = []
        for z in latents.to(self.device, torch.float32).split(1):
            x = self.autoencoder.decode(z / self.autoencoder.config.scaling_factor, return_dict=False)[0][0]
            pixels = ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
            images.append(Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()))
        return images

    def warnings(self, prompt: str) -> list[str]:
        """What of a prompt the model cannot use, a line each: words that it was never shown (where it says which it
        knows), and tokens beyond those that its text encoder takes."""
        found, known = [], self.defaults.words
        words = "".join(c if c.isalnum() else " " for c in prompt.lower()).split()
        if unknown := [word for word in dict.fromkeys(words) if known and word not in known]:
            found.append(
                f"the model {self.name} was never shown {', '.join(map(repr, unknown))}; it knows: {' '.join(known)}"
            )
        tokens, room = len(self.tokenizer(prompt).input_ids), self.tokenizer.model_max_length
        if tokens > room:
            found.append(f"the prompt has {tokens} tokens, of which the model reads the first {room}")
        return found


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise DNPError(f"the device {name!r} cannot be used ({first_line(error)}): try --device cpu") from None
    return torch.device(name)


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name is None:
        on_gpu = device.type == "cuda"
        return (torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16) if on_gpu else torch.float32
    if name not in names:
        raise DNPError(f"the dtype {name!r} is none of {', '.join(names)}")
    return names[name]


def _load(kind: Any, folder: Path, **options: Any) -> Any:
    """One part from its folder by its own library, with what can be wrong in a line."""
    if not folder.is_dir():
        raise DNPError(
            f"{str(folder.parent)!r} is no Stable Diffusion in diffusers' format: there is no {folder.name}/ in it"
        )
    if "use_safetensors" in options and not any(folder.glob("*.safetensors")):
        pickles = [path.name for path in folder.iterdir() if path.suffix in (".bin", ".ckpt", ".pt", ".pth")]
        raise DNPError(
            f"{folder / pickles[0]} is a pickle, which can run any code when loaded: convert it to safetensors"
            if pickles
            else f"there are no .safetensors weights in {folder}"
        )
    try:
        with _silence():
            return kind.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # as many kinds as there are libraries below: all mean that this part is unusable
        broken = next((p for p in sorted(folder.glob("*.safetensors")) if not _readable(p)), None)
        what = (
            f"{broken} is truncated or no safetensors file: copy it again"
            if broken
            else f"{folder} cannot be loaded as {kind.__name__}: {first_line(error).split('. If you want')[0]}; "
            "its configuration and its weights must be there and belong together"
        )
        raise DNPError(what) from None


@contextmanager
def _silence() -> Iterator[None]:
    """What the libraries would print about a part is in the error, in a line."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _readable(path: Path) -> bool:
    """Whether the file is as long as its header says."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(size)) if size < 100_000_000 else {}
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return bool(ends) and path.stat().st_size == 8 + size + max(ends)
