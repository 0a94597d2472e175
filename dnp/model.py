r"""What the recipe needs of a text-to-image model, and how one is found by its name.

A text-to-image model is four things (and a name for the records)::

    class Mine:
        name = "mine"
        shape = (4, 64, 64)                    # of one image's latents
        denoiser = k_diffusion_denoiser        # model(x, sigma, **condition) -> denoised

        def encode(self, prompts):             # texts → the denoiser's keyword arguments, the batch first
            return {"cond": text_encoder(prompts)}

        def decode(self, latents):             # latents of unit variance → PIL images
            ...

Noise is made on its `device`, a fifth thing, where it is not the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import Tensor, nn

from dnp.errors import DNPError

EMBEDDED = Path(__file__).parent / "embedded"


class TextToImage(Protocol):
    """What the recipe asks of a model."""

    name: str
    shape: tuple[int, int, int]
    denoiser: nn.Module

    def encode(self, prompts: Sequence[str]) -> Mapping[str, Any]:
        """Texts → the denoiser's keyword arguments, tensors with the batch first."""
        ...

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, C, H, W) → B pictures."""
        ...


@dataclass(frozen=True)
class Defaults:
    """How a model is best sampled. A directory may say so in a file `dnp.json`, as the embedded model's does.

    The paper does not state its settings. The values here are Attend-and-Excite's for Stable Diffusion 1.4 (50 steps,
    scale 7.5), a natural guess, with the paper's negative prompt of three evaluations (eq. 4, w = s). The
    diffusion-negative picture takes half the steps, which cost no adherence on the embedded model (its card).
    """

    scale: float = 7.5
    strength: float = 7.5
    guidance: str = "NegPrompt(s, strength=w)"
    dns: str = "DNS(7.5)"
    sampler: str = "dpmpp_2m"
    schedule: str = "karras"
    steps: int = 50
    dns_steps: int = 25
    captioner: str = "Salesforce/blip2-opt-2.7b"
    universal: str | None = None
    words: tuple[str, ...] = ()

    def but(self, **options: Any) -> Defaults:
        """With those of the options that are not None."""
        return replace(self, **{key: value for key, value in options.items() if value is not None})

    @classmethod
    def of(cls, folder: Path) -> Defaults:
        """The defaults in `folder/dnp.json`, these here where there is none.

        Raises:
            DNPError: the file is no JSON object, or has a key that means nothing here.
        """
        path = folder / "dnp.json"
        if not path.is_file():
            return cls()
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DNPError(f"{path} is not valid JSON: {error}") from None
        if not isinstance(given, dict):
            raise DNPError(f'{path} is no JSON object, as {{"scale": 7.5}} is one')
        if unknown := sorted(set(given) - {field.name for field in fields(cls)}):
            raise DNPError(f"{path}: {unknown[0]!r} is none of {', '.join(f.name for f in fields(cls))}")
        kinds: dict[str, Any] = {"float": (int, float), "int": int, "str": str, "tuple[str, ...]": list}
        kinds["str | None"] = (str, type(None))
        for field in fields(cls):
            if field.name in given and not isinstance(given[field.name], kinds[str(field.type)]):
                raise DNPError(f"{path}: {field.name} is {given[field.name]!r}, not of the kind {field.type}")
        return cls(**given | {"words": tuple(given.get("words", ()))})


def locate(name: str) -> Path:
    """The directory or file of a model: the embedded one, one by its path, or a hub name's files in the local cache.

    A hub name is downloaded where it is not cached: configurations, tokenizers and safetensors weights, no pickles.

    Raises:
        DNPError: no such directory, or the hub does not give it.
    """
    if name == "embedded":
        return EMBEDDED
    path = Path(name).expanduser()
    if path.is_dir() or path.is_file():
        return path
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise DNPError(
            f"there is no model directory {name!r}, nor such a file: give 'embedded', a directory in diffusers' "
            "format, a .safetensors file, or a hub name such as CompVis/stable-diffusion-v1-4"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=["*.json", "*.txt", "*/*.safetensors"],
                ignore_patterns=["*.fp16.*", "*.non_ema.*", "safety_checker/*"],
            )
        )
    except Exception as error:  # the hub's client has many kinds of errors, and no base class of them
        if type(error).__name__ in ("GatedRepoError", "RepositoryNotFoundError"):
            raise DNPError(
                f"the hub gives {name!r} only to those who are logged in and were granted it, if there is one: "
                "accept its terms on its page, then log in with `hf auth login` or set HF_TOKEN"
            ) from None
        raise DNPError(
            f"{name!r} is neither a directory here nor to be had from the hub "
            f"({first_line(error)}): download it elsewhere and give its directory"
        ) from None


def first_line(error: BaseException) -> str:
    """What other libraries' long errors begin with."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
