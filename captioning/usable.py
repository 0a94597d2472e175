r"""The step that makes any caption usable as a prompt."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unicodedata import category

from PIL import Image

from captioning.captioner import Captioner, CaptionError, NoCaption

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_WORDS = 59
r"""The paper asked people for "a caption shorter than 60 words" (section 4.3)."""

MAX_TOKENS = 75
r"""CLIP's text encoder takes 77 tokens, of which the first and the last are its own."""

REFUSAL = re.compile(
    r"(i['’]?m|i am|we['’]re) (very )?(sorry|unable|not able)\b|sorry, |i (can['’]?t|cannot) |as an ai\b", re.I
)
r"""How a model begins that will not describe a picture. A caption does not speak of itself."""

QUOTES = (('"', '"'), ("'", "'"), ("`", "`"), ("“", "”"), ("‘", "’"), ("«", "»"))


@dataclass(frozen=True)
class Caption:
    r"""A caption as it was given, and as it is used."""

    raw: str
    used: str


def usable(
    raw: str,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    max_words: int = MAX_WORDS,
    max_tokens: int = MAX_TOKENS,
) -> Caption:
    r"""Makes a caption usable as a prompt.

    White space is joined, control characters and quotes around the whole text go, a text that loops to its
    end keeps one turn of the loop, and what is too long is cut between two words. Nothing else changes: a
    preamble such as "the image shows" stays, for only its author knows whether it belongs to the caption.

    A used caption is used as it is: ``usable(c.used).used == c.used``.

    Args:
        raw: The caption as the captioner gave it.
        tokenizer: The text encoder's own tokenizer. Without it tokens are not counted.
        max_words: The most words.
        max_tokens: The most tokens, not counting those that the tokenizer adds itself (BOS, EOS). A tokenizer
            whose ``model_max_length`` leaves room for fewer lowers it.

    Returns:
        Both texts.

    Raises:
        CaptionError: Nothing usable is left, or the text is a refusal.
    """

    if isinstance(raw, NoCaption):
        raise CaptionError(raw.why)
    used, before = raw, None

    # Each step can make work for another (a cut can end in a loop, or just before a closing quote). All of
    # them only ever shorten the text, so that this ends.
    while used != before:
        before = used
        used = _unquote(" ".join(_visible(used).split()))
        words = _unloop(used.split())[:max_words]
        used = " ".join(_fit(words, tokenizer, max_tokens)).rstrip(" ,;:")

    if REFUSAL.match(used):
        raise CaptionError(f"the captioner did not describe the picture, but said {used[:60]!r}: take another one")
    if not any(c.isalnum() for c in used):
        raise CaptionError(f"the caption {raw[:60]!r} has no words: write one, or take another captioner")

    return Caption(raw, used)


def captions_of(
    captioner: Captioner, images: Sequence[Image.Image], tokenizer: "PreTrainedTokenizerBase | None" = None
) -> list[Caption]:
    r"""One usable caption per image.

    What a person wrote (a captioner whose ``verbatim`` is true, such as :class:`captioning.Person` or
    :class:`captioning.Fixed`) is used as it is; what a model says goes through :func:`usable`.

    Args:
        captioner: What describes the images.
        images: The images, of any size and mode.
        tokenizer: The text encoder's own tokenizer.

    Raises:
        CaptionError: An image has no usable caption, or the captioner gave another number of texts.
    """

    raw = captioner(images)
    if isinstance(raw, str) or len(raw) != len(images):
        given = "one text" if isinstance(raw, str) else f"{len(raw)} texts"
        raise CaptionError(f"the captioner {captioner.name} gave {given} for {len(images)} images: one each is needed")
    if getattr(captioner, "verbatim", False):
        return [Caption(text, text) for text in raw]
    return [usable(text, tokenizer) for text in raw]


def _visible(text: str) -> str:
    # Line breaks and tabs separate words. Other control (Cc) and format (Cf) characters are not seen, so
    # nobody meant them, and a lone surrogate (Cs) can neither be tokenised nor written to a file.
    return "".join(" " if c.isspace() else "" if category(c) in ("Cc", "Cf", "Cs") else c for c in text)


def _unquote(text: str) -> str:
    # '"Stop" says "go"' begins and ends with a quote and is not quoted: only a pair with none inside is
    # around it all.
    for left, right in QUOTES:
        inner = text[1:-1]
        if text == left + inner + right and left not in inner and right not in inner:
            return inner
    return text


def _unloop(words: list[str]) -> list[str]:
    # A tail that says the same n words three times or more, the last time perhaps in part. Twice is left
    # alone: it may be meant ("New York, New York").
    keys = [w.strip(".,;:!?").casefold() for w in words]
    for n in range(1, len(words) // 3 + 1):
        end = len(keys)
        while end > n and keys[end - 1] == keys[end - 1 - n]:
            end -= 1
        if len(keys) - end >= 2 * n:
            return words[:end]
    return words


def _fit(words: list[str], tokenizer: "PreTrainedTokenizerBase | None", max_tokens: int) -> list[str]:
    if tokenizer is None or not words:
        return words

    limit = min(max_tokens, tokenizer.model_max_length - tokenizer.num_special_tokens_to_add())
    for end in range(len(words), 0, -1):
        tokens = tokenizer(" ".join(words[:end]), add_special_tokens=False, verbose=False)["input_ids"]
        if len(tokens) <= limit:
            return words[:end]

    raise CaptionError(f"the caption's first word {words[0][:60]!r} alone is longer than {limit} tokens")
