"""A Stable Diffusion as its libraries hold it, read part by part from a directory in diffusers' format."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dnp.errors import DNPError, first_line

PICKLES = (".bin", ".ckpt", ".pt", ".pth")


@dataclass
class Parts:
    """What a checkpoint holds: one tokenizer and text encoder, or the two of SDXL, a U-Net and an autoencoder.

    Attributes:
        scheduler: Its noise levels and the kind of its prediction; how it steps is not used.
        zeros: Whether the checkpoint wants a zeroed embedding for the empty prompt, as SDXL does.
    """

    tokenizers: list[Any]
    text_encoders: list[Any]
    unet: Any
    autoencoder: Any
    scheduler: Any
    zeros: bool = False

    @property
    def xl(self) -> bool:
        return len(self.text_encoders) == 2

    @property
    def networks(self) -> list[nn.Module]:
        """In the order in which a picture needs them."""
        return [*self.text_encoders, self.unet, self.autoencoder]

    def pipeline(self) -> Any:
        """The same parts as diffusers' pipeline."""
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

        parts = {"vae": self.autoencoder, "unet": self.unet, "scheduler": self.scheduler}
        for i, (tokenizer, encoder) in enumerate(zip(self.tokenizers, self.text_encoders, strict=True)):
            suffix = "_2" if i else ""
            parts |= {f"tokenizer{suffix}": tokenizer, f"text_encoder{suffix}": encoder}
        with silence():
            if self.xl:
                return StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=self.zeros)
            unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
            return StableDiffusionPipeline(**parts, **unused)


def from_directory(folder: Path, dtype: torch.dtype, pickle: bool = False) -> Parts:
    """Stable Diffusion 1.x, 2.x or XL: `unet/`, `vae/`, `scheduler/`, `tokenizer/` and `text_encoder/`, and
    `tokenizer_2/` and `text_encoder_2/` of XL.

    Args:
        dtype: of the U-Net and the text encoders; the autoencoder is in float32.
        pickle: read pickled weights too, by torch's loader of nothing but weights.

    Raises:
        DNPError: a part is not there, pickled, broken, or of another kind; names it and the remedy.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    index = folder / "model_index.json"
    about = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        if not (folder / name).is_dir():
            kind = f" ({index.name} says {about['_class_name']})" if "_class_name" in about else ""
            raise DNPError(
                f"{str(folder)!r} is no Stable Diffusion in diffusers' format: there is no {name}/ in it{kind}"
            )
    scheduler = load(DDIMScheduler, folder / "scheduler")
    kind = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8")).get("_class_name")
    if str(kind).startswith(("EDM", "FlowMatch")):
        raise DNPError(f"{folder / 'scheduler'}: the noise levels of {kind} are not Stable Diffusion's: use another")
    suffixes = ["", "_2"] if (folder / "text_encoder_2").is_dir() else [""]
    texts = [CLIPTextModel, CLIPTextModelWithProjection]
    return Parts(
        [load(CLIPTokenizer, folder / f"tokenizer{suffix}") for suffix in suffixes],
        [
            load_network(text, folder / f"text_encoder{suffix}", dtype, pickle)
            for text, suffix in zip(texts, suffixes, strict=False)
        ],
        load_network(UNet2DConditionModel, folder / "unet", dtype, pickle),
        load_network(AutoencoderKL, folder / "vae", torch.float32, pickle),
        scheduler,
        len(suffixes) == 2 and about.get("force_zeros_for_empty_prompt", True),
    )


def load_network(kind: Any, folder: Path, dtype: torch.dtype, pickle: bool = False) -> Any:
    """A network of diffusers or transformers, all of its weights read from its folder.

    Raises:
        DNPError: as `load`; a weight is missing or of another shape.
    """
    of_transformers = kind.__module__.startswith("transformers")
    options: dict[str, Any] = {"use_safetensors": not pickle, "output_loading_info": True}
    options["dtype" if of_transformers else "torch_dtype"] = dtype
    if of_transformers:  # whose error would not name the weight
        options["ignore_mismatched_sizes"] = True
    if not any(folder.glob("*.safetensors")) and folder.is_dir():
        pickles = [path for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
        if not pickles:
            raise DNPError(f"there are no .safetensors weights in {folder}")
        if not pickle:
            raise DNPError(a_pickle(pickles[0]))
    elif pickle:
        options["use_safetensors"] = True
    network, report = load(kind, folder, **options)
    # Of these the libraries make random numbers, or nothing.
    if lacking := sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]):
        raise DNPError(f"the weights in {folder} lack {lacking[0]}, or have it in another shape: copy them again")
    return network


def a_pickle(path: Path) -> str:
    return (
        f"{path} is a pickle, which can run any code when loaded: convert it to safetensors, or ask for it with "
        "--allow-pickle, which reads the weights in it and nothing else"
    )


def load(kind: Any, folder: Path, **options: Any) -> Any:
    """One part from its folder by its own library, with what can be wrong in a line.

    Raises:
        DNPError: it is not there or cannot be loaded.
    """
    if not folder.is_dir():
        raise DNPError(
            f"{str(folder.parent)!r} is no Stable Diffusion in diffusers' format: there is no {folder.name}/ in it"
        )
    try:
        with silence():
            return kind.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # as many kinds as there are libraries below: all mean that this part is unusable
        broken = next((p for p in sorted(folder.glob("*.safetensors")) if not readable(p)), None)
        what = (
            f"{broken} is truncated or no safetensors file: copy it again"
            if broken
            else f"{folder} cannot be loaded as {kind.__name__}: {first_line(error).split('. If you want')[0]}; "
            "its configuration and its weights must be there and belong together"
        )
        raise DNPError(what) from None


@contextmanager
def silence() -> Iterator[None]:
    """What the libraries would print about a part is in the error, in a line."""
    import diffusers.utils.logging

    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers", "peft")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    diffusers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers.utils.logging.enable_progress_bar()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def readable(path: Path) -> bool:
    """Whether the safetensors file is as long as its header says."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(size)) if size < 100_000_000 else {}
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return bool(ends) and path.stat().st_size == 8 + size + max(ends)
