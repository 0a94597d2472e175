r"""Which tokens a word of a prompt has.

One rule for everything here: a word is whole words of the prompt (several are a phrase), never a piece of one, and
means all of its tokens at all of its places; "cat#2" means its second place alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dnp.errors import DNPError
from dnp.models.text_encoding import Texts
from dnp.models.word_weights import parse_weights

_BETWEEN = re.compile(r"\s(?:and|with)(?=\s)", re.IGNORECASE)
_PLACE = re.compile(r"(.*\S)#([1-9]\d*)")


class Words:
    r"""The words of a prompt and their tokens.

    Args:
        texts: The text encoding of a Stable Diffusion.
        prompt: A text; the weights of its words, as in "(cat:1.2)", are none of its words.
    """

    def __init__(self, texts: Texts, prompt: str) -> None:
        self.texts, self.prompt = texts, "".join(text for text, _ in parse_weights(prompt))
        self._words = self._split(prompt)
        self._parts = tuple(texts.parts(prompt).shape)

    def _split(self, text: str) -> list[tuple[str, ...]]:
        # The tokens of each word: CLIP marks the end of one; a learned word is a piece of its own
        words: list[tuple[str, ...]] = []
        for piece in self.texts.pieces(text):
            now: list[str] = []
            for token in self.texts.tokenizers[0].convert_ids_to_tokens(piece):
                now.append(token)
                if token.endswith("</w>"):
                    words.append(tuple(now))
                    now = []
            words += [tuple(now)] if now else []
        return words

    @property
    def count(self) -> int:
        r"""The tokens of the prompt, without begin, end and padding."""
        return sum(map(len, self._words))

    def places(self, word: str) -> list[list[int]]:
        r"""The tokens of each place where a word is said, counted from 0 without begin, end and padding.

        Raises:
            DNPError: The word is not in the prompt.
        """
        match = _PLACE.fullmatch(word)
        text, nth = (match[1], int(match[2])) if match else (word, None)
        wanted, starts = self._split(text), [0]
        for tokens in self._words:
            starts.append(starts[-1] + len(tokens))
        found = [
            list(range(starts[i], starts[i + len(wanted)]))
            for i in range(len(self._words) - len(wanted) + 1)
            if wanted and self._words[i : i + len(wanted)] == wanted
        ]
        if not found:
            raise DNPError(f"the word {text!r} is not in the prompt {self.prompt!r}: name words that are")
        if nth is not None and nth > len(found):
            raise DNPError(f"{word!r}: the prompt {self.prompt!r} says {text!r} {len(found)} times: name one of them")
        return found if nth is None else [found[nth - 1]]

    def tokens(self, word: str) -> list[int]:
        r"""All tokens of a word at all its places, or at the one named."""
        return [token for place in self.places(word) for token in place]

    def phrases(self) -> list[str]:
        r"""The prompt split at " and " and " with ", without weights, each to be read as a prompt."""
        return [_literal(phrase) for phrase in self._phrases()]

    def _phrases(self) -> list[str]:
        starts, ends = [0], []
        for match in _BETWEEN.finditer(self.prompt):
            ends.append(match.start())
            starts.append(match.end())
        spans = zip(starts, [*ends, len(self.prompt)], strict=True)
        return [phrase for start, end in spans if (phrase := self.prompt[start:end].strip())]

    def entities(self) -> list[str]:
        r"""The last word of each phrase, where the prompt is a list of entities.

        Of a word that is said again, the place: "a cat and a cat" has the entities "cat#1" and "cat#2".

        Raises:
            DNPError: The prompt has no word.
        """
        found, end = [], 0
        for phrase in self._phrases():
            end = self.prompt.index(phrase, end) + len(phrase)
            if last := re.search(r"(\w[\w'-]*)\W*$", phrase):
                word = last[1]
                before = Words(self.texts, _literal(self.prompt[: end - len(phrase) + last.end(1)]))
                several = len(self.places(word)) > 1
                found.append(f"{word}#{len(before.places(word))}" if several else word)
        if not found:
            raise DNPError(f"the prompt {self.prompt!r} has no word to attend to")
        return found

    def columns(self, tokens: Iterable[int], length: int | None = None) -> list[int]:
        r"""The columns of tokens in the encoding of the prompt, which is repeated up to a `length`, copy by copy."""
        parts, size = self._parts
        own = [token // (size - 2) * size + 1 + token % (size - 2) for token in tokens]
        return [copy + column for copy in range(0, length or parts * size, parts * size) for column in own]

    def maps(self, attention: Tensor) -> Tensor:
        r"""Attention to the tokens of a text, without the columns of begin and of the last token.

        Args:
            attention: :math:`(..., tokens)`, of the whole encoding: in a batch with a longer text, the encoding of this
                one is repeated, and a token has the sum of its columns.

        Returns:
            :math:`(..., k n)`, where the k parts of the text have n + 2 tokens; tokens are counted as in `places`.
        """
        parts, length = self._parts
        repeated = attention.unflatten(-1, (-1, parts, length)).sum(-3)
        return repeated[..., 1:-1].flatten(-2)


def _literal(text: str) -> str:
    # Brackets of a plain text would be read as those of weights
    return re.sub(r"([()\\])", r"\\\1", text)


def words_of(texts: Texts, prompt: str, words: Sequence[str] | None) -> tuple[Words, list[str]]:
    r"""The words of a prompt with those to attend to, its entities by default.

    Raises:
        DNPError: One is not in the prompt; there is none.
    """
    said = Words(texts, prompt)
    if words is not None and not words:
        raise DNPError("no word to attend to: name some, or leave them out for the last word of each entity")
    chosen = list(words) if words is not None else said.entities()
    for word in chosen:
        said.places(word)
    return said, chosen


def word_map(probabilities: Tensor, tokens: list[int]) -> Tensor:
    r"""The map of a word of several tokens: at each point, that of the token attended to most.

    Args:
        probabilities: :math:`(..., tokens)`.
        tokens: Of the word, by :meth:`Words.tokens`.
    """
    return torch.stack([probabilities[..., token] for token in tokens]).amax(0)
