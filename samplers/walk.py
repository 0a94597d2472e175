r"""The walk itself: one function for all samplers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from .errors import SamplerError, check_options, lookup
from .names import TABLE, Sampler
from .progress import Progress, ticker
from .seeding import Churn, brownian_noise, check_seeds, step_noise


class Hook(Protocol):
    r"""Called before the first evaluation of every step; may return a changed `x`.

    Samplers run without gradients: a hook that needs them opens `torch.enable_grad()` itself.
    """

    def __call__(self, x: Tensor, sigma: Tensor, step: int, /) -> Tensor | None:
        r"""
        Arguments:
            x: The state :math:`x_0 + \sigma \epsilon`, with shape :math:`(B, C, H, W)`.
            sigma: The noise level, with shape :math:`(B)`.
            step: The step, from 0.
        """


class Trace(Protocol):
    r"""Called once a step with what the sampler sees; for looking only."""

    def __call__(self, step: int, x: Tensor, sigma: Tensor, denoised: Tensor, /) -> object:
        r"""
        Arguments:
            step: The step, from 0.
            x: The state :math:`x_0 + \sigma \epsilon`, with shape :math:`(B, C, H, W)`.
            sigma: The noise level, with shape :math:`()`.
            denoised: The denoised prediction, with shape :math:`(B, C, H, W)`.
        """


def sample(
    model: Callable[..., Tensor],
    noise: Tensor,
    sigmas: Tensor,
    *,
    sampler: str = "dpmpp_2m",
    extra_args: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    start: Literal["unit", "sigma"] = "unit",
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
        model: The denoiser, `model(x, sigma, **extra_args) -> denoised`, with `sigma` of shape :math:`(B)`.
        noise: Standard Gaussian noise, with shape :math:`(B, C, H, W)`. The walk is in float32 even where the
            noise is not: a denoiser in half precision casts what it is given.
        sigmas: The noise levels :math:`\sigma_0 \geq \dots \geq \sigma_N`, with shape :math:`(N + 1)`.
        sampler: The name of the sampler, one of `SAMPLERS`.
        extra_args: Keyword arguments for the denoiser.
        seeds: The seeds of the images, needed where the sampler adds noise. They are those given to
            :func:`samplers.noise`, whose streams they continue.
        start: Whether the walk starts from the noise times :math:`\sqrt{1 + \sigma_0^2}` ("unit") or times
            :math:`\sigma_0` ("sigma").
        progress: Whether to show a bar: a boolean, its label, or a function of the steps done and all steps.
        hook: Called before the first evaluation of every step; may return a changed :math:`x`.
        trace: Called once a step with the step, :math:`x`, :math:`\sigma` and the denoised prediction.
        options: Options of the sampler as k-diffusion names them (`eta`, `s_noise`, `noise_sampler`, ...).

    Returns:
        The samples, with the shape and dtype of the noise.

    Raises:
        SamplerError: If a name, an option, a seed or a noise level cannot be used, if seeds are needed and
            missing, or if the result is not finite.
    """

    entry = lookup("sampler", sampler, TABLE)
    check_options("sampler", sampler, options, entry.options)
    sigmas = _check_sigmas(sigmas).to(noise.device)
    if start not in ("unit", "sigma"):
        raise SamplerError(f"start={start!r} is not one of 'unit', 'sigma'")
    if len(noise) > 1 and not entry.batched:
        raise SamplerError(
            f"sampler {sampler!r} chooses its steps by the whole batch, so images would depend on each "
            f"other; give it one image at a time, not {len(noise)}"
        )

    # k-diffusion mixes half precision with float32 in some samplers; and a sum of many steps wants float32.
    x = noise.to(torch.promote_types(noise.dtype, torch.float32))
    x = x * (sigmas[0] if start == "sigma" else (1 + sigmas[0] ** 2) ** 0.5)
    if hook is not None:
        model = _Hooked(model, hook, [len(levels) for levels in calls(sampler, sigmas, **options)])
    seeded, churn = _noise_from(seeds, sampler, entry, x, sigmas, options)

    with ticker(progress, len(sigmas) - 1 if entry.on_schedule else None) as tick, churn:

        def callback(info: dict[str, Any]) -> None:
            if trace is not None:
                trace(info["i"], info["x"], info["sigma"], info["denoised"])
            tick()

        options |= {"extra_args": extra_args, "callback": callback, "disable": True, **seeded}
        x = entry.function(model, x, sigmas, **options)

    if not x.isfinite().all():
        bad = [i for i, image in enumerate(x) if not image.isfinite().all()]
        raise SamplerError(f"sampler {sampler!r} gave values that are not finite, in images {bad}")
    return (x / (1 + sigmas[-1] ** 2) ** 0.5).to(noise.dtype)


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
    sigmas = _check_sigmas(sigmas).cpu()
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


class _Hooked:
    r"""A model that calls the hook before the first evaluation of every step.

    k-diffusion's samplers hold :math:`x` themselves, and make a new one at every step: so it is changed in
    place.
    """

    def __init__(self, model: Callable[..., Tensor], hook: Hook, counts: Sequence[int]) -> None:
        self.model, self.hook = model, hook
        self.calls = iter([(step, i == 0) for step, count in enumerate(counts) for i in range(count)])

    def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        step, first = next(self.calls)
        if first and (changed := self.hook(x, sigma, step)) is not None:
            if changed.shape != x.shape:
                raise SamplerError(f"the hook gave shape {tuple(changed.shape)} for {tuple(x.shape)}")
            x.copy_(changed)
        return self.model(x, sigma, **kwargs)


def _check_sigmas(sigmas: Tensor) -> Tensor:
    s = sigmas.detach()
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
