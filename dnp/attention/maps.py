r"""Attention probabilities of a U-Net, as they arise in one of its calls, and only while asked.

References:
    Prompt-to-prompt image editing with cross attention control, Hertz et al., ICLR 2023, https://arxiv.org/abs/2208.01626
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dnp.attention.layers import Grid, argument, grids, hooked, layers
from dnp.errors import DNPError
from guidance.denoiser.conditions import flatten, rebuild


class _Enough(Exception):
    """Everything that was asked for is there: the rest of the network need not run."""


@dataclass
class Maps:
    r"""Attention probabilities, a tensor for each layer in the order of the network.

    Attributes:
        grid: The (height, width) of the maps.
        cross: Cross-attention :math:`(B, heads, H W, tokens)`; each row of tokens sums to one.
        own: Self-attention :math:`(B, heads, H W, H W)`, where asked for.
    """

    grid: Grid
    cross: list[Tensor] = field(default_factory=list)
    own: list[Tensor] = field(default_factory=list)

    @property
    def mean(self) -> Tensor:
        r"""Cross-attention, the mean of all heads of all layers, :math:`(B, H W, tokens)`, in float32 or more."""
        heads = torch.cat(self.cross, 1)
        return heads.to(torch.promote_types(heads.dtype, torch.float32)).mean(1)


def resolution(unet: nn.Module, size: Grid, wanted: Grid | None = None, side: int = 4) -> Grid:
    r"""The (height, width) of the maps to take, `wanted` or that of the latents divided by `side`.

    Raises:
        DNPError: The network does not attend there.
    """
    there = list(dict.fromkeys(grids(unet, size).values()))
    grid = wanted or (-(-size[0] // side), -(-size[1] // side))
    if grid not in there:
        names = ", ".join(f"{h}x{w}" for h, w in sorted(there, reverse=True))
        raise DNPError(
            f"the network does not attend to the text at {grid[0]}x{grid[1]}: for these latents there are {names}"
        )
    return grid


@contextmanager
def capture(
    unet: nn.Module, size: Grid, wanted: Grid | None = None, *, own: bool = False, stop: bool = False
) -> Iterator[Maps]:
    r"""Keeps the attention probabilities of the calls of a U-Net within this context, with their gradients if any.

    .. code-block:: python

        with capture(model.unet, x.shape[-2:], (16, 16)) as maps:
            model.denoiser(x, sigma, **condition)
        maps.cross  # one (B, heads, 256, 77) for each layer

    They are computed beside the layers, whose outputs stay as they were. An image adapter's tokens have no columns.

    Args:
        unet: A U-Net of diffusers.
        size: (height, width) of the latents.
        wanted: (height, width) of the maps; a quarter of the latents' by default.
        own: Whether to keep self-attention too.
        stop: Whether the call ends when the last of the maps is there, which ends the context: for those who want the
            maps alone. What the call would have returned is then not to be had.

    Raises:
        DNPError: The network does not attend at this resolution, or is no such U-Net.
    """
    grid = resolution(unet, size, wanted)
    maps = Maps(grid)
    kept: list[tuple[nn.Module, list[Tensor]]] = []
    for kind, into in (("cross", maps.cross), *([("self", maps.own)] if own else [])):
        found = layers(unet, kind)  # type: ignore[arg-type]
        kept += [(found[name], into) for name, at in grids(unet, size, kind).items() if at == grid]  # type: ignore[arg-type]

    def watch(into: list[Tensor]) -> Callable[..., None]:
        def look(attn: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
            into.append(probabilities(attn, *(argument(args, kwargs, i, name) for i, name in enumerate(_ARGUMENTS))))
            if stop and len(maps.cross) + len(maps.own) == len(kept):
                raise _Enough

        return look

    def put_in() -> Iterator[RemovableHandle]:
        for layer, into in kept:
            yield layer.register_forward_pre_hook(watch(into), with_kwargs=True)

    with hooked(put_in()):
        try:
            yield maps
        except _Enough:
            pass


_ARGUMENTS = ("hidden_states", "encoder_hidden_states", "attention_mask")


def probabilities(attn: Any, hidden: Tensor, text: Any = None, mask: Tensor | None = None) -> Tensor:
    r"""The probabilities of a layer of diffusers :math:`(B, heads, queries, keys)`, of its own weights.

    Args:
        attn: The layer.
        hidden: :math:`(B, H W, C)`.
        text: :math:`(B, tokens, width)`, or with an image adapter the pair of this and its images; None in
            self-attention.
        mask: Added to the scores.
    """
    if isinstance(text, tuple):
        text = text[0]
    if text is not None and attn.norm_cross:
        text = attn.norm_encoder_hidden_states(text)
    keys = hidden if text is None else text
    mask = attn.prepare_attention_mask(mask, keys.shape[1], len(hidden))
    q, k = (attn.head_to_batch_dim(project(states)) for project, states in ((attn.to_q, hidden), (attn.to_k, keys)))
    found: Tensor = attn.get_attention_scores(q, k, mask)
    return found.unflatten(0, (-1, attn.heads))


def rows(condition: Mapping[str, Any], chosen: Tensor) -> dict[str, Any]:
    r"""A condition of some samples only, by their indices."""
    leaves = flatten(condition)
    return rebuild(  # type: ignore[no-any-return]
        condition, {path: v[chosen] if isinstance(v, Tensor) and v.ndim else v for path, v in leaves.items()}
    )


def gradient(
    model: Any,
    x: Tensor,
    sigma: Tensor,
    condition: Mapping[str, Any],
    loss: Callable[[Maps], Tensor],
    wanted: Grid | None = None,
) -> tuple[Tensor, Tensor]:
    r"""A loss of the attention maps, and its gradient with respect to :math:`x`: one forward and one backward, of those
    parts of the network that the maps depend on.

    Args:
        model: A text-to-image model with a `unet`.
        x: The states :math:`(B, C, H, W)`.
        sigma: The noise levels :math:`(B)`.
        condition: The denoiser's keyword arguments.
        loss: Maps → a loss of each sample :math:`(B)`.
        wanted: (height, width) of the maps.

    Returns:
        The losses :math:`(B)` and the gradient :math:`(B, C, H, W)`.

    Raises:
        DNPError: The gradient is not finite.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone().requires_grad_()
        with capture(model.unet, (x.shape[-2], x.shape[-1]), wanted, stop=True) as maps:
            model.denoiser(x, sigma, **condition)
        losses = loss(maps)
        (found,) = torch.autograd.grad(losses.sum(), x)
    if not found.isfinite().all():
        raise DNPError(
            f"the gradient of the attention maps is not finite at sigma {sigma.max().item():.3g}: use --dtype float32"
        )
    return losses.detach(), found
