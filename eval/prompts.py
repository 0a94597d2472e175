r"""Prompt sets: Attend-and-Excite's, people and hands, the drawn world's, and a text file of one's own.

References:
    Attend-and-Excite: Attention-Based Semantic Guidance for Text-to-Image Diffusion Models, Chefer et al., 2023,
    https://arxiv.org/abs/2301.13826 (the lists and the three forms).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path

from eval.world import COLOURS, SHAPES, Scene, Thing, describe

ANIMALS = "cat dog bird bear lion horse elephant monkey frog turtle rabbit mouse".split()
OBJECTS = "backpack glasses crown suitcase chair balloon bow car bowl bench clock apple".split()
OBJECT_COLOURS = "red orange yellow green blue purple pink brown gray black white".split()
_HELD_OUT_FROM = 50  # of the draw's order: what the paper's 50 of each category leave
WORN = ("glasses", "crown", "bow")

PROMPT_SETS = {
    "attend-and-excite": "276 prompts of two animals, an animal and an object, two objects; colours drawn by us",
    "humans": "45 prompts of people, our own: the paper's are not published",
    "hands": "25 prompts of hands, our own: the paper's are not published",
    "world": "the drawn world's, in the three forms of Attend-and-Excite; for the embedded model",
}


@dataclass(frozen=True)
class Prompt:
    """A prompt, the things that it names, as phrases, and the category that it belongs to."""

    text: str
    entities: tuple[str, ...] = ()
    category: str = ""


def prompt_set(name: str, per_category: int | None = None, held_out: bool = False) -> list[Prompt]:
    """A set by its name (one of `PROMPT_SETS`), or from a text file with a prompt in each line.

    Args:
        per_category: So many of each category, drawn by a generator seeded with "NAME/CATEGORY"; the paper draws 50 of
            each of Attend-and-Excite's. All of them by default, but 50 of the drawn world's, which has thousands.
        held_out: Of those that the draw leaves out, as many again: to choose settings on.

    Raises:
        ValueError: no such set or file, an empty one, or nothing is left to hold out.
    """
    if name == "world":
        per_category = per_category or 50
    groups: dict[str, list[Prompt]] = {}
    for prompt in _SETS[name]() if name in _SETS else _from_file(name):
        groups.setdefault(prompt.category, []).append(prompt)
    found = []
    for category, prompts in groups.items():
        if name == "world":  # its even and its odd places never meet, whatever the counts
            found += prompts[int(held_out) :: 2][:per_category]
            continue
        order = list(range(len(prompts)))
        random.Random(f"{name}/{category}").shuffle(order)
        drawn = (order[_HELD_OUT_FROM:] if held_out else order)[:per_category]
        found += [prompts[place] for place in sorted(drawn)]
    if held_out and name not in ("world", "attend-and-excite"):
        raise ValueError(f"the prompt set {name!r} holds no prompts out to choose on: give the scales with --scale")
    return found


def attend_and_excite() -> list[Prompt]:
    """66 animal-animal, 144 animal-object and 66 object-object prompts; articles are "a" throughout, as theirs are."""
    colour = random.Random(0)
    prompts = [_pair("animal-animal", f"a {a}", f"a {b}") for a, b in combinations(ANIMALS, 2)]
    for animal in ANIMALS:
        for thing in OBJECTS:
            if thing in WORN:
                prompts.append(_pair("animal-object", f"a {animal}", f"a {thing}", "with"))
            else:
                prompts.append(_pair("animal-object", f"a {animal}", f"a {colour.choice(OBJECT_COLOURS)} {thing}"))
    for a, b in combinations(OBJECTS, 2):
        first, second = colour.sample(OBJECT_COLOURS, 2)
        prompts.append(_pair("object-object", f"a {first} {a}", f"a {second} {b}"))
    return prompts


def _pair(category: str, first: str, second: str, word: str = "and") -> Prompt:
    return Prompt(f"{first} {word} {second}", (first, second), category)


def entities(text: str) -> tuple[str, ...]:
    """The things that a prompt names: its parts at " and ", else at " with ", as Attend-and-Excite splits."""
    for word in (" and ", " with "):
        if word in text:
            return tuple(part.strip() for part in text.split(word))
    return (text,)


def world_prompts(count: int = 50, held_out: bool = False) -> list[str]:
    """Prompts of two coloured things of the drawn world ("a red circle and a blue square"), in a fixed random order.

    The held-out prompts, on which settings may be chosen, and the evaluation's have none in common: they are the
    even and the odd places of one order of all 2,700.
    """
    return [p.text for p in prompt_set("world", count, held_out) if p.category == "coloured-coloured"]


def _world() -> list[Prompt]:
    return _world_pairs(False, False) + _world_pairs(False, True) + _world_pairs(True, True)


def _world_pairs(first: bool, second: bool) -> list[Prompt]:
    """All pairs of two shapes, the first and the second of them coloured or not, in a fixed random order."""
    category = "-".join("coloured" if coloured else "shape" for coloured in (first, second))
    every = [
        (Thing(a, x), Thing(b, y))
        for a, b in permutations(SHAPES, 2)
        for x, y in (permutations(COLOURS, 2) if first else [(None, y) for y in (COLOURS if second else [None])])
    ]
    random.Random(0).shuffle(every)
    return [
        Prompt(describe(Scene(things)), tuple(describe(Scene((thing,))) for thing in things), category)
        for things in every
    ]


def _from_file(name: str) -> list[Prompt]:
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"the prompt set {name!r} is neither a text file nor one of {', '.join(PROMPT_SETS)}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{name} is no text file in UTF-8: write a prompt in each line") from None
    texts = [" ".join(line.split()) for line in lines]
    texts = list(dict.fromkeys(text for text in texts if text and not text.startswith("#")))
    if not texts:
        raise ValueError(f"there are no prompts in {name}: write one in each line; lines with # are comments")
    return [Prompt(text, entities(text)) for text in texts]


def _own(category: str, texts: str) -> list[Prompt]:
    return [Prompt(text, entities(text), category) for text in re.split(r"\n+", texts.strip())]


_HUMANS = """
a man wearing a sombrero
a woman reading a newspaper on a park bench
a boy in the moonlight
two girls flying a kite on a beach
an old fisherman mending a net
a chef tossing a pizza
a ballet dancer in mid-air
a man playing the cello in a subway station
a woman in a yellow raincoat crossing a street
a child blowing out birthday candles
a firefighter carrying a ladder
a couple dancing in a kitchen
a woman riding a bicycle with a basket of bread
a man shaving in front of a mirror
a teacher writing on a blackboard
three friends laughing around a campfire
a nurse pushing a wheelchair
a skateboarder jumping over a bench
a grandmother knitting a red scarf
a man in a suit running for a bus
a girl with freckles eating an ice cream
a carpenter sawing a wooden board
a swimmer diving into a pool
a woman doing yoga on a rooftop
a father carrying a child on his shoulders
an astronaut waving on the moon
a barista pouring milk into a cup
a boy hugging a large dog
a violinist bowing to an audience
a woman trying on a hat in a shop
a farmer holding a basket of apples
a jogger tying a shoe
a man asleep in a hammock
a judge in a black robe at a desk
a girl painting at an easel
a mechanic under a car
a woman with an umbrella in the snow
two men playing chess in a park
a toddler stacking wooden blocks
a photographer kneeling on a bridge
a surfer walking along a beach at dawn
a woman in a wedding dress throwing a bouquet
a man lifting a heavy suitcase
a clown juggling three oranges
a librarian on a ladder between shelves
"""
_HANDS = """
a hand with a ring on it
a hand holding a pencil
two hands shaking
a hand making a thumbs up
a hand holding a cup of coffee
two hands holding a small bird
a hand pressing a piano key
a hand in a leather glove
a hand turning a page of a book
a hand with painted fingernails
an open hand with five fingers spread
a hand holding a playing card
two hands kneading dough
a hand counting coins
a hand lighting a candle
a hand holding a phone
two hands tying a knot
a hand pointing at a map
a hand with a wristwatch
a baby's hand holding a finger
a hand picking an apple from a tree
two hands clapping
a hand holding chopsticks
a hand writing with chalk
a hand making a peace sign
"""
_SETS = {
    "attend-and-excite": attend_and_excite,
    "humans": lambda: _own("humans", _HUMANS),
    "hands": lambda: _own("hands", _HANDS),
    "world": _world,
}
