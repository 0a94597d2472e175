"""The recipe: diffusion-negative prompting, the models that it runs on, experiments, and the command line.

>>> from captioning import Transformers
>>> from dnp import DNP, StableDiffusion
>>> model = StableDiffusion("path/to/stable-diffusion-v1-4")
>>> result = DNP(model, Transformers("Salesforce/blip2-opt-2.7b"))("a cat and a dog", seed=0)
>>> result.plain, result.dns, result.caption.used, result.dnp
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnp.captioners import captioner_of
    from dnp.errors import DNPError
    from dnp.experiments.arms import Arm, arms
    from dnp.experiments.plan import Place, Plan
    from dnp.experiments.sweep import sweep
    from dnp.models.defaults import Defaults
    from dnp.models.flow import FlowModel, load
    from dnp.models.stable_diffusion import StableDiffusion
    from dnp.models.text_to_image import TextToImage
    from dnp.on_the_way import OnTheWay
    from dnp.recipe import DNP, Result, Sampling, paint

_HOMES = {
    "DNP": "recipe",
    "DNPError": "errors",
    "Arm": "experiments.arms",
    "Defaults": "models.defaults",
    "FlowModel": "models.flow",
    "OnTheWay": "on_the_way",
    "Place": "experiments.plan",
    "Plan": "experiments.plan",
    "Result": "recipe",
    "Sampling": "recipe",
    "StableDiffusion": "models.stable_diffusion",
    "TextToImage": "models.text_to_image",
    "arms": "experiments.arms",
    "captioner_of": "captioners",
    "load": "models.flow",
    "paint": "recipe",
    "sweep": "experiments.sweep",
}

__all__ = [
    "DNP",
    "Arm",
    "DNPError",
    "Defaults",
    "FlowModel",
    "OnTheWay",
    "Place",
    "Plan",
    "Result",
    "Sampling",
    "StableDiffusion",
    "TextToImage",
    "arms",
    "captioner_of",
    "load",
    "paint",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for, since most need torch and `dnp --help` does not."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
