r"""Structured diffusion guidance: the values of cross-attention are of each noun phrase by itself.

Each phrase is encoded alone, and its rows are written over the same rows of the whole prompt's encoding, :math:`W_i`.
Keys are of the whole, :math:`W_0`, and a layer gives :math:`\frac{1}{k + 1} \sum_i A V(W_i)`, so that a colour does not
leak from one phrase into another. Values are linear in the text: this is :math:`A V(\text{mean } W_i)`, which costs
nothing.

References:
    Training-free structured diffusion guidance for compositional text-to-image synthesis, Feng et al., ICLR 2023,
    https://arxiv.org/abs/2212.05032
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dnp.attention.layers import Change, Grid, layers
from dnp.attention.words import Words


@dataclass(frozen=True)
class Values(Change):
    r"""Cross-attention whose values are of another encoding than its keys."""

    def hooks(self, unet: nn.Module, size: Grid, **states: Tensor) -> Iterator[RemovableHandle]:
        r"""See :class:`Change`. `values` :math:`(B, tokens, width)` is what they are of."""
        for layer in layers(unet, "cross").values():
            projection: Any = layer.to_v
            yield projection.register_forward_pre_hook(lambda layer, args: (states["values"],))


def structured(model: Any, prompts: Sequence[str], phrases: Sequence[Sequence[str]] | None = None) -> dict[str, Any]:
    r"""The condition of prompts whose noun phrases are read apart.

    Args:
        model: A text-to-image model with `texts`.
        prompts: B texts.
        phrases: Those of each prompt, as they are in it; by default the prompt split at " and " and " with ".

    Raises:
        DNPError: A phrase is not in its prompt.
    """
    condition: Mapping[str, Any] = model.encode(prompts)
    whole: Tensor = condition["encoder_hidden_states"]
    values = []
    for place, prompt in enumerate(prompts):
        words = Words(model.texts, prompt)
        rows = [whole[place]]
        for phrase in words.phrases() if phrases is None else phrases[place]:
            (alone,) = model.encode([phrase])["encoder_hidden_states"]
            row = whole[place].clone()
            for said in words.places(phrase):
                there, own = words.columns(said, len(row)), Words(model.texts, phrase).columns(range(len(said)))
                row[there] = alone[own].repeat(len(there) // len(own), 1)
            rows.append(row)
        values.append(torch.stack(rows).mean(0))
    return {**condition, "attention": {"change": Values(), "values": torch.stack(values)}}
