"""The recipe: diffusion-negative prompting, the models that it runs on, and the command line.

>>> from captioning import Transformers
>>> from dnp import DNP, StableDiffusion
>>> model = StableDiffusion("path/to/stable-diffusion-v1-4")
>>> result = DNP(model, Transformers("Salesforce/blip2-opt-2.7b"))("a cat and a dog", seed=0)
>>> result.plain, result.dns, result.caption.used, result.dnp
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dnp.errors import DNPError

if TYPE_CHECKING:
    from dnp.models.stable_diffusion import StableDiffusion
    from dnp.models.text_to_image import TextToImage
    from dnp.recipe import DNP, Result, Sampling, paint

_HOMES = {
    "DNP": "dnp.recipe",
    "Result": "dnp.recipe",
    "Sampling": "dnp.recipe",
    "StableDiffusion": "dnp.models.stable_diffusion",
    "TextToImage": "dnp.models.text_to_image",
    "paint": "dnp.recipe",
}

__all__ = ["DNP", "DNPError", "Result", "Sampling", "StableDiffusion", "TextToImage", "paint"]


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for, since most need torch and `dnp --help` does not."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
