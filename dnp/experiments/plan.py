"""What a comparison is, before anything is made: the plan, its units of work, and where they are done."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from captioning import Endpoint
from dnp.errors import DNPError
from dnp.experiments.arms import Arm
from dnp.recipe import Sampling
from eval import world
from eval.prompts import Prompt

Line = tuple[dict[str, Any], bytes]


@dataclass(frozen=True)
class Place:
    """Where the work is done.

    Args:
        workers: Processes on this machine (on small models, two of one thread are faster than one of two).
        ray: Address of a Ray cluster, "local" for one of this machine alone; no Ray without.
        threads: Of each worker; torch's own number by default, one where there are several workers.
    """

    workers: int = 1
    ray: str | None = None
    threads: int | None = None

    @property
    def each(self) -> int | None:
        return self.threads or (1 if self.workers > 1 or self.ray else None)


@dataclass(frozen=True)
class Plan:
    """All that a worker must know: it can be sent to another process or machine.

    Args:
        others: Texts that a random caption is drawn from.
        captioner: By its name; the model's own by default.
    """

    model: str
    prompts: tuple[Prompt, ...]
    arms: tuple[Arm, ...]
    others: tuple[str, ...] = ()
    captioner: str | None = None
    batch: int = 25
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.captioner and self.captioner.startswith("openai:"):  # refused now, and the same address on all workers
            object.__setattr__(self, "captioner", Endpoint.at(self.captioner).name)
        names = [arm.negative for arm in self.arms]
        if not self.prompts:
            raise DNPError("there are no prompts")
        if "shuffled" in names and len(self.prompts) < 2:
            raise DNPError("the arm shuffled gives a prompt another one's caption, and there is only one prompt")
        if "auto-background" in names:
            for prompt in self.prompts:
                world.parse(prompt.text)  # which says what is not of the drawn world
        if "random" in names and not all(set(self.others) - {prompt.text} for prompt in self.prompts):
            raise DNPError("the arm random needs other prompts to draw from")

    @property
    def negatives(self) -> dict[tuple[str, Sampling], str]:
        """The ways in which diffusion-negative pictures are made, and the arm of each: "dns", "dns2", …"""
        ways = dict.fromkeys((arm.dns, arm.dns_sampling) for arm in self.arms if arm.of_caption)
        return {way: f"dns{number if number > 1 else ''}" for number, way in enumerate(ways, 1)}

    def settings(self) -> dict[str, Any]:
        """For `run.json`. Without the seeds: a run may be given more of them."""
        return {
            "kind": "sweep",
            "model": self.model,
            "arms": [json.loads(json.dumps(arm.settings())) for arm in self.arms],
            "captioner": self.captioner or "the model's",
            "prompts": [[p.text, list(p.entities), p.category] for p in self.prompts],
            "batch": self.batch,
            "dtype": self.dtype or "the device's",
        }


@dataclass(frozen=True)
class Unit:
    """The pictures of some prompts (by their places in the plan) and a seed, in one of the two rounds."""

    seed: int
    places: tuple[int, ...]
    captions: dict[str, tuple[str, ...]] | None = None  # second round: arm of the pictures → others' captions

    def paths(self, plan: Plan) -> list[str]:
        """Of its pictures, in order."""
        shuffled = [arm.name for arm in plan.arms if arm.negative == "shuffled"]
        first = [*plan.negatives.values(), *(arm.name for arm in plan.arms if arm.name not in shuffled)]
        names = first if self.captions is None else shuffled
        return [path_of(name, place, self.seed) for name in names for place in self.places]


def units(plan: Plan, seeds: Sequence[int]) -> list[Unit]:
    """The first round, in its order."""
    count = len(plan.prompts)
    return [
        Unit(seed, tuple(range(start, min(start + plan.batch, count))))
        for seed in seeds
        for start in range(0, count, plan.batch)
    ]


def exchange(prompts: Sequence[Prompt]) -> list[int]:
    """For each prompt the place of that whose caption it gets: a fixed random cycle through its category (or through
    all, where a category has only one prompt), so that nobody keeps their own."""
    groups: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(prompt.category, []).append(place)
    if any(len(group) < 2 for group in groups.values()):
        groups = {"": list(range(len(prompts)))}
    partner = [0] * len(prompts)
    for group in groups.values():
        random.Random(0).shuffle(group)
        for place, other in zip(group, group[1:] + group[:1], strict=True):
            partner[place] = other
    return partner


def path_of(arm: str, place: int, seed: int) -> str:
    return f"images/{arm}/{place:04d}-{seed:05d}.png"
