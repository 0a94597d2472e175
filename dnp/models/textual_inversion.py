"""Textual inversions: words that stand for one or several learned vectors, as people share them.

References:
    An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion, Gal et al., 2022,
    https://arxiv.org/abs/2208.01618
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dnp.errors import DNPError
from dnp.models.checkpoint import Parts
from dnp.models.files import PICKLES, finite, read_weights


class Vectors(nn.Module):
    r"""A table of token embeddings with learned vectors beside it, whose tokens are :math:`-1, -2, \dots`

    So they are never larger than the end token, by whose size some text encoders look for it.

    Args:
        table: The text encoder's own, for tokens from 0.
        vectors: Those of the tokens -1, -2, …, with shape (n, width).
    """

    def __init__(self, table: nn.Embedding, vectors: Tensor) -> None:
        super().__init__()
        self.table = table
        self.register_buffer("vectors", vectors.to(table.weight))

    @property
    def weight(self) -> Tensor:
        return self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        learned = tokens < 0
        own = self.table(tokens.clamp(min=0))
        rows: Tensor = self.vectors[(-1 - tokens).clamp(min=0)]  # type: ignore[index]
        return torch.where(learned[..., None], rows, own)


def add(parts: Parts, files: Sequence[str], pickle: bool = False) -> tuple[dict[str, list[int]], list[dict[str, Any]]]:
    """Give the text encoders the vectors of each file, under a word.

    The word is the one in the file in diffusers' format, else the file's name without its ending.

    Args:
        files: .safetensors, or pickled ones.
        pickle: Read pickles too, by torch's loader of weights only.

    Returns:
        Word → its tokens, and for the records, the name, word, number of vectors and SHA-256 of each file.

    Raises:
        DNPError: A file is missing, pickled, no textual inversion, or of another model.
    """
    words: dict[str, list[int]] = {}
    records, rows = [], [[] for _ in parts.text_encoders]  # type: ignore[var-annotated]
    count = 0
    for file in files:
        path = Path(file).expanduser()
        word, tables = _read(path, len(parts.text_encoders), pickle)
        if word.lower() in words or not word.strip():
            raise DNPError(f"the embedding {path} is for the word {word!r}, which another one has: rename the file")
        for encoder, table, found in zip(parts.text_encoders, tables, rows, strict=True):
            width = encoder.get_input_embeddings().weight.shape[1]
            if table.ndim != 2 or table.shape[1] != width or not len(table) or len(table) != len(tables[0]):
                raise DNPError(
                    f"the embedding {path} is for another model: its vectors have the shape {tuple(table.shape)}, the "
                    f"text encoder takes some of width {width}"
                )
            found.append(table)
        words[word.lower()] = [-1 - count - i for i in range(len(tables[0]))]
        count += len(tables[0])
        digest = sha256(path.read_bytes()).hexdigest()
        records.append({"file": path.name, "word": word, "vectors": len(tables[0]), "sha256": digest})
    for encoder, found in zip(parts.text_encoders, rows, strict=True):
        encoder.set_input_embeddings(Vectors(encoder.get_input_embeddings(), torch.cat(found)))
    return words, records


def pattern(words: Sequence[str]) -> re.Pattern[str]:
    """What finds the words in a text: whole words, in upper or lower case, the longest first."""
    ordered = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, ordered))})(?!\w)", re.IGNORECASE)


def _read(path: Path, encoders: int, pickle: bool) -> tuple[str, list[Tensor]]:
    # The word, and a table (n, width) for each text encoder
    if not path.is_file():
        raise DNPError(f"there is no embedding file {str(path)!r}: give its path")
    if path.suffix.lower() not in (".safetensors", *PICKLES):
        raise DNPError(f"the embedding {path} is no .safetensors file: give another")
    held, _ = read_weights(path, pickle)
    word, tables = path.stem, []
    if {"clip_l", "clip_g"} <= held.keys():
        tables = [held["clip_l"], held["clip_g"]]
    elif "string_to_param" in held:
        param = held["string_to_param"]
        tables = list(param.values()) if isinstance(param, dict) else []
    elif "emb_params" in held:
        tables = [held["emb_params"]]
    elif len(held) == 1:
        ((word, table),) = held.items()
        tables = [table]
    if not tables or not all(isinstance(table, Tensor) for table in tables) or len(tables) > 2:
        raise DNPError(f"{path} is no textual inversion of Stable Diffusion: it holds {', '.join(list(held)[:3])}")
    if len(tables) != encoders:
        kinds = {1: "Stable Diffusion 1.x or 2.x", 2: "XL"}
        raise DNPError(f"the embedding {path} is for {kinds[len(tables)]}, the model is not: give one for this model")
    tables = [table.detach().float() if table.ndim > 1 else table.detach().float()[None] for table in tables]
    finite(path, {word: torch.cat([table.flatten() for table in tables])})
    return word, tables
