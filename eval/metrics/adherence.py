"""Does a picture of the drawn world show what its prompt names? By the world's judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from eval.metrics.judge import Judge
from eval.metrics.metric import ADHERENCE, Kind, Values
from eval.prompts import Prompt
from eval.world import Scene, parse


@dataclass(frozen=True)
class Verdict:
    """What the judge says of a picture against its prompt; one of the three holds."""

    right: bool  # everything that the prompt names is there, in its colour where it says one
    neglected: bool  # a shape that the prompt names is not there at all

    @property
    def wrong_attribute(self) -> bool:
        return not self.right and not self.neglected


def verdict(seen: Scene, prompt: str) -> Verdict:
    """A scene against a prompt in the world's grammar (backgrounds do not count).

    Raises:
        ValueError: the prompt is not in the world's grammar.
    """
    wanted = parse(prompt).things
    return Verdict(all(map(seen.holds, wanted)), any(map(seen.neglects, wanted)))


class Adherence:
    """The metric: shares of "both right", "neglected" and "wrong attribute", which sum to one.

    Args:
        folder: with the judge's weights.
    """

    kinds = {
        "both right": Kind("share", binary=True, question=ADHERENCE),
        "neglected": Kind("share", higher_is_better=False, binary=True, question=ADHERENCE),
        "wrong attribute": Kind("share", higher_is_better=False, binary=True, question=ADHERENCE),
    }

    def __init__(self, folder: str | Path) -> None:
        self.judge = Judge(folder)
        self.name = f"{self.judge.name}, threshold {self.judge.threshold:g}"

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> Values:
        found: Values = {name: [] for name in self.kinds}
        for seen, prompt in zip(self.judge(images), prompts, strict=True):
            try:
                says = verdict(seen, prompt.text)
            except ValueError as error:
                for values in found.values():
                    values.append(str(error))
                continue
            for values, value in zip(found.values(), (says.right, says.neglected, says.wrong_attribute), strict=True):
                values.append(float(value))
        return found
