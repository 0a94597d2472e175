"""Captioners by name, for a model."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from captioning import Captioner, CaptionError, Endpoint, Transformers
from dnp.models.defaults import Defaults


class Model(Protocol):
    """What is asked of the model that the captions are for."""

    name: str
    folder: Path
    defaults: Defaults
    device: torch.device
    cpu_offload: bool


def captioner_of(model: Model, name: str | None = None) -> Captioner:
    """A captioner by its name: `openai:MODEL[@URL]`, a directory, a hub name, or by default the model's own.

    Raises:
        CaptionError: The captioner cannot be loaded, or the name is empty.
    """
    own = model.folder / model.defaults.captioner  # the embedded model's captioner comes with it
    if name is None:
        name = model.defaults.captioner
    if not name.strip():
        raise CaptionError("the captioner has no name: give a directory, a hub name or openai:MODEL[@URL]")
    if name.startswith("openai:"):
        return Endpoint.at(name)
    beside = name == model.defaults.captioner and own.is_dir()
    captioner = Transformers(own if beside else name, device=model.device, cpu_offload=model.cpu_offload)
    captioner.name = f"{model.name}/{name}" if beside else name  # as given, and the same on any machine
    return captioner
