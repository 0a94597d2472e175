r"""Captions that never look at what is in the image: the controls of an experiment on captions.

Since 2022 users have reported that negative prompts help which have nothing to do with the image: one
universal list of flaws for every picture, and even a caption picked at random. So a gain measured with
captions says little until it is compared with the gain of these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

from PIL import Image

from captioning.captioner import CaptionError

UNIVERSAL = (
    "ugly",
    "blurry",
    "low quality",
    "worst quality",
    "jpeg artifacts",
    "deformed",
    "disfigured",
    "bad anatomy",
    "extra limbs",
    "mutated hands",
    "poorly drawn face",
    "out of frame",
    "watermark",
    "text",
)
r"""Terms that recur in the lists which practitioners pass around. There is no canonical list and the paper
prints none: this choice is ours."""


@dataclass(frozen=True)
class Fixed:
    r"""The same text for every image, such as a negative prompt that its user wrote by hand.

    Args:
        text: The text.
    """

    text: str
    verbatim: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise CaptionError("a fixed caption needs a text")

    @property
    def name(self) -> str:
        return f"fixed: {self.text}"

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        return [self.text] * len(images)


@dataclass(frozen=True)
class Universal:
    r"""The universal negative list: what nobody wants in any picture, whatever the picture.

    What it gains, an image's own caption must gain on top of.

    Args:
        terms: One's own list. The default is made for models trained on the web's pictures; a model that has
            never seen its words needs another.
    """

    terms: Sequence[str] = UNIVERSAL
    verbatim: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.terms)

    @property
    def name(self) -> str:
        return "universal" if tuple(self.terms) == UNIVERSAL else f"universal, own list {_digest(self.terms)}"

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        return [", ".join(self.terms)] * len(images)


@dataclass(frozen=True)
class RandomCaption:
    r"""A random caption, to be listed from other images.

    It reads like a caption and is about something else: what it gains is owed to having any caption at all,
    not to having the image's own. The draw depends on the pixels and the seed alone, so that batch and order
    do not matter.

    Args:
        captions: What to draw from. Leave out the captions of the very images it will be asked about.
        seed: Another seed draws others.
    """

    captions: Sequence[str]
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.captions)

    @property
    def name(self) -> str:
        return f"random of {len(self.captions)} captions {_digest(self.captions)}, seed {self.seed}"

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        return [self.captions[self._draw(image)] for image in images]

    def _draw(self, image: Image.Image) -> int:
        content = f"{self.seed} {image.size} ".encode() + image.convert("RGB").tobytes()
        return int.from_bytes(sha256(content).digest()[:8], "big") % len(self.captions)


def _check(texts: Sequence[str]) -> None:
    if isinstance(texts, str):  # which is a sequence of strings too, of one letter each
        raise CaptionError(f"a list of texts is needed, not the one text {texts[:60]!r}: put it into a list")
    if not texts or not all(text.strip() for text in texts):
        raise CaptionError("a list of texts is needed, at least one and none of them empty")


def _digest(texts: Sequence[str]) -> str:
    return sha256("\n".join(texts).encode()).hexdigest()[:8]
