r"""The embedded model's language: what a picture of its world can hold, and the captions that say so.

The words are those of the Attend-and-Excite benchmark: twelve animals, twelve things and eleven colours, and beside
them eight places. Captions follow the benchmark's forms, any part of which may be left out::

    a cat and a dog                    two animals (in their own colours)
    a cat and a red balloon            an animal and a thing
    a red car and a white clock        two things
    a dog with a crown                 the thing is worn
    a lion on a beach                  ... at a place, or "on a blue background"

The article is "a" throughout, as the benchmark has it ("a elephant"); "an" is understood. The same words serve the
training of the embedded model, the judges that read its pictures, its captioner and the prompt sets.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations

ANIMALS = tuple("cat dog bird bear lion horse elephant monkey frog turtle rabbit mouse".split())
OBJECTS = tuple("backpack glasses crown suitcase chair balloon bow car bowl bench clock apple".split())
NOUNS = ANIMALS + OBJECTS
WEARABLE = ("glasses", "crown", "bow")
COLOURS = {
    "red": (214, 40, 40),
    "orange": (245, 138, 31),
    "yellow": (250, 214, 40),
    "green": (52, 160, 70),
    "blue": (40, 90, 214),
    "purple": (130, 60, 170),
    "pink": (245, 150, 190),
    "brown": (125, 78, 44),
    "gray": (140, 140, 140),
    "black": (38, 38, 40),
    "white": (246, 246, 244),
}
SCENES = {
    "grass": "on grass",
    "snow": "in the snow",
    "beach": "on a beach",
    "night": "at night",
    "street": "on a street",
    "room": "in a room",
    "sea": "at sea",
    "sunset": "at sunset",
}
PLACES = (*SCENES, *COLOURS)  # where a picture can be set; a colour is a plain background
WORDS = tuple(
    dict.fromkeys(
        ["a", "an", "and", "with", *NOUNS, *COLOURS, *" ".join(SCENES.values()).split(), "background"],
    )
)


@dataclass(frozen=True)
class Thing:
    """A noun in a colour; None where it is not said, and for animals, which have their own."""

    noun: str
    colour: str | None = None


@dataclass(frozen=True)
class Scene:
    """Things from left to right, at a place (one of `PLACES`; None: not said); `worn`: the animal wears the thing."""

    things: tuple[Thing, ...] = ()
    place: str | None = None
    worn: bool = False

    def holds(self, thing: Thing) -> bool:
        """Whether there is such a thing (in this colour, if it has one)."""
        return any(t.noun == thing.noun and thing.colour in (None, t.colour) for t in self.things)

    def neglects(self, thing: Thing) -> bool:
        """Whether there is no such thing in any colour."""
        return not self.holds(Thing(thing.noun))

    def same_as(self, other: Scene) -> bool:
        """Whether both show the same, whichever thing stands further left."""
        return (set(self.things), self.place, self.worn) == (set(other.things), other.place, other.worn)


def unseen(first: str, second: str) -> bool:
    """Whether this pair of nouns never occurs together in training: about a fifth of the 276, by a hash of the pair.

    The first byte of the SHA-256 of the two nouns in alphabetical order, joined by a space, is below 51.
    """
    pair = " ".join(sorted((first, second)))
    return hashlib.sha256(pair.encode()).digest()[0] < 51


UNSEEN = frozenset(frozenset(pair) for pair in combinations(NOUNS, 2) if unseen(*pair))


def phrase(thing: Thing) -> str:
    """A thing with its article: "a red car"."""
    return f"a {thing.colour} {thing.noun}" if thing.colour else f"a {thing.noun}"


def where(place: str) -> str:
    """The words for a place: "on a beach", "on a blue background"."""
    return SCENES.get(place) or f"on a {place} background"


def describe(scene: Scene) -> str:
    """The caption of a scene: everything that it says, in the world's grammar.

    >>> describe(Scene((Thing("cat"), Thing("crown", "red")), "beach", worn=True))
    'a cat with a red crown on a beach'
    """
    things = list(scene.things)
    if scene.worn:
        things.sort(key=lambda thing: thing.noun not in ANIMALS)
    said = (" with " if scene.worn else " and ").join(map(phrase, things))
    return " ".join(part for part in (said, scene.place and where(scene.place)) if part)


_THING = re.compile(rf"an? (?:({'|'.join(COLOURS)}) )?({'|'.join(NOUNS)})")
_PLACE = {where(place): place for place in PLACES}


def parse(caption: str) -> Scene:
    """What a caption says: the inverse of `describe`. "an" passes for "a".

    Raises:
        ValueError: the caption is not in the world's grammar; the message names the part that is not, and the nearest
            words that the model knows.
    """
    text = " ".join(caption.lower().replace(",", " ").split()).removesuffix(".")
    place = None
    for words, name in _PLACE.items():
        if text == words or text.endswith(f" {words}"):
            text, place = text.removesuffix(words).strip(), name
            break
    things = []
    worn = " with " in text
    for part in re.split(r" and | with ", text) if text else ():
        match = _THING.fullmatch(part)
        if not match:
            hint = f"; {asked}" if (asked := did_you_mean(part)) else ""
            raise ValueError(
                f"{part!r} in {caption!r} is no thing of this world (such as 'a cat' or 'a red car'){hint}"
            )
        if match[1] and match[2] in ANIMALS:
            raise ValueError(
                f"{part!r} in {caption!r}: animals have their own colours in this world; say 'a {match[2]}'"
            )
        things.append(Thing(match[2], match[1]))
    if worn and (len(things) != 2 or {t.noun in ANIMALS for t in things} != {True, False}):
        raise ValueError(f"{caption!r}: only 'an animal with a thing' can be said with 'with' in this world")
    return Scene(tuple(things), place, worn)


_KIN = {
    "kitten": "cat", "kitty": "cat", "tiger": "lion", "puppy": "dog", "wolf": "dog", "fox": "dog", "sparrow": "bird",
    "parrot": "bird", "duck": "bird", "chicken": "bird", "pony": "horse", "donkey": "horse", "zebra": "horse",
    "ape": "monkey", "gorilla": "monkey", "toad": "frog", "tortoise": "turtle", "bunny": "rabbit", "hare": "rabbit",
    "rat": "mouse", "hamster": "mouse", "panda": "bear", "bag": "backpack", "rucksack": "backpack",
    "spectacles": "glasses", "sunglasses": "glasses", "hat": "crown", "tiara": "crown", "luggage": "suitcase",
    "briefcase": "suitcase", "stool": "chair", "seat": "chair", "ribbon": "bow", "tie": "bow", "automobile": "car",
    "taxi": "car", "truck": "car", "dish": "bowl", "cup": "bowl", "sofa": "bench", "couch": "bench", "watch": "clock",
    "fruit": "apple", "pear": "apple", "crimson": "red", "scarlet": "red", "golden": "yellow", "gold": "yellow",
    "violet": "purple", "turquoise": "blue", "grey": "gray", "silver": "gray", "lawn": "grass", "meadow": "grass",
    "winter": "snow", "snowy": "snow", "shore": "beach", "sand": "beach", "dark": "night", "road": "street",
    "city": "street", "house": "room", "ocean": "sea", "water": "sea", "dusk": "sunset", "evening": "sunset",
}  # fmt: skip


def nearest(word: str) -> str | None:
    """The word of the world that is nearest to one that is not: by kind ("kitten": "cat"), else by spelling."""
    word = word.lower().strip(".,;:!?'\"")
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        if form in WORDS:
            return form
        if form in _KIN:
            return _KIN[form]
    content = [w for w in WORDS if len(w) > 3 or w in NOUNS or w in COLOURS]
    return next(iter(get_close_matches(word, content, 1, 0.7)), None)


def unknown(text: str) -> list[str]:
    """The words of a text that the world does not have, in order."""
    words = [word.strip(".,;:!?'\"") for word in text.lower().split()]
    return [word for word in dict.fromkeys(words) if word and word not in WORDS]


def did_you_mean(text: str) -> str:
    """The unknown words of a text with the nearest known ones, in a line: "kitten": did you mean cat?; "" if none."""
    said = []
    for word in unknown(text):
        near = nearest(word)
        said.append(f'"{word}"' + (f": did you mean {near}?" if near else " is not in its words"))
    return "; ".join(said)
