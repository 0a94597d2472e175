"""The recipe: diffusion-negative prompting, the models that it runs on, and the command line.

>>> from captioning import Transformers
>>> from dnp import DNP
>>> from dnp.stable_diffusion import StableDiffusion
>>> model = StableDiffusion("path/to/stable-diffusion-v1-4")
>>> result = DNP(model, Transformers("Salesforce/blip2-opt-2.7b"))("a cat and a dog", seed=0)
>>> result.plain, result.dns, result.caption.used, result.dnp
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dnp.errors import DNPError

if TYPE_CHECKING:
    from dnp.model import TextToImage
    from dnp.recipe import DNP, Result, Sampling, paint

_HOMES = {"TextToImage": "model", "DNP": "recipe", "Result": "recipe", "Sampling": "recipe", "paint": "recipe"}

__all__ = ["DNP", "DNPError", "Result", "Sampling", "TextToImage", "paint"]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is first asked for: `dnp --help` needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dnp.{_HOMES[name]}"), name)
