"""A worker of a comparison: it loads a model and a captioner once, and does units of plans."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from PIL import Image

from captioning import Captioner, CaptionError, usable
from captioning.controls import UNIVERSAL
from dnp.attention.attend_and_excite import AttendAndExcite
from dnp.captioners import captioner_of
from dnp.experiments.arms import Arm
from dnp.experiments.negatives import Asked
from dnp.experiments.plan import Plan, Unit, path_of
from dnp.models.stable_diffusion import StableDiffusion
from dnp.recipe import Hook, Sampling, hook_of, paint
from dnp.runs.record import DNS, Line, Record
from dnp.runs.threads import threads as computing
from guidance import Guidance, parse

_BAD_IN_A_ROW = 3


class Painter:
    """Makes the pictures of units.

    Args:
        captioner: Of diffusion-negative pictures; None if no arm takes captions.
    """

    def __init__(self, plan: Plan, model: StableDiffusion, captioner: Captioner | None) -> None:
        self.plan, self.model, self.captioner = plan, model, captioner
        self._captioned = {"captioner": captioner.name} if captioner else {}

    def __call__(self, unit: Unit) -> list[Line]:
        """The lines of the manifest and the PNGs of a unit.

        Raises:
            CaptionError: The captioner does not work.
        """
        plan, lines = self.plan, []
        if unit.captions is not None:
            for arm in plan.arms_that_take("another"):
                lines += self._arm(arm, unit, unit.captions[plan.negatives[arm.way]])
            return lines
        # Captions are made beside the pictures that need none
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)) as aside:
            waiting = []
            for (dns, sampling), name in plan.negatives.items():
                images, facts, seconds = self._paint(parse(dns), unit, sampling)
                found_later = aside.submit(captions, self.captioner, images)  # type: ignore[arg-type]
                waiting.append((name, images, facts, seconds, found_later))
            for arm in plan.arms_that_take(None):
                lines += self._arm(arm, unit, [self._text(arm, place, unit.seed) for place in unit.places])
            for name, images, facts, seconds, future in waiting:
                found = future.result()
                about = [{"caption": text, "caption_error": error} | self._captioned for text, error in found]
                lines += self._lines(name, DNS, unit, images, seconds, facts, about)
                for arm in plan.arms_that_take("own"):
                    if plan.negatives[arm.way] == name:
                        lines += self._arm(arm, unit, [text for text, _ in found])
        return lines

    def _text(self, arm: Arm, place: int, seed: int) -> str:
        universal = self.model.defaults.universal or ", ".join(UNIVERSAL)
        return arm.source[1].text(Asked(self.plan.prompts[place].text, seed, self.plan.others, universal))

    def _arm(self, arm: Arm, unit: Unit, texts: Sequence[str]) -> list[Line]:
        name, source = arm.source
        used = [self._used(arm, text, place) for text, place in zip(texts, unit.places, strict=True)]
        prompts = [self.plan.prompts[place].text for place in unit.places]
        attending = AttendAndExcite().on(self.model, prompts) if arm.attend else None
        images, facts, seconds = self._paint(arm.formula, unit, arm.sampling, used, hook_of(attending))
        facts |= {"scale": arm.scale, "strength": arm.strength if arm.takes("w") else None}
        about: list[dict[str, Any]] = [
            {"negative_prompt": n, **({"caption": text} | self._captioned if source.captions else {})}
            for n, text in zip(used, texts, strict=True)
        ]
        if attending is not None:
            for one, more in zip(about, attending.evaluations, strict=True):
                one["evaluations"] = facts["evaluations"] + more
        return self._lines(arm.name, name, unit, images, seconds, facts, about)

    def _used(self, arm: Arm, text: str, place: int) -> str:
        """What of a text is the negative prompt; "" is none."""
        source = arm.source[1]
        if not source.captions:
            return text
        try:
            return source.part(usable(text, self.model.tokenizer).used, self.plan.prompts[place].text)
        except CaptionError:
            return ""  # a caption that says nothing must not end a sweep

    def _paint(
        self,
        guidance: Guidance,
        unit: Unit,
        sampling: Sampling,
        negatives: Sequence[str] = (),
        hook: Hook | None = None,
    ) -> tuple[list[Image.Image], dict[str, Any], float]:
        """The pictures of a unit, what their records say of them, and the seconds that each took."""
        start = time.perf_counter()
        texts: dict[str, Sequence[str]] = {"prompt": [self.plan.prompts[place].text for place in unit.places]}
        if negatives:
            texts["negative"] = negatives
        images, evaluations = paint(self.model, guidance, texts, [unit.seed] * len(unit.places), sampling, hook=hook)
        facts: dict[str, Any] = {"guidance": str(guidance)}
        facts |= {"sampler": sampling.sampler, "schedule": sampling.schedule}
        facts |= {"steps": sampling.steps, "evaluations": evaluations}
        return images, facts, (time.perf_counter() - start) / len(images)

    def _lines(
        self,
        arm: str,
        source: str,
        unit: Unit,
        images: Sequence[Image.Image],
        seconds: float,
        facts: dict[str, Any],
        about: Sequence[dict[str, Any]],
    ) -> list[Line]:
        """Lines of an arm: `facts` are those of all its pictures, `about` those of each."""
        lines = []
        for place, image, one in zip(unit.places, images, about, strict=True):
            prompt = self.plan.prompts[place]
            record = Record(
                path=path_of(arm, place, unit.seed),
                prompt=prompt.text,
                category=prompt.category,
                entities=list(prompt.entities),
                seed=unit.seed,
                arm=arm,
                source=source,
                model=self.model.name,
                model_options=self.model.options,
                dtype=str(self.model.dtype).removeprefix("torch."),
                **(facts | one),
            )
            lines.append(record.line(image, seconds))
        return lines


def captions(captioner: Captioner, images: Sequence[Image.Image]) -> list[tuple[str, str]]:
    """The caption of each picture and why there is none, "" where there is one: one bad caption must not end a sweep.

    Raises:
        CaptionError: There is none of several pictures in a row.
    """
    try:
        return [(text, "") for text in captioner(images)]
    except CaptionError:
        if len(images) == 1:
            raise
    found: list[tuple[str, str]] = []
    bad = 0
    for image in images:
        try:
            found.append((captioner([image])[0], ""))
            bad = 0
        except CaptionError as error:
            bad += 1
            if bad == min(_BAD_IN_A_ROW, len(images)):
                raise
            found.append(("", str(error)))
    return found


@lru_cache(1)
def _loaded(model: str, device: str | None, dtype: str | None, loading: tuple[tuple[str, Any], ...]) -> Any:
    """A model, and its captioners by name, as far as they were needed."""
    return StableDiffusion(model, device, dtype, **dict(loading)), {}


def do(plan: Plan, unit: Unit, threads: int) -> list[Line]:
    """A unit of a plan, with what this process has loaded for it or for another plan."""
    with computing(threads):
        model, captioners = _loaded(plan.model, plan.device, plan.dtype, tuple(dict(plan.loading).items()))
        if plan.negatives and plan.captioner not in captioners:
            captioners[plan.captioner] = captioner_of(model, plan.captioner)
        return Painter(plan, model, captioners.get(plan.captioner))(unit)
