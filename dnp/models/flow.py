"""Flow models, Stable Diffusion 3 and 3.5 and Flux, loaded from a directory in diffusers' format."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dnp.errors import DNPError
from dnp.models import checkpoint
from dnp.models.defaults import Defaults
from dnp.models.files import read_json
from dnp.models.flow_model import KINDS, FlowModel
from dnp.models.locate import locate
from dnp.models.stable_diffusion import StableDiffusion, _device, _dtype

__all__ = ["FlowModel", "load", "load_flow"]


def load(name: str, device: str | None = None, dtype: str | None = None, **options: Any) -> FlowModel | StableDiffusion:
    """A text-to-image model by its name, whichever kind it is by the `_class_name` of its model_index.json.

    Args:
        name, device, dtype: as of `StableDiffusion`.
        options: of `StableDiffusion`, or of :func:`load_flow`.

    Raises:
        DNPError: as these do; an option of the other kind.
    """
    folder = locate(str(name))
    make: Callable[..., FlowModel | StableDiffusion] = load_flow if _kind(folder) in KINDS else StableDiffusion
    known = list(inspect.signature(make).parameters)
    if unknown := sorted(set(options) - set(known)):
        what = "a flow model" if make is load_flow else "a Stable Diffusion"
        raise DNPError(f"{name} is {what}, which takes no {unknown[0]}: it takes {', '.join(known[3:])}")
    return make(name, device, dtype, **options)


def load_flow(
    name: str,
    device: str | None = None,
    dtype: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    table: str = "diffusers",
    embedded_guidance: float = 3.5,
    tokens: int | None = None,
    t5: bool = True,
    cpu_offload: bool = False,
    allow_pickle: bool = False,
) -> FlowModel:
    """A Stable Diffusion 3 or 3.5, or a Flux, from a directory in diffusers' format, or by its hub name.

    Args:
        name: a directory with `transformer/`, `vae/`, `scheduler/`, and the text encoders and tokenizers, or a hub
            name. The weights of a part may be in one file or several.
        device, dtype: as of `StableDiffusion`; the autoencoder is in float32.
        size, table, embedded_guidance, tokens: as of `FlowModel`.
        t5: whether SD 3 reads prompts with its T5 encoder, too, its largest part. Where `text_encoder_3/` is not
            there, it does not. Flux cannot do without its own.
        cpu_offload: keep each network on the device only while it is needed.
        allow_pickle: load pickled weights too, by torch's loader of nothing but weights.

    Raises:
        DNPError: not there, not of this kind, with pickled or broken weights; names the file and the remedy.
    """
    import diffusers
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    folder = locate(str(name))
    if (kind := _kind(folder)) not in KINDS:
        raise DNPError(f"{str(folder)!r} is no flow model: its model_index.json names {kind or 'no pipeline'}")
    flux, on = kind == "FluxPipeline", _device(device)
    if flux and not t5:
        raise DNPError("Flux reads prompts by T5 alone: it cannot be left out")
    clip = CLIPTextModel if flux else CLIPTextModelWithProjection
    texts = {"": (clip, CLIPTokenizer), "_2": (T5EncoderModel, T5TokenizerFast) if flux else (clip, CLIPTokenizer)}
    if not flux:
        texts["_3"] = (T5EncoderModel, T5TokenizerFast)
    networks: dict[str, tuple[Any, torch.dtype]] = {"vae": (diffusers.AutoencoderKL, torch.float32)}
    number = _dtype(dtype, on)
    transformer = diffusers.FluxTransformer2DModel if flux else diffusers.SD3Transformer2DModel
    networks["transformer"] = (transformer, number)
    parts: dict[str, Any] = {
        "scheduler": checkpoint.load(diffusers.FlowMatchEulerDiscreteScheduler, folder / "scheduler")
    }
    for suffix, (encoder, _) in texts.items():
        if suffix == "_3" and (not t5 or not (folder / "text_encoder_3").is_dir()):
            parts |= {"text_encoder_3": None, "tokenizer_3": None}
            continue
        networks[f"text_encoder{suffix}"] = (encoder, number)
    for part, (network, of) in networks.items():
        parts[part] = checkpoint.load_network(network, folder / part, of, allow_pickle).requires_grad_(False).eval()
    for suffix, (_, tokenizer) in texts.items():
        place = folder / f"tokenizer{suffix}"
        if tokenizer is CLIPTokenizer:
            rows = parts[f"text_encoder{suffix}"].config.vocab_size
            parts[f"tokenizer{suffix}"] = checkpoint.load_tokenizer(place, rows)
        elif f"tokenizer{suffix}" not in parts:
            parts[f"tokenizer{suffix}"] = checkpoint.load(tokenizer, place)
    with checkpoint.silence():
        pipeline = getattr(diffusers, kind)(**parts)
    if cpu_offload:
        pipeline.enable_model_cpu_offload(device=on)
    else:
        pipeline.to(on)
    model = FlowModel(pipeline, str(name), size=size, table=table, embedded_guidance=embedded_guidance, tokens=tokens)
    if (folder / "dnp.json").is_file():
        model.defaults = Defaults.of(folder)
    model.folder, model.cpu_offload = folder, cpu_offload
    return model


def _kind(folder: Path) -> str | None:
    """The pipeline that a directory is for, as its model_index.json says."""
    index = folder / "model_index.json"
    return read_json(index).get("_class_name") if index.is_file() else None
