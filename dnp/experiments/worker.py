"""A worker of a comparison: a model and a captioner, loaded once, that does units of a plan."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from PIL import Image

from captioning import CaptionError, usable
from captioning.controls import UNIVERSAL
from dnp.captioners import captioner_of
from dnp.experiments.arms import Arm
from dnp.experiments.plan import Line, Plan, Unit, path_of
from dnp.models.stable_diffusion import StableDiffusion
from dnp.recipe import Sampling, paint
from dnp.runs.run import png, versions
from guidance import parse


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


@cache
def _painter(plan: Plan, threads: int | None) -> Painter:
    return Painter(plan, threads)


def do(plan: Plan, unit: Unit, threads: int | None) -> list[Line]:
    """A unit of a plan, by this process' worker for it."""
    return _painter(plan, threads)(unit)
