"""`dnp generate`: a request in words becomes a recipe, and its results a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from captioning import Captioner, Fixed, Person, Universal, usable
from dnp.captioners import captioner_of
from dnp.errors import DNPError
from dnp.models.defaults import Defaults
from dnp.models.stable_diffusion import StableDiffusion
from dnp.recipe import DNP, Sampling
from dnp.runs.run import RunFolder
from guidance import parse


def generate(
    prompt: str,
    seeds: Sequence[int],
    out: Path,
    *,
    model: str = "embedded",
    negative: str = "auto",
    caption_steps: Sequence[int] = (),
    device: str | None = None,
    dtype: str | None = None,
    loading: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
    **options: Any,
) -> RunFolder:
    """Make what is missing of a run, and its contact sheet.

    Args:
        negative: "auto", "on-the-way", "ask", "none", "universal" or a text.
        caption_steps: Where "on-the-way" captions; after a quarter and half of the steps by default.
        loading: Of `StableDiffusion`, its other options.
        say: Takes warnings and what was made, a line each.
        options: Of `Defaults`, those that are not to be the model's own; None leaves one alone.

    Raises:
        DNPError, GuidanceError, SamplerError, CaptionError: what a person can mend.
    """
    if not prompt.strip():
        raise DNPError("the prompt is empty: say what the picture should show")
    if not negative.strip():
        raise DNPError("the negative prompt is empty: --negative none makes plain pictures only")
    if caption_steps and negative != "on-the-way":
        raise DNPError("steps to caption at are for --negative on-the-way: leave --caption-steps out, or give both")
    loaded = StableDiffusion(model, device, dtype, **loading or {})
    given = {key: value for key, value in options.items() if value is not None}
    how = replace(loaded.defaults, **given)
    if "steps" in given and "dns_steps" not in given:
        how = replace(how, dns_steps=min(how.steps, how.dns_steps))
    plain, final, dns = (parse(text, s=how.scale, w=how.strength) for text in ("CFG(s)", how.guidance, how.dns))
    if negative == "none" and "guidance" in given:
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
    at = list(caption_steps or (how.steps // 4, how.steps // 2)) if negative == "on-the-way" else None
    recipe = DNP(loaded, captioner, final, dns, plain, sampling, dns_sampling, at)
    settings = {
        "prompt": prompt,
        "negative": negative,
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
    }
    if loaded.options:
        settings["model_options"] = loaded.options
    folder = RunFolder(out, settings)
    done = folder.done()
    todo = [seed for seed in dict.fromkeys(seeds) if seed not in done]
    if len(todo) < len(seeds):
        say(f"{len(seeds) - len(todo)} of {len(seeds)} seeds are already in {out}")
    try:
        # One at a time: in batches of different size, products and convolutions round differently
        for number, seed in enumerate(todo, 1):
            recipe.progress = lambda stage, number=number: f"{stage:7} {number} of {len(todo)}"  # type: ignore[misc]
            result = folder.begun(prompt, seed)
            try:
                recipe.complete([result])
            finally:  # what was made before a captioner failed is kept
                if result.images:
                    folder.add([result])
    finally:
        sheet = folder.write_sheet() if folder.done() else None
    for record in folder.records:
        if record["arm"] == "dnp" and record["seed"] in seeds:
            say(f"seed {record['seed']}: negative prompt {record['negative_prompt']!r}")
    say(f"{len(seeds)} seeds in {out}: look at {sheet}")
    return folder


def _captioner(negative: str, how: Defaults, model: StableDiffusion) -> Captioner | None:
    if negative == "none":
        return None
    if negative == "ask":
        return Person()
    if negative == "universal":
        return Universal([how.universal]) if how.universal else Universal()
    if negative not in ("auto", "on-the-way"):
        usable(negative, model.tokenizer)  # refused now, or after the plain pictures
        return Fixed(negative)
    return captioner_of(model, how.captioner)
