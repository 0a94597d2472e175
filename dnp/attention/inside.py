r"""The door of conditions: what their keyword argument `attention` asks for is done in their calls of the network."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from dnp.attention.layers import Grid, hooked
from dnp.attention.perturbed import change


def inside(network: nn.Module, attention: Any, size: Grid) -> AbstractContextManager[None]:
    r"""A context in which calls of a network are as `attention` asks.

    Args:
        network: A U-Net of diffusers, or a module that has one as its `unet`.
        attention: A name, a change, or a mapping of "change" to either and of tensors with the batch first.
        size: (height, width) of the latents.

    Raises:
        DNPError: It is nothing that can be done to attention; the network has no such layers.
    """
    states = (
        {name: state for name, state in attention.items() if name != "change"} if isinstance(attention, Mapping) else {}
    )
    return hooked(change(attention).hooks(getattr(network, "unet", network), size, **states))
