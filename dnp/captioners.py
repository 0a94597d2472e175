"""Captioners by name, for a model."""

from __future__ import annotations

from captioning import Captioner, Endpoint, Transformers
from dnp.models.stable_diffusion import StableDiffusion


def captioner_of(model: StableDiffusion, name: str | None = None) -> Captioner:
    """A captioner by its name, or the model's own: `openai:MODEL[@URL]`, a directory or a hub name.

    Raises:
        CaptionError: it cannot be loaded.
    """
    own = model.folder / model.defaults.captioner  # the embedded model's captioner comes with it
    name = name or model.defaults.captioner
    beside = name == model.defaults.captioner and own.is_dir()
    if name.startswith("openai:"):
        return Endpoint.at(name)
    captioner = Transformers(own if beside else name, device=model.device, cpu_offload=model.cpu_offload)
    captioner.name = f"{model.name}/{name}" if beside else name  # as given, and the same on any machine
    return captioner
