r"""Diffusion-negative prompting: two runs of a sampler with a caption between them.

References:
    Improving image synthesis with diffusion-negative sampling, Desai & Vasconcelos, ECCV 2024, section 3.5.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import index
from types import MappingProxyType
from typing import Any, Protocol, overload

from PIL import Image
from torch import Tensor

import samplers
from captioning import Caption, Captioner, Fixed, Universal, captions_of
from dnp.attention.perturbed import PERTURBED
from dnp.errors import DNPError
from dnp.limits import check_prompt, check_steps
from dnp.models.text_to_image import TextToImage
from dnp.on_the_way import OnTheWay
from dnp.start import Start
from dnp.wording import counted
from guidance import CFG, DNS, Guidance, GuidedDenoiser, NegPrompt, parse
from samplers.errors import lookup
from samplers.progress import ticker

Progress = Callable[[str], samplers.Progress]
Hook = Callable[[GuidedDenoiser, dict[str, Mapping[str, Any]], samplers.Step], Tensor | None]
Within = Callable[[TextToImage, Mapping[str, Sequence[str]]], Mapping[str, Any]]


class Attending(Protocol):
    """A hook of `samplers.sample` that moves x by the attention of a network."""

    evaluations: list[int]  # of each sample, beside those of its guidance

    def __call__(self, step: samplers.Step, /) -> Tensor | None: ...


class Attend(Protocol):
    """How to attend: `AttendAndExcite` or `SynGen` of `dnp.attention`."""

    def on(self, model: Any, prompts: Sequence[str], /) -> Attending: ...


@dataclass(frozen=True)
class Sampling:
    """How to walk: a sampler and a schedule by name, and the number of steps."""

    sampler: str = "dpmpp_2m"
    schedule: str = "karras"
    steps: int = 30

    def __post_init__(self) -> None:
        check_steps(self.steps)
        lookup("sampler", self.sampler, samplers.SAMPLERS)
        lookup("schedule", self.schedule, samplers.SCHEDULES)

    def sigmas(self, denoiser: Any) -> Tensor:
        """The noise levels for a denoiser. DDIM on the model's own steps ends at the lowest of them instead of at
        zero, as Stable Diffusion's scheduler has it (`set_alpha_to_one=False`)."""
        on_table = self.sampler == "ddim" and self.schedule in ("leading", "trailing", "linspace")
        options = {"final": "sigma_min"} if on_table else {}
        return samplers.schedule(self.schedule, denoiser, self.steps, **options)


@dataclass
class Result:
    """One prompt and seed: the pictures made by then, and what they cost.

    Attributes:
        images: "plain": what plain guidance makes of the prompt; "dns": what the model thinks least like it (where
            the negative prompt comes from a picture); "dnp": what guidance makes of (prompt, negative).
        caption: The negative prompt, as captioned and as used; None without one.
        on_the_way: Step → caption, where the negative prompt was captioned on the way; `caption` is the last.
        evaluations: Denoiser evaluations of each picture.
        seconds: Of each picture and of the "caption": this result's share of its batch.
    """

    prompt: str
    seed: int
    images: dict[str, Image.Image] = field(default_factory=dict)
    caption: Caption | None = None
    on_the_way: dict[int, Caption] = field(default_factory=dict)
    evaluations: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def plain(self) -> Image.Image:
        return self.images["plain"]

    @property
    def dns(self) -> Image.Image | None:
        return self.images.get("dns")

    @property
    def dnp(self) -> Image.Image | None:
        return self.images.get("dnp")


def paint(
    model: TextToImage,
    guidance: Guidance | str,
    prompts: Mapping[str, str | Sequence[str]],
    seeds: int | Sequence[int],
    sampling: Sampling,
    progress: samplers.Progress = False,
    hook: Hook | None = None,
    within: Mapping[str, Within] = MappingProxyType({}),
    init: Image.Image | Sequence[Image.Image] | None = None,
    denoise: float | None = None,
    mask: Image.Image | None = None,
) -> tuple[list[Image.Image], int]:
    r"""Pictures of B prompts from B seeds under a guidance.

    Args:
        guidance: A guidance, or its text, such as "u + 7.5*(p - n)".
        prompts: Name of a condition → its B texts, or one text for all; a guidance takes those that it names. "empty"
            is the text "" (the encoding of an empty prompt, not a zero embedding) unless given.
        seeds: B seeds, or a single one.
        hook: Called before each step; may return a changed x.
        within: Name of a condition → what makes it of the model and the texts, where that is not `model.encode` of its
            text: see `dnp.attention`. A perturbation by its name ("identity", "blur", "skip", "shuffle") is the prompt
            under it, unless there is a text of this name.
        init, denoise, mask: A picture to start at, the share of the steps that it takes, and the part of it that is
            painted anew: see `dnp.start`.

    Returns:
        The B pictures, and the number of denoiser evaluations that each took, those of a hook left out.

    Raises:
        DNPError: the guidance names a condition that has no text; the picture, mask or share cannot be used.
        GuidanceError, SamplerError: from below.
    """
    guidance, seeds = as_guidance(guidance), _seeds(seeds)
    texts: dict[str, Sequence[str]] = {
        name: [text] * len(seeds) if isinstance(text, str) else text for name, text in {"empty": "", **prompts}.items()
    }
    _check_names(guidance, [*texts, *within])
    sigmas, picture = Start(init, denoise, mask).of(model, sampling.sigmas(model.denoiser), seeds)
    conditions = {name: _condition(model, name, texts, within) for name in guidance.names}
    guided = guidance.wrap(model.denoiser)
    noise = samplers.noise(model.shape, seeds, device=getattr(model, "device", "cpu"))
    latents = samplers.sample(
        lambda x, sigma: guided(x, sigma, **conditions),  # looked up at each call: the hook may change them
        noise,
        sigmas,
        sampler=sampling.sampler,
        seeds=seeds,
        picture=picture,
        progress=progress,
        hook=None if hook is None else partial(hook, guided, conditions),
    )
    guided.check()
    return model.decode(latents), guided.evaluations


def hook_of(attending: Attending | None, on_the_way: OnTheWay | None = None) -> Hook | None:
    """What `paint` takes as its hook: what is captioned on the way is what was attended to."""
    if attending is None:
        return on_the_way

    def hook(guided: GuidedDenoiser, conditions: dict[str, Mapping[str, Any]], step: samplers.Step) -> Tensor | None:
        changed = attending(step)
        if on_the_way is not None:
            on_the_way(guided, conditions, step if changed is None else replace(step, x=changed))
        return changed

    return hook


def _condition(
    model: TextToImage, name: str, texts: Mapping[str, Sequence[str]], within: Mapping[str, Within]
) -> Mapping[str, Any]:
    if name in within:
        return within[name](model, texts)
    if name in texts:
        return model.encode(texts[name])
    return {**model.encode(texts["prompt"]), "attention": name}


def as_guidance(guidance: Guidance | str) -> Guidance:
    """The guidance, read if it is a text.

    Raises:
        GuidanceError: the text is no formula.
    """
    return guidance if isinstance(guidance, Guidance) else parse(guidance)


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    try:
        return [index(seeds)]  # type: ignore[arg-type]
    except TypeError:
        return list(seeds)  # type: ignore[arg-type]


def _check_names(guidance: Guidance, texts: Iterable[str]) -> None:
    if missing := [name for name in guidance.names if name not in {*texts, *PERTURBED}]:
        raise DNPError(f"the guidance {guidance} needs a text for {missing[0]!r}: there are {', '.join(texts)}")


@dataclass
class DNP:
    r"""The recipe: `DNP(model, captioner)("a prompt", seed=0)` → a `Result`.

    1. DNS from the noise of the seed: the picture that the model thinks least like the prompt (eq. 19).
    2. Its caption is the negative prompt :math:`n^*`.
    3. The prompt again, from the same noise, guided by :math:`(p, n^*)` (eq. 4).

    A guidance that does not name "negative" spares the first two steps.
    With `at`, the caption is not of the diffusion-negative but of the picture on its way, at these steps.
    With a `captioning.Fixed` or `Universal` text as the captioner, plain negative prompting, the first step is spared.

    Args:
        model: The text-to-image model.
        captioner: Pictures → texts; None makes the plain picture only.
        guidance: Of the final picture, in terms of "prompt", "negative" and "empty"; as all three, a guidance or its
            text, such as "u + 7.5*(p - n)".
        dns: Of the diffusion-negative picture.
        plain: Of the picture to compare with.
        sampling: Of the plain and the final picture.
        dns_sampling: Of the diffusion-negative picture; as `sampling` by default.
        at: Steps before which the negative prompt is captioned on the way: see `dnp.on_the_way`.
        progress: stage ("plain", "dns", "caption", "dnp") → what `samplers.sample` takes as its progress.
        attend: Attend-and-Excite or SynGen for the final picture, which is the plain one without a captioner.
        within: Name of a condition of the final picture → what makes it, as `paint` takes it.
        init, denoise, mask: As `paint` takes them, for all pictures: each starts at the same picture with the same
            noise (with `dns_sampling` of other steps, at its level next to that share).

    Raises:
        DNPError: a guidance names a condition that has no text; the captioner is a text; the picture to start at, its
            mask or share cannot be used.
        GuidanceError: the text of a guidance is no formula.
    """

    model: TextToImage
    captioner: Captioner | None
    guidance: Guidance | str = field(default_factory=lambda: NegPrompt(7.5, evaluations=3))
    dns: Guidance | str = field(default_factory=lambda: DNS(7.5))
    plain: Guidance | str = field(default_factory=lambda: CFG(7.5))
    sampling: Sampling = field(default_factory=Sampling)
    dns_sampling: Sampling | None = None
    at: Sequence[int] | None = None
    progress: Progress = field(default=lambda stage: False)
    attend: Attend | None = None
    within: Mapping[str, Within] = field(default_factory=dict)
    init: Image.Image | Sequence[Image.Image] | None = None
    denoise: float | None = None
    mask: Image.Image | None = None

    def __post_init__(self) -> None:
        if isinstance(self.captioner, str):
            raise DNPError(
                f"the captioner {self.captioner[:40]!r} is a text: give captioning.Transformers(name) for a model, or "
                "captioning.Fixed(text) for a negative prompt"
            )
        self.guidance, self.dns, self.plain = map(as_guidance, (self.guidance, self.dns, self.plain))
        for guidance in (self.plain, self.dns):
            _check_names(guidance, ("prompt", "empty"))
        _check_names(self.guidance, ("prompt", "empty", "negative", *self.within))
        start = Start(self.init, self.denoise, self.mask)
        start.check(self.model)
        steps = start.steps(self.sampling.steps)
        if self._dns_made:
            start.steps((self.dns_sampling or self.sampling).steps)  # which refuses a share of less than one step
        if wrong := [step for step in self.at or () if not 0 <= step < steps]:
            raise DNPError(f"there is no step {wrong[0]} to caption at: the steps go from 0 to {steps - 1}")

    @property
    def _dns_made(self) -> bool:
        # A text looks at no picture, and on the way another one is looked at
        return self.captioner is not None and not isinstance(self.captioner, (Fixed, Universal)) and self.at is None

    @overload
    def __call__(self, prompt: str, seed: int = 0) -> Result: ...
    @overload
    def __call__(self, prompt: Sequence[str], seed: Sequence[int]) -> list[Result]: ...
    def __call__(self, prompt: str | Sequence[str], seed: int | Sequence[int] = 0) -> Result | list[Result]:
        """One prompt and seed, or as many seeds as prompts, which are made in one batch: faster, and the same pictures
        up to rounding, since products and convolutions round differently in batches of different size.

        Raises:
            DNPError: an empty prompt; lengths that differ.
            CaptionError: the captioner gave nothing that can be used.
        """
        prompts, seeds = [prompt] if isinstance(prompt, str) else list(prompt), _seeds(seed)
        if len(seeds) != len(prompts):
            raise DNPError(
                f"{counted(len(prompts), 'prompt')} and {counted(len(seeds), 'seed')}: give lists of the same length"
            )
        results = [Result(check_prompt(text), seed) for text, seed in zip(prompts, seeds, strict=True)]
        self.complete(results)
        return results[0] if isinstance(prompt, str) else results

    def complete(self, results: list[Result]) -> None:
        """Make what the results lack, in one batch. What was made is in them whatever then fails.

        Raises:
            CaptionError: the captioner gave nothing that can be used.
        """
        texts = {"prompt": [result.prompt for result in results]}
        self._paint(results, "plain", self.plain, texts, self.sampling)
        if self.captioner is None:
            return
        if "negative" not in as_guidance(self.guidance).names and not self.within:  # a caption would not be used
            self._paint(results, "dnp", self.guidance, texts, self.sampling)
            return
        if self.at is not None:
            hook = OnTheWay(self.model, self.captioner, self.at)
            texts["negative"] = [""] * len(results)
            self._paint(results, "dnp", self.guidance, texts, self.sampling, hook)
            for place, result in enumerate(results):
                result.on_the_way = {step: captions[place] for step, captions in hook.captions.items()}
                result.caption = next(reversed(result.on_the_way.values()), None)
            return
        if self._dns_made:
            self._paint(results, "dns", self.dns, texts, self.dns_sampling or self.sampling)
        self._caption(results, self.captioner)
        texts["negative"] = [result.caption.used for result in results if result.caption]
        self._paint(results, "dnp", self.guidance, texts, self.sampling)

    def _paint(
        self,
        results: list[Result],
        stage: str,
        guidance: Guidance | str,
        texts: dict[str, list[str]],
        sampling: Sampling,
        on_the_way: OnTheWay | None = None,
    ) -> None:
        if all(stage in result.images for result in results):
            return
        start = time.perf_counter()
        seeds = [result.seed for result in results]
        final = stage == ("plain" if self.captioner is None else "dnp")
        attending = self.attend.on(self.model, texts["prompt"]) if final and self.attend else None
        images, evaluations = paint(
            self.model,
            guidance,
            texts,
            seeds,
            sampling,
            self.progress(stage),
            hook_of(attending, on_the_way),
            self.within if final else {},
            self.init,
            self.denoise,
            self.mask,
        )
        for place, (result, image) in enumerate(zip(results, images, strict=True)):
            result.images[stage] = image
            result.evaluations[stage] = evaluations + (attending.evaluations[place] if attending else 0)
            result.seconds[stage] = (time.perf_counter() - start) / len(results)

    def _caption(self, results: list[Result], captioner: Captioner) -> None:
        start = time.perf_counter()
        with ticker(self.progress("caption"), 1) as tick:
            images = [result.images.get("dns", result.plain) for result in results]
            captions = captions_of(captioner, images, getattr(self.model, "tokenizer", None))
            tick()
        for result, caption in zip(results, captions, strict=True):
            result.caption = caption
            result.seconds["caption"] = (time.perf_counter() - start) / len(results)
