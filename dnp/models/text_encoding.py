"""Prompts as Stable Diffusion's text encoders read them, longer than they take at once in parts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import lcm
from typing import Any

import torch
from torch import Tensor

from dnp.errors import DNPError
from dnp.models.checkpoint import Parts
from dnp.models.textual_inversion import pattern
from dnp.models.word_weights import parse_weights


class Texts:
    """Texts → what the U-Net of a Stable Diffusion takes of them.

    A text of more tokens than an encoder takes is read as most tools read it: cut into parts of as many tokens as fit
    between its begin and end tokens (75 of 77), each encoded by itself, the results one after the other. No model was
    trained on that, but cross-attention takes any number of them. SDXL's pooled embedding is the first part's.

    Words may have weights (see `word_weights`). A token's encoding :math:`c` then becomes :math:`e + w (c - e)`, with
    :math:`e` the encoding of the empty prompt at its place, so that a weight of 0 is as if it were not said. The pooled
    embedding, and what other words make of a word, do not change.

    Args:
        zeros: Whether the empty text is an embedding of zeros, instead of its encoding.
        clip_skip: The layer of the text encoders that is read, counted from the last, which is 1, as in A1111; by
            default what the model was trained with: 1, and 2 for SDXL.
        words: Words in lower case that stand for learned vectors, with their tokens (see `textual_inversion`).
    """

    def __init__(
        self, parts: Parts, zeros: bool, words: Mapping[str, list[int]] | None = None, clip_skip: int | None = None
    ) -> None:
        self.words = words or {}
        self._learned = pattern(list(self.words)) if self.words else None
        self.tokenizers, self.encoders, self.xl, self.zeros = parts.tokenizers, parts.text_encoders, parts.xl, zeros
        self.layer = clip_skip or (2 if self.xl else 1)
        most = min(encoder.config.num_hidden_layers for encoder in self.encoders)
        if not 1 <= self.layer <= most:
            raise DNPError(f"clip skip is from 1 (the last layer) to {most} in this model, not {clip_skip}")
        self._encoded = lru_cache(maxsize=256)(self._encode)

    def __call__(self, prompts: list[str], device: torch.device) -> tuple[Tensor, Tensor | None]:
        """B texts, each encoded by itself → (B, tokens, width), and SDXL's pooled embeddings (B, width)."""
        found = [self._encoded(prompt, device) for prompt in prompts]
        # Repeated to the same length: attention over the same keys twice is attention over them once.
        length = lcm(*(len(hidden) for hidden, _ in found))
        hidden = torch.stack([hidden.repeat(length // len(hidden), 1) for hidden, _ in found])
        return hidden, torch.cat([pooled for _, pooled in found if pooled is not None]) if self.xl else None

    def forget(self) -> None:
        """Encode texts anew that were encoded before."""
        self._encoded.cache_clear()

    def count(self, prompt: str) -> tuple[int, int]:
        """How many tokens a prompt has, without begin and end, and how many are read at once."""
        return len(self._tokens(prompt, 0)[0]), self._room(0)

    def _room(self, i: int) -> int:
        most: int = self.encoders[i].config.max_position_embeddings
        return min(self.tokenizers[i].model_max_length, most) - 2

    def pieces(self, prompt: str, i: int = 0) -> list[list[int]]:
        """The tokens of a text by the i-th tokenizer, those of each learned word apart from what is between them."""
        return [tokens for tokens, _ in self._pieces(prompt, i)]

    def _pieces(self, prompt: str, i: int) -> list[tuple[list[int], float]]:
        return [
            (
                self.words.get(piece.lower())
                or self.tokenizers[i](piece, add_special_tokens=False, verbose=False).input_ids,
                weight,
            )
            for text, weight in parse_weights(prompt)
            for piece in (self._learned.split(text) if self._learned else [text])
        ]

    def _tokens(self, prompt: str, i: int) -> tuple[list[int], list[float]]:
        pieces = self._pieces(prompt, i)
        return [t for tokens, _ in pieces for t in tokens], [weight for tokens, weight in pieces for _ in tokens]

    def parts(self, prompt: str, i: int = 0) -> Tensor:
        """The tokens of the parts (k, length), by the i-th tokenizer."""
        return self._parts(prompt, i)[0]

    def _parts(self, prompt: str, i: int) -> tuple[Tensor, Tensor]:
        r"""The tokens of the parts and their weights, both :math:`(k, L)`."""
        tokenizer, room = self.tokenizers[i], self._room(i)
        ids, weights = self._tokens(prompt, i)
        begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        starts = range(0, max(len(ids), 1), room)
        rows = [ids[start : start + room] for start in starts]
        told = [weights[start : start + room] for start in starts]
        return (
            torch.tensor([[begin, *row, end, *[pad] * (room - len(row))] for row in rows]),
            torch.tensor([[1.0, *row, *[1.0] * (room + 1 - len(row))] for row in told]),
        )

    @torch.no_grad()
    def _encode(self, prompt: str, device: torch.device) -> tuple[Tensor, Tensor | None]:
        hidden, pooled = [], None
        for i, encoder in enumerate(self.encoders):
            tokens, weights = (found.to(device) for found in self._parts(prompt, i))
            found: Any = encoder(tokens, output_hidden_states=self.xl or self.layer > 1)
            rows = self._read(encoder, found)
            if not (weights == 1).all():
                nothing = encoder(self._parts("", i)[0].to(device), output_hidden_states=self.xl or self.layer > 1)
                empty = self._read(encoder, nothing)
                rows = empty + weights[..., None].to(rows) * (rows - empty)
            hidden.append(rows.flatten(0, 1))
            pooled = found.text_embeds[:1] if self.xl and i else None
        joined = torch.cat(hidden, dim=-1)
        if self.zeros and not prompt:
            return torch.zeros_like(joined), None if pooled is None else torch.zeros_like(pooled)
        return joined, pooled

    def _read(self, encoder: Any, found: Any) -> Tensor:
        r"""The layer that is read, :math:`(k, L, D)`; SDXL reads it without the norm that follows the last."""
        if self.layer == 1 and not self.xl:
            return found.last_hidden_state
        rows: Tensor = found.hidden_states[-self.layer]
        return rows if self.xl else getattr(encoder, "text_model", encoder).final_layer_norm(rows)
