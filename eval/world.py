r"""The drawn world's language: what a picture of it can hold, and the captions that say so.

A scene is up to two things (a shape in a colour) on a background (a colour with a pattern). Its captions
follow a small grammar, ``[THINGS] [on BACKGROUND]``, any part of which may be left out::

    a red circle and a blue square on a dotted pink background
    a circle and a square              a red circle on a background... is not a caption: say its colour or pattern
    a dotted background                (the empty caption says nothing)

The same words serve the training of the embedded model, the judge that reads its pictures and the prompt set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
COLOURS = {
    "red": (214, 39, 40),
    "orange": (250, 140, 25),
    "yellow": (248, 222, 60),
    "green": (40, 160, 60),
    "blue": (40, 85, 215),
    "purple": (135, 60, 170),
    "pink": (250, 150, 195),
    "black": (28, 28, 28),
    "gray": (140, 140, 140),
    "white": (245, 245, 245),
}
PATTERNS = ("plain", "striped", "dotted", "checkered")
WORDS = ("a", "an", "and", "on", "background", *SHAPES, *COLOURS, *PATTERNS)


@dataclass(frozen=True)
class Thing:
    """A shape in a colour; None where a caption does not say which."""

    shape: str
    colour: str | None = None


@dataclass(frozen=True)
class Scene:
    """Things from left to right, on a background; None where a caption does not say."""

    things: tuple[Thing, ...] = ()
    colour: str | None = None
    pattern: str | None = None

    def holds(self, thing: Thing) -> bool:
        """Whether a thing of this shape (and, where given, this colour) is in the scene."""
        return any(t.shape == thing.shape and thing.colour in (None, t.colour) for t in self.things)

    def same_as(self, other: Scene) -> bool:
        """Whether both show the same, whichever thing stands further left."""
        return (set(self.things), self.colour, self.pattern) == (
            set(other.things),
            other.colour,
            other.pattern,
        )

    def neglects(self, thing: Thing) -> bool:
        """Whether no thing of this shape is there, whatever its colour: the entity is ignored."""
        return not self.holds(Thing(thing.shape))


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def describe(scene: Scene) -> str:
    """The caption of a scene: everything that it says, in the world's grammar.

    >>> describe(Scene((Thing("circle", "red"), Thing("star")), "pink", "dotted"))
    'a red circle and a star on a dotted pink background'
    """
    things = " and ".join(_with_article(f"{t.colour or ''} {t.shape}".strip()) for t in scene.things)
    ground = " ".join(word for word in (scene.pattern, scene.colour) if word)
    ground = _with_article(f"{ground} background") if ground else ""
    return " on ".join(part for part in (things, ground) if part)


_THING = re.compile(rf"^an? (?:({'|'.join(COLOURS)}) )?({'|'.join(SHAPES)})$")
_GROUND = re.compile(rf"^an? (?:({'|'.join(PATTERNS)}) )?(?:({'|'.join(COLOURS)}) )?background$")


def parse(caption: str) -> Scene:
    """What a caption says: the inverse of `describe`.

    Raises:
        ValueError: the caption is not in the world's grammar; the message names the part that is not.
    """
    things: list[Thing] = []
    ground: re.Match[str] | None = None
    text = " ".join(caption.lower().split())
    head, _, tail = text.partition(" on ")
    if not tail and head.endswith(" background"):
        head, tail = "", head
    for part in head.split(" and ") if head else ():
        match = _THING.match(part)
        if not match:
            raise ValueError(f"{part!r} in {caption!r} is no thing of the drawn world (such as 'a red circle')")
        things.append(Thing(match[2], match[1]))
    if tail:
        ground = _GROUND.match(tail)
        if not ground:
            raise ValueError(
                f"{tail!r} in {caption!r} is no background of the drawn world (such as 'a dotted pink background')"
            )
    return Scene(tuple(things), ground[2] if ground else None, ground[1] if ground else None)
