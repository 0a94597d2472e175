r"""From noise to a sample: one function for all samplers, and what it tells at each step."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor

from .errors import SamplerError, check_options, lookup
from .pictures import Picture
from .progress import Progress, ticker
from .registry import TABLE, Sampler
from .seeding import Churn, brownian_noise, check_seeds, step_noise


@dataclass
class Step:
    r"""Where a walk is: what hooks and traces of :func:`sample` are given.

    Attributes:
        index: The step, from 0.
        count: The number of steps, `None` if the sampler chooses its own.
        level: This step's noise level :math:`\sigma_i`, a number known without asking the device.
        next_level: The noise level that the step leads to, :math:`\sigma_{i + 1}`, `None` if the
            sampler chooses its own.
        x: The state :math:`x_0 + \sigma \epsilon`, with shape :math:`(B, C, H, W)`.
        denoised: The denoised prediction, with shape :math:`(B, C, H, W)`; `None` before the evaluation.
    """

    index: int
    count: int | None
    level: float
    next_level: float | None
    x: Tensor
    denoised: Tensor | None = None

    @property
    def sigma(self) -> Tensor:
        r"""This step's noise level on the device of `x`, with shape :math:`(B)`."""
        return self.x.new_full(self.x.shape[:1], self.level)

    @property
    def sigma_next(self) -> Tensor | None:
        r"""The next noise level on the device of `x`, with shape :math:`(B)`; `None` if nobody knows it."""
        return None if self.next_level is None else self.x.new_full(self.x.shape[:1], self.next_level)

    def stop(self) -> NoReturn:
        r"""Ends the walk here: :func:`sample` returns this step's state, at this step's noise level."""
        raise _Stopped(self)


class _Stopped(Exception):
    def __init__(self, step: Step) -> None:
        super().__init__(f"the walk was stopped at step {step.index}, outside samplers.sample")
        self.step = step


Hook = Callable[[Step], Tensor | None]
r"""Called before the first evaluation of every step; may return a changed `x`, or stop the walk.

Samplers run without gradients: a hook that needs them opens `torch.enable_grad()` itself."""
Trace = Callable[[Step], object]
r"""Called once a step after its evaluation, for looking; may stop the walk."""


def sample(
    model: Callable[..., Tensor],
    noise: Tensor,
    sigmas: Tensor,
    *,
    sampler: str = "dpmpp_2m",
    extra_args: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    start: Literal["unit", "sigma"] = "unit",
    picture: Picture | None = None,
    progress: Progress = False,
    hook: Hook | None = None,
    trace: Trace | None = None,
    **options: Any,
) -> Tensor:
    r"""Walks from noise to a sample.

    Noise and result are variance-preserving latents :math:`z = x / \sqrt{1 + \sigma^2}` at the two ends of
    the schedule. The walk starts from :math:`x = \sqrt{1 + \sigma_0^2}\, z`, which for
    :math:`z \sim \mathcal{N}(0, I)` has the variance of noised data of unit variance, and returns
    :math:`x / \sqrt{1 + \sigma_N^2}`, which is :math:`x` itself where the schedule ends in zero. This is the
    convention of diffusers' DDIM, DDPM and DPM++, and of its Euler with leading spacing. k-diffusion's users,
    and diffusers' Euler with other spacings, start from :math:`x = \sigma_0 z`: `start="sigma"`.

    Arguments:
        model: The denoiser, `model(x, sigma, **extra_args) -> denoised`, with `sigma` of shape :math:`(B)`. If it has
            them, as a guided denoiser does, `begin()` is called before the walk, and `check()` after it.
        noise: Standard Gaussian noise, with shape :math:`(B, C, H, W)`. The walk is in float32 even where the
            noise is not: a denoiser in half precision casts what it is given.
        sigmas: The noise levels :math:`\sigma_0 \geq \dots \geq \sigma_N`, with shape :math:`(N + 1)`.
        sampler: The name of the sampler, one of `SAMPLERS`.
        extra_args: Keyword arguments for the denoiser.
        seeds: The seeds of the images, needed where the sampler adds noise. They are those given to
            :func:`samplers.noise`, whose streams they continue.
        start: Whether the walk starts from the noise times :math:`\sqrt{1 + \sigma_0^2}` ("unit") or times
            :math:`\sigma_0` ("sigma").
        picture: What the walk begins at, with the noise added at :math:`\sigma_0`, whatever `start` says; noise alone
            by default. :func:`samplers.denoise_levels` gives the levels of a part of the steps.
        progress: Whether to show a bar: a boolean, its label, or a function of the steps done and all steps.
        hook: Called with a :class:`Step` before the first evaluation of every step; may return a changed
            :math:`x`, or stop the walk.
        trace: Called with a :class:`Step` once a step, after its evaluation; may stop the walk.
        options: Options of the sampler as k-diffusion names them (`eta`, `s_noise`, `noise_sampler`, ...).

    Returns:
        The samples, with the shape and dtype of the noise.

    Raises:
        SamplerError: If a name, an option, a seed or a noise level cannot be used, if seeds are needed and
            missing, or if the result is not finite.
    """

    entry = lookup("sampler", sampler, TABLE)
    check_options("sampler", sampler, options, entry.options)
    sigmas = _check_sigmas(sigmas)
    levels = sigmas.tolist()
    sigmas = sigmas.to(noise.device)
    if start not in ("unit", "sigma"):
        raise SamplerError(f"start={start!r} is not one of 'unit', 'sigma'")
    if len(noise) > 1 and not entry.batched:
        raise SamplerError(
            f"sampler {sampler!r} chooses its steps by the whole batch, so images would depend on each "
            f"other; give it one image at a time, not {len(noise)}"
        )

    # k-diffusion mixes half precision with float32 in some samplers; and a sum of many steps wants float32.
    x = noise.to(torch.promote_types(noise.dtype, torch.float32))
    added = x
    if picture is None:
        x = x * (levels[0] if start == "sigma" else (1 + sigmas[0] ** 2) ** 0.5)
    else:
        picture.check(x)
        x = picture.at(levels[0], added)
    count = len(levels) - 1 if entry.on_schedule else None

    def step_at(index: int, level: float, x: Tensor, denoised: Tensor | None = None) -> Step:
        if count is None:
            return Step(index, None, level, None, x, denoised)
        return Step(index, count, levels[index], levels[index + 1], x, denoised)

    if picture is not None and picture.mask is not None:
        hook = _keeping(picture, added, hook)
    walked = model if hook is None else _Hooked(model, hook, step_at, calls(sampler, sigmas, **options))
    seeded, churn = _noise_from(seeds, sampler, entry, x, sigmas, options)
    last = sigmas[-1]

    if callable(begin := getattr(model, "begin", None)):
        begin()
    with ticker(progress, count) as tick, churn:

        def callback(info: dict[str, Any]) -> None:
            if trace is not None:
                trace(step_at(info["i"], float(info["sigma"]) if count is None else 0.0, info["x"], info["denoised"]))
            tick()

        options |= {"extra_args": extra_args, "callback": callback, "disable": True, **seeded}
        try:
            x = entry.function(walked, x, sigmas, **options)
        except _Stopped as stopped:
            x, last = stopped.step.x, sigmas.new_tensor(stopped.step.level)
    if picture is not None:
        x = picture.keep(x, float(last), added)

    if callable(check := getattr(model, "check", None)):
        check()
    if not x.isfinite().all():
        bad = [i for i, image in enumerate(x) if not image.isfinite().all()]
        raise SamplerError(f"sampler {sampler!r} gave values that are not finite, in images {bad}")
    return (x / (1 + last**2) ** 0.5).to(noise.dtype)


def calls(sampler: str, sigmas: Tensor, **options: Any) -> list[list[float]]:
    r"""Returns the noise levels at which a sampler evaluates the model, step by step.

    They are not worked out but seen, on a walk with a model of one number.

    Arguments:
        sampler: The name of the sampler, one of `SAMPLERS`.
        sigmas: The noise levels, with shape :math:`(N + 1)`.
        options: Options of the sampler.

    Raises:
        SamplerError: If the sampler chooses its own steps (`dpm_fast`, `dpm_adaptive`).
    """

    entry = lookup("sampler", sampler, TABLE)
    check_options("sampler", sampler, options, entry.options)
    sigmas = _check_sigmas(sigmas)
    if not entry.on_schedule:
        raise SamplerError(f"sampler {sampler!r} chooses its own steps: no hook or plan of them")
    if "noise_sampler" in entry.options:
        options["noise_sampler"] = lambda sigma, sigma_next: 0.0

    def walk(sigmas: Tensor, **options: Any) -> list[float]:
        seen: list[float] = []

        def model(x: Tensor, sigma: Tensor) -> Tensor:
            seen.append(sigma.item())
            return x

        x = torch.zeros(1)
        with Churn(x, lambda: x):
            entry.function(model, x, sigmas, disable=True, **options)
        return seen

    levels, steps = iter(walk(sigmas, **options)), len(sigmas) - 1
    if "s_churn" in options:
        options["s_churn"] /= steps  # it is spread over the steps, and from here on there is one
    return [[next(levels) for _ in walk(sigmas[i : i + 2], **options)] for i in range(steps)]


def _keeping(picture: Picture, noise: Tensor, hook: Hook | None) -> Hook:
    # What one step did to the kept part is undone before the next.
    def keep(step: Step) -> Tensor | None:
        step.x = picture.keep(step.x, step.level, noise)
        changed = None if hook is None else hook(step)
        return step.x if changed is None else changed

    return keep


class _Hooked:
    r"""A model that calls the hook before the first evaluation of every step.

    k-diffusion's samplers hold :math:`x` themselves, and make a new one at every step: so it is changed in
    place.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        hook: Hook,
        step_at: Callable[[int, float, Tensor], Step],
        plan: Sequence[Sequence[float]],
    ) -> None:
        self.model, self.hook, self.step_at = model, hook, step_at
        self.calls = iter([(step, i == 0) for step, levels in enumerate(plan) for i in range(len(levels))])

    def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        index, first = next(self.calls)
        if first and (changed := self.hook(self.step_at(index, 0.0, x))) is not None:
            if changed.shape != x.shape:
                raise SamplerError(f"the hook gave shape {tuple(changed.shape)} for {tuple(x.shape)}")
            x.copy_(changed)
        return self.model(x, sigma, **kwargs)


def _check_sigmas(sigmas: Tensor) -> Tensor:
    s = sigmas.detach().cpu()
    if s.ndim != 1 or len(s) < 2 or not (s.isfinite().all() and (s[:-1] > 0).all() and s[-1] >= 0):
        raise SamplerError(f"sigmas must be two or more positive levels, the last may be 0; got {s.tolist()}")
    if (s.diff() > 0).any():
        raise SamplerError(f"sigmas must not rise; got {s.tolist()}")
    return s


def _noise_from(
    seeds: Sequence[int] | None,
    sampler: str,
    entry: Sampler,
    x: Tensor,
    sigmas: Tensor,
    options: Mapping[str, Any],
) -> tuple[dict[str, Any], AbstractContextManager[Any]]:
    # Returns the sampler's noise_sampler, if it has one and none is given, and the context for its churn.
    if seeds is not None and len(check_seeds(seeds)) != len(x):
        raise SamplerError(f"{len(seeds)} seeds for {len(x)} images; one per image is needed")
    open_ = "noise_sampler" in entry.options and options.get("noise_sampler") is None
    adds = open_ and options.get("eta", entry.options["eta"]) > 0
    churns = options.get("s_churn", 0) > 0
    if seeds is None:
        if adds or churns:
            raise SamplerError(f"sampler {sampler!r} adds noise at every step: pass seeds=, one per image")
    elif churns:
        return {}, Churn(x, step_noise(x, seeds))
    elif adds:
        drawn = brownian_noise(x, sigmas, seeds) if entry.brownian else step_noise(x, seeds)
        return {"noise_sampler": drawn}, nullcontext()
    # Samplers ask for noise even at eta 0: zeros keep the global generator as it was.
    return {"noise_sampler": lambda sigma, sigma_next: 0.0} if open_ else {}, nullcontext()
