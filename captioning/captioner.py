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
        Arguments:
            images: The images, of any size and mode.

        Returns:
            One text per image, in the same order.
        """
        ...
