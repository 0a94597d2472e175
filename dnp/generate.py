"""`dnp generate`: a request in words becomes a recipe, and its results a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import samplers
from captioning import Captioner, Fixed, Person, Universal
from dnp.attention.attend_and_excite import AttendAndExcite
from dnp.attention.syngen import SynGen, read_pairs
from dnp.attention.word_maps import Looking, word_maps
from dnp.captioners import captioner_of
from dnp.errors import DNPError
from dnp.limits import check_prompt
from dnp.models.defaults import Defaults
from dnp.models.stable_diffusion import StableDiffusion
from dnp.recipe import DNP, Attend, Sampling
from dnp.runs.generated import Generated
from dnp.runs.record import png
from dnp.runs.threads import default_threads
from dnp.runs.threads import threads as computing
from dnp.start import Start, read_picture
from dnp.wording import counted
from eval.manifest import write_whole
from guidance import parse

_MAPS = 8  # rows of the sheet of attention maps, each of which takes another walk


def generate(
    prompt: str,
    seeds: Sequence[int],
    out: Path,
    *,
    model: str = "embedded",
    negative: str = "auto",
    caption_steps: Sequence[int] | None = None,
    attend: str | None = None,
    bind: str | None = None,
    attention_maps: bool = False,
    init: str | None = None,
    denoise: float | None = None,
    mask: str | None = None,
    batch: int = 1,
    device: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    loading: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Generated:
    """Make what is missing of a run, and its contact sheet.

    Args:
        negative: "auto", "on-the-way", "ask", "none", "universal" or a text.
        caption_steps: Where "on-the-way" captions; after a quarter and half of the steps by default.
        attend: Words that the final picture attends to (Attend-and-Excite), such as "cat,dog", or "entities", the last
            word of each; the final picture is the plain one with the negative "none".
        bind: Modifiers and their nouns that it binds (SynGen), such as "red:car,white:clock", or "colours", those of
            each "a COLOUR NOUN".
        attention_maps: Whether to write where the plain pictures of the first seeds attend to each word of `attend`, or
            to the last of each entity: `attention-maps.png`.
        init, denoise, mask: The file of a picture to start at, the share of the steps that it takes, and the file of a
            mask, white where the picture is painted anew: see `dnp.start`.
        batch: Seeds at a time. Products and convolutions round differently in batches of different size, so that a
            pixel may differ by a level.
        threads: Number of torch's threads; by default that of the run in `out`, or what suits the model.
        loading: Other options of `StableDiffusion`; None leaves one alone.
        say: Takes warnings and what was made, a line each.
        options: Fields of `Defaults` that differ from the model's own; None leaves one alone.

    Raises:
        DNPError, GuidanceError, SamplerError, CaptionError: something that was given cannot be used.
    """
    check_prompt(prompt)
    start, begun = _start(init, denoise, mask)
    if not negative.strip():
        raise DNPError("the negative prompt is empty: --negative none makes plain pictures only")
    if caption_steps and negative != "on-the-way":
        raise DNPError("steps to caption at are for --negative on-the-way: leave --caption-steps out, or give both")
    given = {name: value for name, value in (loading or {}).items() if value is not None}
    loaded = StableDiffusion(model, device, dtype, **given)
    how = loaded.defaults.but(**options)
    plain, final, dns = (parse(text, s=how.scale, w=how.strength) for text in ("CFG(s)", how.guidance, how.dns))
    if "negative" not in final.names:
        if negative not in ("auto", "none"):
            raise DNPError(f"the guidance {final} takes no negative prompt: leave --negative {negative!r} out")
        negative = "none"
    if negative == "none" and options.get("guidance") is not None:
        plain = final  # the one formula that was asked for, with no negative to compare with
    written = [] if negative in ("auto", "on-the-way", "ask", "none", "universal") else [negative]
    for text in [prompt, *written]:
        for warning in loaded.warnings(text):
            say(f"warning: {warning}")
    sampling = Sampling(how.sampler, how.schedule, how.steps)
    dns_sampling = replace(sampling, steps=how.dns_steps)
    for walk in (sampling, dns_sampling):
        walk.sigmas(loaded.denoiser)  # which refuses more steps than there are, before anything is made
    captioner = _captioner(negative, how, loaded)
    attending = _attending(attend, bind)
    if attending is not None:
        attending.on(loaded, [prompt])  # which refuses words that are not there, before anything is made
        samplers.calls(how.sampler, sampling.sigmas(loaded.denoiser))  # and this, samplers without hooks
    words = _words(attend)
    if attention_maps:
        Looking(loaded, [prompt], words)
    walked = Start(**start).steps(how.steps)
    at = list(caption_steps or (walked // 4, walked // 2)) if negative == "on-the-way" else None
    recipe = DNP(loaded, captioner, final, dns, plain, sampling, dns_sampling, attend=attending, at=at, **start)
    settings = {
        "prompt": prompt,
        "negative": negative,
        "source": "text" if written else negative,
        "model": loaded.name,
        "plain": str(plain),
        "guidance": str(final),
        "dns": str(dns),
        "scale": how.scale,
        "strength": how.strength,
        "sampler": how.sampler,
        "schedule": how.schedule,
        "steps": how.steps,
        "dns_steps": how.dns_steps,
        "captioner": captioner.name if captioner else "none",
        "dtype": str(loaded.dtype).removeprefix("torch."),
        **({} if at is None else {"caption_steps": at}),
        **{name: text for name, text in (("attend", attend), ("bind", bind)) if text},
        **begun,
    }
    extra = {"batch": batch if batch > 1 else None, "threads": threads, "model_options": loaded.options}
    settings |= {name: value for name, value in extra.items() if value}
    with (
        Generated(out, settings, {"threads": default_threads(loaded.folder)}) as run,
        computing(run.settings["threads"]),
    ):
        sheet = _complete(run, recipe, seeds, batch, say)
        if attention_maps:
            first = list(dict.fromkeys(seeds))[:_MAPS]
            maps = word_maps(loaded, prompt, first, words, guidance=plain, sampling=sampling, start=start)
            write_whole(out / "attention-maps.png", png(maps))
    for record in run.records.values():
        if record["arm"] == "dnp" and record["seed"] in seeds:
            say(f"seed {record['seed']}: negative prompt {record['negative_prompt']!r}")
    say(f"{counted(len(seeds), 'seed')} in {out}: look at {sheet}")
    return run


def _complete(run: Generated, recipe: DNP, seeds: Sequence[int], batch: int, say: Callable[[str], None]) -> Path | None:
    """Make what is missing, and the contact sheet if there is anything to show."""
    done = run.done()
    todo = [seed for seed in dict.fromkeys(seeds) if seed not in done]
    if len(todo) < len(seeds):
        say(f"{len(seeds) - len(todo)} of {counted(len(seeds), 'seed')} already in {run.path}")
    bars = sys.stderr.isatty()  # elsewhere they would fill a log
    try:
        for start in range(0, len(todo), batch):
            now = todo[start : start + batch]
            which = f"{start + 1}{f'-{start + len(now)}' if len(now) > 1 else ''} of {len(todo)}"
            recipe.progress = lambda stage, which=which: bars and f"{stage:7} {which}"  # type: ignore[misc]
            results = [run.begun(seed) for seed in now]
            try:
                recipe.complete(results)
            finally:  # what was made before a captioner failed is kept
                run.keep(results)
        run.finish()
    finally:
        sheet = run.write_sheet() if run.done() else None
    return sheet


def _start(init: str | None, denoise: float | None, mask: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the recipe takes of the picture to start at, and what the records say of it.

    Raises:
        DNPError: One of them cannot be used.
        PictureError: A file is no readable picture.
    """
    start: dict[str, Any] = {"denoise": denoise}
    begun: dict[str, Any] = {}
    for name, path in (("init", init), ("mask", mask)):
        if path is not None:
            start[name], begun[name] = read_picture(path, f"--{name}")
    share = Start(**start).share
    return start, begun | {"denoise": share} if init else begun


def _attending(attend: str | None, bind: str | None) -> Attend | None:
    """What moves the final picture.

    Raises:
        DNPError: Both are asked for; a pair is none.
    """
    if attend and bind:
        raise DNPError("words are attended to or bound, not both: give --attend or --bind")
    if bind:
        return SynGen(None if bind == "colours" else read_pairs(bind))
    return AttendAndExcite(_words(attend)) if attend else None


def _words(attend: str | None) -> list[str] | None:
    return [word.strip() for word in attend.split(",")] if attend and attend != "entities" else None


def _captioner(negative: str, how: Defaults, model: StableDiffusion) -> Captioner | None:
    if negative == "none":
        return None
    if negative == "ask":
        return Person()
    if negative == "universal":
        return Universal([how.universal]) if how.universal else Universal()
    if negative not in ("auto", "on-the-way"):
        return Fixed(negative)
    return captioner_of(model, how.captioner)
