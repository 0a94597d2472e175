r"""SynGen: words that belong together are made to be attended to in the same place, and others elsewhere.

For each pair of a noun n and its modifier m, with the words u outside of the noun's own pairs,

.. math:: L = \sum_{(n, m)} \left[ d(m, n) - \tfrac{1}{2}\, \text{mean}_u (d(n, u) + d(m, u)) \right], \qquad
    z \leftarrow z - \alpha \nabla_z L

before each step of the first half, where :math:`d` is the mean of both Kullback-Leibler divergences between maps that
are normalised over the picture. Of words of several tokens it is the largest between any two.

References:
    Linguistic binding in diffusion models: enhancing attribute correspondence through attention map alignment,
    Rassin et al., NeurIPS 2023, https://arxiv.org/abs/2306.08877
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from dnp.attention.attend_and_excite import map_size
from dnp.attention.layers import Grid
from dnp.attention.maps import Maps, gradient
from dnp.attention.words import Words
from dnp.errors import DNPError
from samplers import Step

Pair = tuple[str, str]
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "grey", "black", "white")
_ARTICLES = ("a", "an", "the")


@dataclass(frozen=True)
class SynGen:
    r"""What to bind. The values are the paper's.

    Args:
        pairs: (modifier, noun), words of the prompt: see `dnp.attention.words`. By default "a COLOUR NOUN" is read by
            :func:`colour_pairs`, which knows no other grammar.
        until: The fraction of the steps that are altered.
        step_size: :math:`\alpha`.
        size: (height, width) of the maps; what the model says by default, or a quarter of the latents'.
    """

    pairs: Sequence[Pair] | None = None
    until: float = 0.5
    step_size: float = 20.0
    size: Grid | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.until <= 1:
            raise DNPError(f"SynGen: until is a fraction from 0 to 1, not {self.until}")
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise DNPError(f"SynGen: the step size is a positive number, not {self.step_size}")

    def on(self, model: Any, prompts: Sequence[str], condition: Mapping[str, Any] | None = None) -> Binding:
        r"""The hook for a batch of prompts: see `AttendAndExcite.on`.

        Raises:
            DNPError: A word is not in a prompt; no pair is found in one.
        """
        return Binding(self, model, prompts, model.encode(prompts) if condition is None else condition)


class Binding:
    r"""What `samplers.sample` takes as its hook, for one batch of samples that do not depend on each other.

    Attributes:
        evaluations: The forwards with a gradient that each sample took, beside those of its guidance.
    """

    def __init__(self, how: SynGen, model: Any, prompts: Sequence[str], condition: Mapping[str, Any]) -> None:
        self.how, self.model, self.condition = how, model, condition
        self.grid = map_size(model, how.size)
        self.words = [Words(model.texts, prompt) for prompt in prompts]
        found = [colour_pairs(words.prompt) if how.pairs is None else how.pairs for words in self.words]
        self.pairs = [
            [(words.tokens(modifier), words.tokens(noun)) for modifier, noun in pairs]
            for words, pairs in zip(self.words, found, strict=True)
        ]
        self.evaluations = [0] * len(prompts)

    def __call__(self, step: Step) -> Tensor | None:
        if step.count is None:
            raise DNPError("SynGen needs to know the number of steps: take a sampler with a schedule")
        if step.index >= math.ceil(self.how.until * step.count):
            return None
        _, found = gradient(self.model, step.x, step.sigma, self.condition, self.loss, self.grid)
        self.evaluations = [count + 1 for count in self.evaluations]
        return step.x - self.how.step_size * (1 + step.level**2) * found

    def loss(self, maps: Maps) -> Tensor:
        r"""The loss of each sample :math:`(B)`."""
        return torch.stack(
            [
                binding(words.maps(attention), pairs, words.count)
                for attention, words, pairs in zip(maps.mean, self.words, self.pairs, strict=True)
            ]
        )


def binding(attention: Tensor, pairs: Sequence[tuple[list[int], list[int]]], count: int) -> Tensor:
    r"""The loss of one prompt.

    Args:
        attention: Its maps :math:`(H W, tokens)`, without begin and end.
        pairs: The tokens of each modifier and its noun.
        count: The tokens that the prompt has; what follows is padding.
    """
    logs = (attention[:, :count] / attention[:, :count].sum(0)).clamp(min=1e-20).log()

    def distance(one: Sequence[int], other: Sequence[int]) -> Tensor:
        a, b = (torch.stack([logs[:, token] for token in tokens]) for tokens in zip(*product(one, other), strict=True))
        return (0.5 * ((a.exp() - b.exp()) * (a - b)).sum(-1)).amax()

    total = attention.new_zeros(())
    for modifier, noun in pairs:
        phrase = {token for m, n in pairs if n == noun for token in [*m, *n]}
        outside = [token for token in range(count) if token not in phrase]
        total = total + distance(modifier, noun)
        if outside:
            far = [distance(noun, [token]) + distance(modifier, [token]) for token in outside]
            total = total - 0.5 * torch.stack(far).mean()
    return total


def read_pairs(text: str) -> list[Pair]:
    r"""(modifier, noun) of a text such as "red:car, white:clock".

    Raises:
        DNPError: It is of another form.
    """
    pairs = [tuple(word.strip() for word in pair.split(":")) for pair in text.split(",")]
    if wrong := [pair for pair in pairs if len(pair) != 2 or not all(pair)]:
        raise DNPError(f"{':'.join(wrong[0])!r} is no pair of a modifier and its noun: write red:car, white:clock")
    return pairs  # type: ignore[return-value]


def colour_pairs(prompt: str) -> list[Pair]:
    r"""(colour, noun) of each "a COLOUR NOUN" in a prompt: an article, one of `COLOURS`, and a word.

    A word said twice is named by its place, as in "red#2".

    Raises:
        DNPError: There is none.
    """
    words = "".join(c if c.isalnum() or c in "'-" else f" {c} " for c in prompt.lower()).split()

    def named(place: int) -> str:
        word = words[place]
        return f"{word}#{words[: place + 1].count(word)}" if words.count(word) > 1 else word

    found = [
        (named(i + 1), named(i + 2))
        for i in range(len(words) - 2)
        if words[i] in _ARTICLES and words[i + 1] in COLOURS and words[i + 2].isalnum()
    ]
    if not found:
        raise DNPError(f'no "a COLOUR NOUN" in the prompt {prompt!r}: name the pairs, such as red:car')
    return found


def spacy_pairs(prompt: str, parser: str) -> list[Pair]:
    r"""(modifier, noun) of a prompt by a parser of spaCy that the user has.

    Args:
        prompt: A text.
        parser: The name or path of a spaCy model, such as "en_core_web_trf".

    Raises:
        DNPError: spaCy or the parser is not there; no pair is found.
    """
    try:
        import spacy

        parse = spacy.load(parser)
    except (ImportError, OSError):
        raise DNPError(
            f"the spaCy model {parser!r} is not installed: install spaCy and it, or name the pairs, such as red:car"
        ) from None
    modifies = ("amod", "nmod", "compound", "npadvmod", "advmod", "acomp")
    said, pairs = [token.text.lower() for token in parse(prompt)], []

    def named(token: Any) -> str:
        word = token.text.lower()
        return f"{word}#{said[: token.i + 1].count(word)}" if said.count(word) > 1 else word

    for token in parse(prompt):
        noun = token.head
        if token.dep_ == "acomp" and noun.pos_ == "AUX":  # "the car is red"
            noun = next((child for child in noun.children if child.dep_ == "nsubj"), noun)
        if token.dep_ in modifies and noun.pos_ in ("NOUN", "PROPN"):
            pairs.append((named(token), named(noun)))
    if not pairs:
        raise DNPError(f"the spaCy model {parser!r} finds no pair in {prompt!r}: name the pairs, such as red:car")
    return pairs
