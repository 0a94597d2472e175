"""Captioners by name, for a model."""

from __future__ import annotations

from captioning import Captioner, Endpoint, Transformers
from dnp.models.stable_diffusion import StableDiffusion


def captioner_of(model: StableDiffusion, name: str | None = None) -> Captioner:
    """A captioner by its name, or the model's own: `openai:MODEL[@URL]`, a directory or a hub name.

    Raises:
        CaptionError: it cannot be loaded.
    """
    name = name or model.defaults.captioner
    if name.startswith("openai:"):
        return Endpoint.at(name)
    beside = model.folder / name  # the embedded model's captioner comes with it
    found = beside if beside.is_dir() else name
    captioner = Transformers(found, device=model.device, cpu_offload=model.cpu_offload)
    if beside.is_dir():  # a name that means the same on any machine
        captioner.name = f"{model.name}/{name}"
    return captioner
