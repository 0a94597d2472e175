r"""Prompt sets: Attend-and-Excite's, people and hands, variations to choose settings on, and a text file of one's own.

References:
    Attend-and-Excite: Attention-Based Semantic Guidance for Text-to-Image Diffusion Models, Chefer et al., 2023,
    https://arxiv.org/abs/2301.13826 (the lists and the three forms).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

from eval.text import lines
from eval.world import COLOURS, SCENES, Scene, Thing, describe, parse

PROMPT_SETS = {
    "attend-and-excite": "the 276 published prompts of two animals, an animal and an object, two objects",
    "humans": "45 prompts of people, our own: the paper's are not published",
    "hands": "25 prompts of hands, our own: the paper's are not published",
    "world": "the same words at a place or in other colours; for choosing settings on the embedded model",
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
        per_category: So many of each category (all by default), drawn by a generator seeded with "NAME/CATEGORY"; the
            paper draws 50 of each of Attend-and-Excite's.
        held_out: Prompts to choose settings on, which are in no evaluation: those of `world`, for Attend-and-Excite's.

    Raises:
        ValueError: no such set or file, an empty one, or nothing is held out.
    """
    if held_out and name not in ("world", "attend-and-excite"):
        raise ValueError(f"the prompt set {name!r} holds no prompts out to choose on: give the scales with --scale")
    if held_out:
        name = "world"
    groups: dict[str, list[Prompt]] = {}
    for prompt in _SETS[name]() if name in _SETS else _from_file(name):
        groups.setdefault(prompt.category, []).append(prompt)
    found = []
    for category, prompts in groups.items():
        order = list(range(len(prompts)))
        random.Random(f"{name}/{category}").shuffle(order)
        found += [prompts[place] for place in sorted(order[:per_category])]
    return found


_CATEGORIES = {"animals": "animal-animal", "animals_objects": "animal-object", "objects": "object-object"}


def attend_and_excite() -> list[Prompt]:
    """66 animal-animal, 144 animal-object and 66 object-object prompts, to the letter: the article is always "a"."""
    lines = Path(__file__).with_name("attend_and_excite.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    return [Prompt(text, entities(text), _CATEGORIES[category]) for category, text in rows]


def entities(text: str) -> tuple[str, ...]:
    """The things that a prompt names: its parts at " and ", else at " with ", as Attend-and-Excite splits."""
    for word in (" and ", " with "):
        if word in text:
            return tuple(part.strip() for part in text.split(word))
    return (text,)


def _world() -> list[Prompt]:
    """A variation of each of Attend-and-Excite's prompts: things in other colours, at a place if there is no colour to
    change and every other time else. None of them is a prompt of Attend-and-Excite."""
    found = []
    for prompt in attend_and_excite():
        rng = random.Random(prompt.text)
        scene = parse(prompt.text)
        things = tuple(
            Thing(t.noun, rng.choice([c for c in COLOURS if c != t.colour]) if t.colour else None) for t in scene.things
        )
        place = rng.choice(list(SCENES)) if things == scene.things or rng.random() < 0.5 else None
        text = describe(Scene(things, place, scene.worn))
        found.append(Prompt(text, entities(describe(Scene(things, None, scene.worn))), prompt.category))
    return found


def _from_file(name: str) -> list[Prompt]:
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"the prompt set {name!r} is neither a text file nor one of {', '.join(PROMPT_SETS)}")
    try:
        texts = [" ".join(line.split()) for line in lines(path.read_bytes())]
    except UnicodeDecodeError:
        raise ValueError(f"{name} is no text file in UTF-8: write a prompt in each line") from None
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
