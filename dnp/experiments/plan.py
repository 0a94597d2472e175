"""What a comparison is, before anything is made: the plan, its units of work, and where they are done."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

from captioning import Endpoint
from dnp.errors import DNPError
from dnp.experiments.arms import ARMS, Arm
from dnp.limits import MOST_AT_ONCE, check_prompt
from dnp.recipe import Sampling
from dnp.runs.record import DNS
from eval.prompts import PROMPT_SETS, Prompt, prompt_set

_NO_PIXELS = ("cpu_offload", "allow_pickle")  # options of loading that change no picture


@dataclass(frozen=True)
class Place:
    """Where the work is done.

    Args:
        workers: Processes on this machine (on small models, two of one thread are faster than one of two).
        ray: Address of a Ray cluster, "local" for one of this machine alone; no Ray without.
        threads: Of each worker. By default those of the run that goes on, or what suits the model, whatever the
            number of workers.
    """

    workers: int = 1
    ray: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, number in (("workers", self.workers), ("threads", 1 if self.threads is None else self.threads)):
            if not 1 <= number <= MOST_AT_ONCE:
                raise DNPError(f"the number of {name} is {number:,}: give one from 1 to {MOST_AT_ONCE:,}")


@dataclass(frozen=True)
class Plan:
    """All that a worker must know: it can be sent to another process or machine.

    Args:
        others: Texts that a random caption is drawn from.
        captioner: By its name; the model's own by default.
        loading: The other options of `StableDiffusion` (`size`, `loras`, `controlnet`, …), as a mapping or its items.
    """

    model: str
    prompts: tuple[Prompt, ...]
    arms: tuple[Arm, ...]
    others: tuple[str, ...] = ()
    captioner: str | None = None
    batch: int = 25
    device: str | None = None
    dtype: str | None = None
    loading: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in dict(self.loading).items()}
        used = {name: value for name, value in given.items() if value not in (None, ()) and value is not False}
        object.__setattr__(self, "loading", tuple(sorted(used.items())))  # which can be hashed, as the plan is
        if self.captioner and self.captioner.startswith("openai:"):  # refused now, and the same address on all workers
            object.__setattr__(self, "captioner", Endpoint.at(self.captioner).name)
        if not self.prompts:
            raise DNPError("there are no prompts")
        if not self.arms:
            raise DNPError(f"there are no arms: give some of {', '.join(ARMS)}, or one of your own")
        if not 1 <= self.batch <= MOST_AT_ONCE:
            raise DNPError(f"a batch of {self.batch:,} prompts: give one from 1 to {MOST_AT_ONCE:,}")
        for prompt in self.prompts:
            check_prompt(prompt.text)
        for arm in self.arms:
            arm.source[1].check(self.prompts, self.others)

    @cached_property
    def negatives(self) -> dict[tuple[str, Sampling], str]:
        """The ways in which diffusion-negative pictures are made, and the arm of each: "dns", "dns2", … but for names
        that other arms have."""
        taken = {arm.name for arm in self.arms}
        ways = dict.fromkeys(arm.way for arm in self.arms if arm.source[1].captions)
        names = (name for n in count(1) if (name := f"{DNS}{n if n > 1 else ''}") not in taken)
        return dict(zip(ways, names, strict=False))

    def dns_arm(self, arm: Arm) -> str | None:
        """The arm of the pictures whose captions this one takes."""
        return self.negatives[arm.way] if arm.source[1].captions else None

    def arms_that_take(self, captions: str | None) -> list[Arm]:
        """The arms with "own" captions, those of "another" prompt, or none (None)."""
        return [arm for arm in self.arms if arm.source[1].captions == captions]

    def settings(self) -> dict[str, Any]:
        """For `run.json`. Without the seeds: a run may be given more of them."""
        loading = {name: value for name, value in dict(self.loading).items() if name not in _NO_PIXELS}
        return {
            "kind": "sweep",
            "model": self.model,
            "arms": [arm.settings() | {"dns_arm": self.dns_arm(arm)} for arm in self.arms],
            "captioner": self.captioner or "the model's",
            "prompts": [[p.text, list(p.entities), p.category] for p in self.prompts],
            "batch": self.batch,
            "dtype": self.dtype or "the device's",
            **({"loading": loading} if loading else {}),
        }


@dataclass(frozen=True)
class Unit:
    """The pictures of some prompts (by their places in the plan) and a seed, in one of the two rounds."""

    seed: int
    places: tuple[int, ...]
    captions: dict[str, tuple[str, ...]] | None = None  # second round: arm of the pictures → others' captions

    def paths(self, plan: Plan) -> list[str]:
        """Of its pictures, in order."""
        if self.captions is None:
            arms = [arm for arm in plan.arms if arm.source[1].captions != "another"]
            names = [*plan.negatives.values(), *(arm.name for arm in arms)]
        else:
            names = [arm.name for arm in plan.arms_that_take("another")]
        return [path_of(name, place, self.seed) for name in names for place in self.places]


def others(prompts: str, asked: Sequence[Arm]) -> tuple[str, ...]:
    """What random captions are drawn from, if an arm has one: another set of the same kind as the prompts."""
    if all(arm.negative != "random" for arm in asked):
        return ()
    sets = {"attend-and-excite": "humans", "humans": "attend-and-excite", "hands": "attend-and-excite"}
    name = sets.get(prompts, prompts if prompts in PROMPT_SETS else "attend-and-excite")
    return tuple(prompt.text for prompt in prompt_set(name))


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
