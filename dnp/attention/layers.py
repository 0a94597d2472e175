r"""The attention layers of a U-Net by name, and what acts on them for the length of one call.

Layers are watched and changed by PyTorch's hooks on their modules, which are removed whatever happens. Attention
processors are never replaced: those of an image adapter or a LoRA go on acting, and are the same objects afterwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dnp.errors import DNPError

Kind = Literal["self", "cross", "block"]
Grid = tuple[int, int]
_ENDS: dict[Kind, str] = {"self": ".attn1", "cross": ".attn2", "block": ""}
_found: WeakKeyDictionary[nn.Module, dict[Kind, dict[str, nn.Module]]] = WeakKeyDictionary()


def layers(unet: nn.Module, kind: Kind) -> Mapping[str, nn.Module]:
    r"""The layers of a U-Net, by the names of their transformer blocks: self-attention, cross-attention, or the blocks.

    Raises:
        DNPError: The network is no U-Net with such layers.
    """
    if unet not in _found:
        named = dict(unet.named_modules())
        blocks = [name.removesuffix(".attn1") for name in named if name.endswith(".attn1")]
        _found[unet] = {
            each: {block: named[block + end] for block in blocks if block + end in named} for each, end in _ENDS.items()
        }
    found = _found[unet][kind]
    if not found or not all(hasattr(unet, part) for part in ("down_blocks", "mid_block", "up_blocks")):
        raise DNPError(
            f"{type(unet).__name__} is no U-Net with attention to a text: give a Stable Diffusion 1.x, 2.x or XL"
        )
    return found


def select(unet: nn.Module, kind: Kind, names: Sequence[str]) -> dict[str, nn.Module]:
    r"""The layers of the transformer blocks of these names.

    Args:
        names: Paths of transformer blocks, such as "mid_block.attentions.0.transformer_blocks.0", or of what holds
            them, such as "mid_block". Whole parts of a path are compared: "blocks.1" is not "blocks.10".

    Raises:
        DNPError: A name is of no block.
    """
    found = layers(unet, kind)
    for name in names:
        if not any(_within(path, name) for path in found):
            raise DNPError(f"the network has no layer {name!r}: there are {_listed(found)}")
    return {path: layer for path, layer in found.items() if any(_within(path, name) for name in names)}


def _within(path: str, name: str) -> bool:
    return f"{path}.".startswith(f"{name}.")


def _listed(paths: Iterable[str]) -> str:
    # An XL has 70 blocks, in 11 places: "mid_block.attentions.0.transformer_blocks.0 to 9"
    split = [path.rpartition(".") for path in paths]
    places = [(place, [last for _, _, last in group]) for place, group in groupby(split, lambda parts: parts[0])]
    return ", ".join(f"{place}.{lasts[0]}" + (f" to {lasts[-1]}" if len(lasts) > 1 else "") for place, lasts in places)


def grids(unet: nn.Module, size: Grid, kind: Kind = "cross") -> dict[str, Grid]:
    r"""The (height, width) on which each layer attends, by name, for latents of a `size` (height, width)."""
    found, lowest = {}, len(getattr(unet, "down_blocks", ())) - 1
    for name in layers(unet, kind):
        part, place = name.split(".")[:2]
        level = int(place) if part == "down_blocks" else lowest - int(place) if part == "up_blocks" else lowest
        found[name] = (-(-size[0] // 2**level), -(-size[1] // 2**level))  # a stride of 2 rounds up
    return found


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    r"""Hooks that act in this context and are removed after it, whatever happens, be it while they are put in."""
    kept: list[RemovableHandle] = []
    try:
        for handle in handles:
            kept.append(handle)
        yield
    finally:
        for handle in kept:
            handle.remove()


def argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    r"""An argument of a call that a hook sees, given by place or by name."""
    return args[place] if len(args) > place else kwargs.get(name)


class Change(ABC):
    r"""Something done to the attention of a U-Net in one of its calls, as a condition asks for it."""

    @abstractmethod
    def hooks(self, unet: nn.Module, size: Grid, **states: Tensor) -> Iterator[RemovableHandle]:
        r"""The hooks that do it, put in one by one.

        Args:
            unet: A U-Net of diffusers.
            size: (height, width) of the latents.
            states: Tensors of the condition, the batch first.
        """
