r"""Normalised attention guidance: negatives inside of cross-attention, at no evaluation more.

.. math::
    \tilde Z = Z^+ + \phi (Z^+ - Z^-), \quad r = \|\tilde Z\|_1 / \|Z^+\|_1, \quad
    Z = \alpha \tilde Z \min(r, \tau) / r + (1 - \alpha) Z^+

where :math:`Z^\pm` is what a layer reads from the prompt and from the negative with the same queries, and norms are of
each point. Few-step and distilled models, which are sampled without a second prediction, can have negatives that way;
with the caption of a diffusion-negative picture it is DNP for them.

References:
    Normalized attention guidance: universal negative guidance for diffusion models, Chen et al., NeurIPS 2025,
    https://arxiv.org/abs/2505.21179
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dnp.attention.layers import Change, Grid, argument, layers
from dnp.errors import DNPError


@dataclass(frozen=True)
class NAG(Change):
    r"""How strong the negative is.

    Args:
        scale: :math:`\phi`. The published codes ask for :math:`\phi + 1`: their 5 is 4 here.
        tau: The most that a point may grow, :math:`\tau`.
        alpha: How much of the result is guided, :math:`\alpha`.

    Raises:
        DNPError: A number is out of its range.
    """

    scale: float = 4.0
    tau: float = 2.5
    alpha: float = 0.5

    def __post_init__(self) -> None:
        for name, value, most in (
            ("scale", self.scale, math.inf),
            ("tau", self.tau, math.inf),
            ("alpha", self.alpha, 1),
        ):
            if not (0 <= value <= most and math.isfinite(value)):
                raise DNPError(f"normalised attention guidance: {name} is a number from 0 to {most}, not {value}")

    def condition(self, positive: Mapping[str, Any], negative: Mapping[str, Any]) -> dict[str, Any]:
        r"""The condition of a prompt that turns from a negative, both as a model encodes them."""
        return {**positive, "attention": {"change": self, "negative": negative["encoder_hidden_states"]}}

    def hooks(self, unet: nn.Module, size: Grid, **states: Tensor) -> Iterator[RemovableHandle]:
        r"""See :class:`Change`. `negative` :math:`(B, tokens, width)` is the encoding of the negatives."""
        for layer in layers(unet, "cross").values():
            yield from self._guide(layer, states["negative"])

    def _guide(self, attn: Any, negative: Tensor) -> Iterator[RemovableHandle]:
        queries: list[Tensor] = []

        def look(layer: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
            if isinstance(argument(args, kwargs, 1, "encoder_hidden_states"), tuple):
                raise DNPError("normalised attention guidance is not for image adapters: leave one of them out")

        def guide(layer: nn.Module, args: Sequence[Any]) -> tuple[Tensor, ...]:
            return (self.combined(args[0], read(attn, queries.pop(), negative)),)

        yield attn.register_forward_pre_hook(look, with_kwargs=True)
        yield attn.to_q.register_forward_hook(lambda layer, args, q: queries.append(q))
        yield attn.to_out[0].register_forward_pre_hook(guide)

    def combined(self, positive: Tensor, negative: Tensor) -> Tensor:
        r"""What a layer goes on with, of what it reads from the prompt and the negative, all :math:`(B, H W, C)`."""
        far = positive + self.scale * (positive - negative)
        size = positive.abs().sum(-1, keepdim=True)
        # min(r, tau) / r without a division by zero
        shrink = (self.tau * size / far.abs().sum(-1, keepdim=True).clamp(min=torch.finfo(far.dtype).tiny)).clamp(max=1)
        return self.alpha * shrink * far + (1 - self.alpha) * positive


def read(attn: Any, q: Tensor, text: Tensor) -> Tensor:
    r"""What a cross-attention layer of diffusers reads from another text by its queries :math:`(B, H W, C)`."""
    if attn.norm_cross:
        text = attn.norm_encoder_hidden_states(text)
    split = [x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, attn.to_k(text), attn.to_v(text))]
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(-2)
