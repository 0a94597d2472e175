"""Prompts as Stable Diffusion's text encoders read them, longer than they take at once in parts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import lcm
from typing import Any

import torch
from torch import Tensor

from dnp.models.checkpoint import Parts
from dnp.models.textual_inversion import pattern


class Texts:
    """Texts → what the U-Net of a Stable Diffusion takes of them.

    A text of more tokens than an encoder takes is read as most tools read it: cut into parts of as many tokens as fit
    between its begin and end tokens (75 of 77), each encoded by itself, the results one after the other. No model was
    trained on that, but cross-attention takes any number of them. SDXL's pooled embedding is the first part's.

    Args:
        zeros: Whether the empty text is an embedding of zeros, instead of its encoding.
        words: Words in lower case that stand for learned vectors, with their tokens (see `textual_inversion`).
    """

    def __init__(self, parts: Parts, zeros: bool, words: Mapping[str, list[int]] | None = None) -> None:
        self.words = words or {}
        self._learned = pattern(list(self.words)) if self.words else None
        self.tokenizers, self.encoders, self.xl, self.zeros = parts.tokenizers, parts.text_encoders, parts.xl, zeros
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
        return len(self._tokens(prompt, 0)), self._room(0)

    def _room(self, i: int) -> int:
        most: int = self.encoders[i].config.max_position_embeddings
        return min(self.tokenizers[i].model_max_length, most) - 2

    def _tokens(self, prompt: str, i: int) -> list[int]:
        found: list[int] = []
        for piece in self._learned.split(prompt) if self._learned else [prompt]:
            learned = self.words.get(piece.lower())
            found += learned or self.tokenizers[i](piece, add_special_tokens=False, verbose=False).input_ids
        return found

    def parts(self, prompt: str, i: int = 0) -> Tensor:
        """The tokens of the parts (k, length), by the i-th tokenizer."""
        tokenizer, room = self.tokenizers[i], self._room(i)
        ids = self._tokens(prompt, i)
        rows = [ids[start : start + room] for start in range(0, max(len(ids), 1), room)]
        begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        return torch.tensor([[begin, *row, end, *[pad] * (room - len(row))] for row in rows])

    @torch.no_grad()
    def _encode(self, prompt: str, device: torch.device) -> tuple[Tensor, Tensor | None]:
        hidden, pooled = [], None
        for i, encoder in enumerate(self.encoders):
            found: Any = encoder(self.parts(prompt, i).to(device), output_hidden_states=self.xl)
            # SDXL reads the last layer but one, without the norm
            hidden.append((found.hidden_states[-2] if self.xl else found.last_hidden_state).flatten(0, 1))
            pooled = found.text_embeds[:1] if self.xl and i else None
        joined = torch.cat(hidden, dim=-1)
        if self.zeros and not prompt:
            return torch.zeros_like(joined), None if pooled is None else torch.zeros_like(pooled)
        return joined, pooled
