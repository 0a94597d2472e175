"""What the judge's reading says of a prompt."""

import numpy as np
import pytest

from dnp.models.locate import EMBEDDED
from eval.metrics.adherence import Adherence, verdict
from eval.prompts import Prompt
from eval.world import Scene, Thing


@pytest.mark.parametrize(
    ("things", "right", "neglected"),
    [
        ((Thing("circle", "red"), Thing("square", "blue")), True, False),
        ((Thing("square", "blue"), Thing("circle", "red"), Thing("star", "pink")), True, False),
        ((Thing("circle", "blue"), Thing("square", "red")), False, False),
        ((Thing("circle", "red"),), False, True),
        ((), False, True),
    ],
)
def test_verdicts_by_hand(things, right, neglected):
    says = verdict(Scene(things), "a red circle and a blue square")
    assert (says.right, says.neglected, says.wrong_attribute) == (right, neglected, not right and not neglected)
    assert verdict(Scene((Thing("circle", "red"), Thing("square", "blue"))), "a circle and a blue square").right


def test_the_judge_agrees_with_what_was_drawn(world):
    images, prompts = world
    metric = Adherence(EMBEDDED / "judge")
    found = metric(images, prompts)
    sums = np.sum([found[name] for name in metric.kinds], 0)
    assert (sums == 1).all() and np.mean(found["both right"]) >= 0.9
    wrong = metric(images[:1], [Prompt("a cat and a dog")])
    assert all("no thing of the drawn world" in values[0] for values in wrong.values())
