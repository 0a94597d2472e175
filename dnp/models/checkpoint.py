"""A Stable Diffusion as its libraries hold it, read part by part from a directory in diffusers' format."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dnp.errors import DNPError, first_line
from dnp.models.files import PICKLES, a_pickle, read_json, readable


@dataclass
class Parts:
    """What a checkpoint holds: one tokenizer and text encoder, or the two of SDXL, a U-Net and an autoencoder.

    Attributes:
        scheduler: Its noise levels and the kind of its prediction; how it steps is not used.
        zeros: Whether the checkpoint wants a zeroed embedding for the empty prompt, as SDXL does.
        unread: Names of weights and settings in its files that nothing has read.
    """

    tokenizers: list[Any]
    text_encoders: list[Any]
    unet: Any
    autoencoder: Any
    scheduler: Any
    zeros: bool = False
    unread: list[str] = field(default_factory=list)

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
        dtype: Of the U-Net and the text encoders; the autoencoder is in float32.
        pickle: Read pickled weights too, by torch's loader of weights only.

    Raises:
        DNPError: A part is missing, pickled, broken, or of another kind; names it and the remedy.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    index = folder / "model_index.json"
    about = read_json(index) if index.is_file() else {}
    named = about.get("_class_name", "StableDiffusionPipeline")
    for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        if not (folder / name).is_dir():
            kind = f" ({index.name} says {named})" if "_class_name" in about else ""
            raise DNPError(
                f"{str(folder)!r} is no Stable Diffusion in diffusers' format: there is no {name}/ in it{kind}"
            )
    if not isinstance(named, str) or not named.startswith(
        ("StableDiffusion", "LatentConsistencyModel", "SemanticStableDiffusion", "DiffusionPipeline")
    ):
        raise DNPError(f"{index}: the model is for {named!r}, not a Stable Diffusion 1.x, 2.x or XL: give one of those")
    scheduler = load_scheduler(folder / "scheduler")
    suffixes = ["", "_2"] if (folder / "text_encoder_2").is_dir() else [""]
    texts = [CLIPTextModel, CLIPTextModelWithProjection]
    unread: list[str] = []
    encoders = [
        load_network(text, folder / f"text_encoder{suffix}", dtype, pickle, unread)
        for text, suffix in zip(texts, suffixes, strict=False)
    ]
    return Parts(
        [
            load_tokenizer(folder / f"tokenizer{suffix}", encoder.config.vocab_size)
            for suffix, encoder in zip(suffixes, encoders, strict=True)
        ],
        encoders,
        load_network(UNet2DConditionModel, folder / "unet", dtype, pickle, unread),
        load_network(AutoencoderKL, folder / "vae", torch.float32, pickle, unread),
        scheduler,
        len(suffixes) == 2 and bool(about.get("force_zeros_for_empty_prompt", True)),
        unread,
    )


def load_scheduler(folder: Path) -> Any:
    """The noise levels that a scheduler's configuration states, as a DDIM scheduler of diffusers.

    A setting that the file leaves out has the default of the class that the file names, which differs between classes.

    Raises:
        DNPError: The configuration cannot be read, or is of another kind of noise levels.
    """
    import diffusers

    config = read_json(folder / "scheduler_config.json")
    name = str(config.get("_class_name", "DDIMScheduler"))
    kind = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if name.startswith(("EDM", "FlowMatch")) or kind is None:
        raise DNPError(f"{folder}: the noise levels of {name} are not Stable Diffusion's: use another")
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(kind.__init__).parameters.items()
        if key in ("beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type", "num_train_timesteps")
    }
    try:
        with silence():
            return diffusers.DDIMScheduler.from_config(defaults | config)
    except Exception as error:  # values of another type, unknown schedules
        raise DNPError(f"{folder} cannot be loaded as {name}: {first_line(error)}; copy the model again") from None


def load_tokenizer(folder: Path, rows: int) -> Any:
    """CLIP's tokenizer with its vocabulary, without which every prompt would read the same.

    Args:
        rows: How many tokens its text encoder knows.

    Raises:
        DNPError: It cannot be loaded, lacks its vocabulary, or has another one than the encoder.
    """
    from transformers import CLIPTokenizer

    files = [folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")]
    remedy = "every prompt would read the same: copy the model's tokenizer again"
    if folder.is_dir() and not files[0].is_file() and not (files[1].is_file() and files[2].is_file()):
        raise DNPError(f"{folder} has no vocabulary (tokenizer.json, or vocab.json and merges.txt), and {remedy}")
    tokenizer = load(CLIPTokenizer, folder)
    vocabulary = tokenizer.get_vocab()
    if not set(vocabulary) - set(tokenizer.all_special_tokens):
        raise DNPError(f"the vocabulary in {folder} is empty, and {remedy}")
    if max(vocabulary.values()) >= rows:
        raise DNPError(
            f"{folder} has {max(vocabulary.values()) + 1} tokens, but its text encoder knows {rows}: "
            "they do not belong together"
        )
    length = tokenizer.model_max_length
    if not isinstance(length, (int, float)) or length < 3:
        raise DNPError(f"{folder} takes {length!r} tokens at once (model_max_length): copy the model's tokenizer again")
    if None in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        raise DNPError(f"{folder} names no begin, end or padding token: copy the model's tokenizer again")
    return tokenizer


def load_network(
    kind: Any, folder: Path, dtype: torch.dtype, pickle: bool = False, unread: list[str] | None = None
) -> Any:
    """A network of diffusers or transformers, all of its weights read from its folder.

    Args:
        kind: Its class.
        unread: Takes the names of weights and settings in the folder that nothing has read.

    Raises:
        DNPError: As `load`; a weight is missing or of another shape, or the folder is of another class.
    """
    of_transformers = kind.__module__.startswith("transformers")
    options: dict[str, Any] = {"use_safetensors": not pickle, "output_loading_info": True}
    options["dtype" if of_transformers else "torch_dtype"] = dtype
    if of_transformers:  # whose error would not name the weight
        options["ignore_mismatched_sizes"] = True
    weights = [path.name for path in folder.glob("*.safetensors")]
    if weights and all(".fp16" in name for name in weights):
        options["variant"] = "fp16"
    if not weights and folder.is_dir():
        pickles = [path for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
        if not pickles:
            raise DNPError(f"there are no .safetensors weights in {folder}")
        if not pickle:
            raise DNPError(a_pickle(pickles[0]))
    elif pickle:
        options["use_safetensors"] = True
    config = _config(kind, folder) if folder.is_dir() else {}
    network, report = load(kind, folder, **options)
    # Of these the libraries make random numbers, or nothing.
    if lacking := sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]):
        raise DNPError(f"the weights in {folder} lack {lacking[0]}, or have it in another shape: copy them again")
    if unread is not None:
        names = [key for key in sorted(report["unexpected_keys"]) if not key.endswith("position_ids")]
        if not of_transformers:  # whose configurations hold all that any of its models could be asked for
            names += sorted(key for key in set(config) - _settings(kind) if not key.startswith("_"))
        unread += [f"{folder.name}/{name}" for name in names]
    return network


def _config(kind: Any, folder: Path) -> dict[str, Any]:
    # A configuration, of this class as far as it says.
    config = read_json(folder / "config.json")
    named = config.get("_class_name", kind.__name__)
    if kind.__name__.startswith("CLIPText"):
        named = config.get("model_type", "clip_text_model")
        if named not in ("clip_text_model", "clip"):
            raise DNPError(f"{folder} is a text encoder of the kind {named!r}: only CLIP's are read")
    elif named != kind.__name__:
        raise DNPError(f"{folder} is of the kind {named!r}, not {kind.__name__}: give a model with one of those")
    return config


def _settings(kind: Any) -> set[str]:
    return set(inspect.signature(kind.__init__).parameters)


def load(kind: Any, folder: Path, **options: Any) -> Any:
    """One part from its folder by its own library, with what can be wrong in a line.

    Raises:
        DNPError: It is missing or cannot be loaded.
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

    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
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
