"""Where the negative prompts of a comparison come from: one entry each. Imports no torch, as lists and help do not."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dnp.errors import DNPError
from eval import world
from eval.prompts import Prompt

_FUNCTION_WORDS = frozenset(
    "a an the and or but of on in at by to for from with without near next over under behind before beside between "
    "into onto its his her their some is are it this that there".split()
)


@dataclass(frozen=True)
class Asked:
    """What a negative prompt may depend on, if it is no caption.

    Args:
        others: Texts that a random one is drawn from.
        universal: The list for all pictures.
    """

    prompt: str
    seed: int
    others: Sequence[str]
    universal: str


@dataclass(frozen=True)
class Source:
    """Where negative prompts come from.

    Args:
        about: A line for help and docs.
        captions: Which prompt's diffusion-negative picture is captioned, the "own" or that of "another"; None for no
            caption.
        part: (caption, prompt) → what is used of a caption; "" is no negative prompt.
        text: The negative prompt where it is no caption.
        check: Refuses (prompts, others) that it cannot serve.
    """

    about: str
    captions: Literal["own", "another"] | None = None
    part: Callable[[str, str], str] = lambda caption, prompt: caption
    text: Callable[[Asked], str] = lambda asked: ""
    check: Callable[[Sequence[Prompt], Sequence[str]], object] = lambda prompts, others: None


def _random(asked: Asked) -> str:
    draw = random.Random(f"{asked.prompt}/{asked.seed}")
    return next(text for text in iter(lambda: draw.choice(asked.others), None) if text != asked.prompt)


def _check_others(prompts: Sequence[Prompt], others: Sequence[str]) -> None:
    if not all(set(others) - {prompt.text} for prompt in prompts):
        raise DNPError("the arm random needs other prompts to draw from")


def _check_two(prompts: Sequence[Prompt], others: Sequence[str]) -> None:
    if len(prompts) < 2:
        raise DNPError("the arm shuffled gives a prompt another one's caption, and there is only one prompt")


def _check_world(prompts: Sequence[Prompt], others: Sequence[str]) -> None:
    for prompt in prompts:
        world.parse(prompt.text)  # which says what is not of the drawn world


def without(caption: str, prompt: str) -> str:
    """A caption without a prompt's words, but for articles, prepositions and the like; "" where none is left.

    >>> without("a red balloon on a pink background", "a red balloon and a blue bowl")
    'a pink background'
    """
    dropped = {_key(word) for word in prompt.split()} - _FUNCTION_WORDS
    kept: list[str] = []
    before: list[str] = []  # what stands before the next word that counts
    gap = False
    for word in caption.split():
        if _key(word) in _FUNCTION_WORDS:
            before, gap = [*before[: 0 if gap else None], word], False
        elif _key(word) in dropped:
            gap = True
        else:
            kept, before, gap = [*kept, *before, word], [], False
    # What is left of "a red balloon on a white background" begins with the words that joined it to the balloon.
    while len(kept) > 1 and {_key(kept[0]), _key(kept[1])} <= _FUNCTION_WORDS:
        del kept[0]
    return " ".join(kept)


def _key(word: str) -> str:
    return word.strip(".,;:!?\"'()").casefold()


def background(caption: str) -> str:
    """Of a caption of the drawn world what it says of the background; "" where it says nothing of it, or is none."""
    try:
        return world.describe(replace(world.parse(caption), things=()))
    except ValueError:
        return ""


SOURCES = {
    "none": Source("no negative prompt"),
    "auto": Source("the caption of the diffusion-negative picture", "own"),
    "auto-without-prompt": Source("such a caption without the prompt's own words", "own", without),
    "auto-background": Source(
        "of such a caption only what it says of the background, in the drawn world's grammar",
        "own",
        lambda caption, prompt: background(caption),
        check=_check_world,
    ),
    "shuffled": Source(
        "such a caption, but that of another prompt of the same category and the same seed",
        "another",
        check=_check_two,
    ),
    "universal": Source("one list for all pictures", text=lambda asked: asked.universal),
    "random": Source("a prompt of another set, drawn by prompt and seed", text=_random, check=_check_others),
}


def source(negative: str) -> tuple[str, Source]:
    """The name and the source of an arm's `negative`: one of `SOURCES`, or a text, which is used as it is."""
    if negative in SOURCES:
        return negative, SOURCES[negative]
    return "text", Source("a text", text=lambda asked: negative)
