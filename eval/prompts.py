"""Prompt sets."""

from __future__ import annotations

import random
from itertools import permutations

from eval.world import COLOURS, SHAPES, Scene, Thing, describe


def world_prompts(count: int = 50, held_out: bool = False) -> list[str]:
    """Prompts of two coloured things of the drawn world ("a red circle and a blue square"), in a fixed random order.

    The held-out prompts, on which settings may be chosen, and the evaluation's have none in common: they are the
    even and the odd places of one order of all 2,700.
    """
    every = [
        describe(Scene((Thing(a, x), Thing(b, y))))
        for a, b in permutations(SHAPES, 2)
        for x, y in permutations(COLOURS, 2)
    ]
    random.Random(0).shuffle(every)
    return every[int(held_out) :: 2][:count]
