"""What the judges' readings say of a prompt."""

import random

import numpy as np
import pytest

from dnp.models.locate import EMBEDDED
from eval.metrics.adherence import Adherence, verdict
from eval.prompts import Prompt
from eval.world import COLOURS, SCENES, Scene, Thing, describe
from training.drawings import benches
from training.render import Layout, draw


@pytest.mark.parametrize(
    ("things", "right", "neglected"),
    [
        ((Thing("car", "red"), Thing("clock", "blue")), True, False),
        ((Thing("clock", "blue"), Thing("car", "red"), Thing("cat")), True, False),
        ((Thing("car", "blue"), Thing("clock", "red")), False, False),
        ((Thing("car", "red"),), False, True),
        ((), False, True),
    ],
)
def test_verdicts_by_hand(things, right, neglected):
    says = verdict(Scene(things), "a red car and a blue clock")
    assert (says.right, says.neglected, says.wrong_attribute) == (right, neglected, not right and not neglected)
    assert verdict(Scene((Thing("car", "red"), Thing("clock", "blue"))), "a car and a clock").right
    assert verdict(Scene((Thing("cat"), Thing("bow", "red"))), "a cat with a bow").right  # worn or beside it


@pytest.mark.parametrize("name", ["judge", "judge2"])
def test_the_judges_agree_with_what_was_drawn(name):
    """On benches, the one thing whose drawings are in the repository."""
    rng = random.Random(4)
    drawings = {"bench": benches()}
    images, prompts = [], []
    for colour in COLOURS:
        scene = Scene((Thing("bench", colour),), rng.choice([place for place in SCENES if place != "night"]))
        layout = Layout(scene, ((rng.randrange(3), 32, 34, 40),))
        images.append(draw(layout, rng, drawings))
        prompts.append(Prompt(describe(Scene(scene.things))))
    metric = Adherence(EMBEDDED / name)
    found = metric(images, prompts)
    sums = np.sum([found[kind] for kind in metric.kinds], 0)
    assert (sums == 1).all() and np.mean(found["both right"]) >= 0.8
    wrong = metric(images[:1], [Prompt("a zebra and a bowl")])
    assert all("no thing of this world" in values[0] for values in wrong.values())
