"""`dnp sweep`: arms × prompts × seeds become a folder of pictures with a line each, whatever happens on the way.

Work is cut into units: the pictures of all arms for a batch of prompts and one seed. What a unit gives depends on
nothing but the settings, so it may be done again, elsewhere, or later; a unit is done when its lines are in the
manifest, which are written in one piece after its pictures. Captions that are to be shuffled between prompts must all
be there first: the arms that take them are a second round of units.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from captioning import CaptionError, Endpoint, usable
from captioning.controls import UNIVERSAL
from dnp.arms import Arm
from dnp.errors import DNPError
from dnp.folder import claim, png, versions, write_settings
from dnp.generate import captioner_of
from dnp.recipe import Sampling, paint
from dnp.stable_diffusion import StableDiffusion
from dnp.workers import Place, workers
from eval import world
from eval.manifest import read_manifest, write_whole
from eval.prompts import Prompt
from guidance import parse

Line = tuple[dict[str, Any], bytes]


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


class Painter:
    """A worker: a model and a captioner, loaded once, that does units."""

    def __init__(self, plan: Plan, threads: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.plan = plan
        self.model = StableDiffusion(plan.model, plan.device, plan.dtype)
        self.captioner = captioner_of(self.model, plan.captioner) if plan.negatives else None
        # Captions are made beside the pictures that need none
        self._aside = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),))

    def __call__(self, unit: Unit) -> list[Line]:
        """The lines of the manifest and the PNGs of a unit."""
        plan, lines = self.plan, []
        if unit.captions is not None:
            for arm in plan.arms:
                if arm.negative == "shuffled":
                    lines += self._arm(arm, unit, unit.captions[plan.negatives[arm.dns, arm.dns_sampling]])
            return lines
        waiting = []
        for (dns, sampling), name in plan.negatives.items():
            images, facts = self._paint(parse(dns), unit, sampling)
            waiting.append((name, images, facts, self._aside.submit(self.captioner, images)))  # type: ignore[arg-type]
        for arm in plan.arms:
            if not arm.of_caption:
                lines += self._arm(arm, unit, [self._text(arm, place, unit.seed) for place in unit.places])
        for name, images, facts, future in waiting:
            captions = future.result()
            records = [facts | {"caption": caption, "captioner": self.captioner.name} for caption in captions]  # type: ignore[union-attr]
            lines += self._lines(name, unit, images, records)
            for arm in plan.arms:
                if arm.of_caption and arm.negative != "shuffled" and plan.negatives[arm.dns, arm.dns_sampling] == name:
                    lines += self._arm(arm, unit, captions)
        return lines

    def _text(self, arm: Arm, place: int, seed: int) -> str:
        if arm.negative == "none":
            return ""
        if arm.negative == "universal":
            return self.model.defaults.universal or ", ".join(UNIVERSAL)
        if arm.negative == "random":
            own = self.plan.prompts[place].text
            draw = random.Random(f"{own}/{seed}")
            return next(text for text in iter(lambda: draw.choice(self.plan.others), None) if text != own)
        return arm.negative

    def _arm(self, arm: Arm, unit: Unit, texts: Sequence[str]) -> list[Line]:
        used = []
        for text, place in zip(texts, unit.places, strict=True):
            try:
                prompt = self.plan.prompts[place].text
                used.append(arm.part(usable(text, self.model.tokenizer).used, prompt) if arm.of_caption else text)
            except CaptionError:
                used.append("")  # a caption that says nothing is no negative prompt: one bad one must not end a sweep
        images, facts = self._paint(arm.formula, unit, arm.sampling, used)
        facts |= {"scale": arm.scale, "strength": arm.strength if arm.takes("w") else None}
        source = {"captioner": self.captioner.name} if arm.of_caption and self.captioner else {}
        return self._lines(
            arm.name,
            unit,
            images,
            [
                facts | {"negative_prompt": n, "caption": text if arm.of_caption else ""} | source
                for n, text in zip(used, texts, strict=True)
            ],
        )

    def _paint(
        self, guidance: Any, unit: Unit, sampling: Sampling, negatives: Sequence[str] = ()
    ) -> tuple[list[Image.Image], dict[str, Any]]:
        start = time.perf_counter()
        texts: dict[str, Sequence[str]] = {"prompt": [self.plan.prompts[place].text for place in unit.places]}
        if negatives:
            texts["negative"] = negatives
        images, evaluations = paint(self.model, guidance, texts, [unit.seed] * len(unit.places), sampling)
        return images, {
            "guidance": str(guidance),
            "sampler": sampling.sampler,
            "schedule": sampling.schedule,
            "steps": sampling.steps,
            "evaluations": evaluations,
            "seconds": round((time.perf_counter() - start) / len(images), 4),
        }

    def _lines(
        self, arm: str, unit: Unit, images: Sequence[Image.Image], facts: Sequence[dict[str, Any]]
    ) -> list[Line]:
        lines = []
        for place, image, fact in zip(unit.places, images, facts, strict=True):
            prompt = self.plan.prompts[place]
            record = {
                "path": path_of(arm, place, unit.seed),
                "prompt": prompt.text,
                "category": prompt.category,
                "entities": list(prompt.entities),
                "seed": unit.seed,
                "arm": arm,
                "source": next((other.negative for other in self.plan.arms if other.name == arm), "dns"),
                "negative_prompt": "",
                "caption": "",
                "captioner": "none",
                "model": self.model.name,
                "scale": None,
                "strength": None,
                **fact,
                "width": image.width,
                "height": image.height,
                "dtype": str(self.model.dtype).removeprefix("torch."),
                "versions": versions(),
            }
            seconds = record.pop("seconds")
            data = png(image, record)
            lines.append((record | {"sha256": hashlib.sha256(data).hexdigest(), "seconds": seconds}, data))
        return lines


class Ledger:
    """What a folder holds of a plan; only complete lines of pictures that are there count.

    Raises:
        DNPError: the folder holds another run, or cannot be written.
    """

    def __init__(self, out: Path, plan: Plan) -> None:
        self.out, self.plan = out, plan
        claim(out, plan.settings())
        write_settings(out, plan.settings())
        manifest = out / "manifest.jsonl"
        if manifest.exists() and not manifest.read_bytes().endswith(b"\n"):  # cut off in the middle of a line
            whole, _, _ = manifest.read_bytes().rpartition(b"\n")
            write_whole(manifest, whole + b"\n" if whole else b"")
        self.records = {r["path"]: r for r in read_manifest(out) if (out / r["path"]).is_file()}

    def has(self, unit: Unit) -> bool:
        return all(path in self.records for path in unit.paths(self.plan))

    def add(self, lines: Sequence[Line]) -> None:
        """The pictures, then their lines in one piece."""
        for record, data in lines:
            path = self.out / record["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
            self.records[record["path"]] = record
        with open(self.out / "manifest.jsonl", "ab", buffering=0) as file:
            file.write("".join(json.dumps(r, ensure_ascii=False) + "\n" for r, _ in lines).encode())

    def exchanged(self, unit: Unit) -> Unit:
        """The second round's unit of a first one: with the captions that other prompts' pictures got."""
        partner = exchange(self.plan.prompts)
        return Unit(
            unit.seed,
            unit.places,
            {
                name: tuple(self.records[path_of(name, partner[place], unit.seed)]["caption"] for place in unit.places)
                for name in self.plan.negatives.values()
            },
        )

    def tidy(self) -> None:
        """The manifest in the order of the plan, each picture once, whatever order they came in."""
        arms = [*self.plan.negatives.values(), *(arm.name for arm in self.plan.arms)]
        ordered = sorted(self.records.values(), key=lambda r: (arms.index(r["arm"]), r["path"]))
        write_whole(
            self.out / "manifest.jsonl",
            "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in ordered).encode(),
        )


def sweep(plan: Plan, seeds: Sequence[int], out: Path, where: Place | None = None, label: str = "sweep") -> Ledger:
    """Make what is missing of a run.

    Args:
        where: Which workers do it; this process by default.

    Raises:
        DNPError, GuidanceError, SamplerError, CaptionError: what a person can mend; what was finished is kept.
    """
    ledger = Ledger(out, plan)
    first = units(plan, list(dict.fromkeys(seeds)))
    rounds = [len(unit.paths(plan)) for unit in first]
    shuffled = sum(arm.negative == "shuffled" for arm in plan.arms)
    total = sum(rounds) + shuffled * len(plan.prompts) * len(set(seeds))
    have = sum(path in ledger.records for unit in first for path in unit.paths(plan))
    where = where or Place()
    with (
        workers(plan, where) as do,
        tqdm(total=total, initial=have, desc=label, unit="picture", smoothing=0.05) as bar,
    ):
        for second in (False, True) if shuffled else (False,):
            todo = [ledger.exchanged(unit) for unit in first] if second else first
            if second:
                bar.update(sum(path in ledger.records for unit in todo for path in unit.paths(plan)))
            for lines in do([unit for unit in todo if not ledger.has(unit)]):
                ledger.add(lines)
                bar.update(len(lines))
    ledger.tidy()
    return ledger
