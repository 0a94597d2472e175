r"""What every captioner is."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from PIL import Image

INSTRUCTION = "Describe this image in one plain sentence of fewer than 60 words."
r"""What a chat model is asked by default: our words for what the paper asked people (section 4.3)."""


class CaptionError(ValueError):
    r"""A captioner cannot be loaded, gave no caption, or gave one that cannot be used.

    The message is one line that names what is wrong and the remedy.
    """


class NoCaption(str):
    r"""The empty text of an image for which a captioner has no caption, with the reason.

    A captioner of many images gives it in place of one text, so that the others are kept.
    :func:`captioning.usable` raises the reason.

    Args:
        why: One line that names the captioner and the remedy.
    """

    why: str

    def __new__(cls, why: str) -> "NoCaption":
        self = super().__new__(cls, "")
        self.why = why
        return self


@runtime_checkable
class Captioner(Protocol):
    r"""Anything that describes images.

    A caption depends only on its own image, never on the others of the batch or on their order. The texts are
    raw: :func:`captioning.usable` makes them fit for a text encoder.
    """

    @property
    def name(self) -> str:
        r"""What made the captions, as recorded beside them."""
        ...

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        r"""
        Args:
            images: The images, of any size and mode.

        Returns:
            One text per image, in the same order.
        """
        ...
