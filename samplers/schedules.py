r"""Noise levels by name.

The names "leading", "trailing" and "linspace" are Stable Diffusion's, as diffusers defines them (Lin et al.,
table 2): they choose timesteps of a model trained on a table of noise levels. At a fractional timestep, which
"linspace" has, diffusers interpolates :math:`\sigma` linearly where k-diffusion interpolates
:math:`\log \sigma`; diffusers' values are taken, so that people's pictures agree.

"beta", "sgm_uniform", "simple" and "align_your_steps" are the field's names for other choices of timesteps or levels,
with ComfyUI's meaning; elsewhere the same names mean other tables (diffusers' "beta" is one of :math:`\sigma`). At a
fractional timestep they interpolate :math:`\log \sigma`.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
    | https://arxiv.org/abs/2206.00364

    | Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2024)
    | https://arxiv.org/abs/2305.08891

    | Beta Sampling is All You Need (Lee et al., 2024)
    | https://arxiv.org/abs/2407.12173

    | Align Your Steps: Optimizing Sampling Schedules in Diffusion Models (Sabour, Fidler and Kreis, 2024)
    | https://arxiv.org/abs/2404.14507
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .errors import SamplerError, check_options, lookup, option_defaults
from .lazily import k_sampling

Final = Literal["zero", "sigma_min"]
# Ten steps of Stable Diffusion 1 and XL (Sabour et al.), and the level before zero that more steps are interpolated to
_ALIGNED = {
    "sd": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}


def own(model: Any, steps: int) -> Tensor:
    r"""the model's own levels, `model.get_sigmas(steps)`"""

    if not hasattr(model, "get_sigmas"):
        raise SamplerError(f"schedule 'model' needs `get_sigmas`, which {type(model).__name__} lacks")
    if hasattr(model, "sigmas"):
        _table("model", model, steps)
    return model.get_sigmas(steps)


def karras(
    model: Any,
    steps: int,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rho: float = 7.0,
) -> Tensor:
    r"""even in sigma ** (1 / rho), as in Karras et al., eq. 5"""

    low, high = _ends("karras", model, sigma_min, sigma_max)
    return k_sampling().get_sigmas_karras(steps, low, high, rho=rho)


def exponential(model: Any, steps: int, *, sigma_min: float | None = None, sigma_max: float | None = None) -> Tensor:
    r"""even in log sigma"""

    return k_sampling().get_sigmas_exponential(steps, *_ends("exponential", model, sigma_min, sigma_max))


def polyexponential(
    model: Any,
    steps: int,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rho: float = 1.0,
) -> Tensor:
    r"""a polynomial of degree rho in log sigma"""

    low, high = _ends("polyexponential", model, sigma_min, sigma_max)
    return k_sampling().get_sigmas_polyexponential(steps, low, high, rho=rho)


def leading(model: Any, steps: int, *, steps_offset: int = 1, final: Final = "zero") -> Tensor:
    r"""whole timesteps up from steps_offset, Stable Diffusion's own choice"""

    table = _table("leading", model, steps)
    t = np.arange(steps)[::-1] * (len(table) // steps) + steps_offset
    if not 0 <= steps_offset <= t[0] < len(table):
        raise SamplerError(
            f"schedule 'leading' with steps={steps}, steps_offset={steps_offset} leaves the model's "
            f"timesteps 0 to {len(table) - 1}; use fewer steps or steps_offset=0"
        )
    return _at(t, table, final)


def trailing(model: Any, steps: int, *, final: Final = "zero") -> Tensor:
    r"""whole timesteps down from the model's last, the choice for few steps"""

    table = _table("trailing", model, steps)
    t = np.arange(len(table), 0, -len(table) / steps).round() - 1
    return _at(t[:steps], table, final)  # rounding may make the range one too long


def linspace(model: Any, steps: int, *, final: Final = "zero") -> Tensor:
    r"""evenly from the model's last timestep to its first, fractions and all"""

    table = _table("linspace", model, steps)
    return _at(np.linspace(0, len(table) - 1, steps, dtype=np.float32)[::-1], table, final)


def beta(model: Any, steps: int, *, a: float = 0.6, b: float = 0.6) -> Tensor:
    r"""timesteps by quantiles of a beta distribution, dense at both ends"""

    if not (a > 0 and b > 0):
        raise SamplerError(f"schedule 'beta' needs a and b above 0; got {a}, {b}")
    from scipy.stats import beta as distribution  # slow to import

    table = _table("beta", model, steps)
    last = len(table) - 1
    t = (distribution.ppf(1 - np.arange(steps) / steps, a, b) * last).round()
    # Rounding gives some timesteps twice: each is to be below the one before it, and leave room for those after it.
    t = np.minimum.accumulate(t + np.arange(steps)) - np.arange(steps)
    return _falling(np.maximum(t, np.arange(steps)[::-1]), table)


def sgm_uniform(model: Any, steps: int) -> Tensor:
    r"""evenly down from the model's last timestep, as if to one below the first, fractions and all"""

    table = _table("sgm_uniform", model, steps)
    return _falling(np.linspace(len(table) - 1, 0, steps + 1)[:-1], table)


def simple(model: Any, steps: int) -> Tensor:
    r"""every so many whole timesteps down from the model's last"""

    table = _table("simple", model, steps)
    return _falling(len(table) - 1 - (np.arange(steps) * (len(table) / steps)).astype(int), table)


def align_your_steps(model: Any, steps: int) -> Tensor:
    r"""Align Your Steps for Stable Diffusion 1, a table for 10 steps, interpolated for others"""

    return _aligned("sd", steps)


def align_your_steps_xl(model: Any, steps: int) -> Tensor:
    r"""Align Your Steps for SDXL, a table for 10 steps, interpolated for others"""

    return _aligned("sdxl", steps)


def _aligned(name: str, steps: int) -> Tensor:
    levels = np.log(_ALIGNED[name])
    at = np.linspace(0, len(levels) - 1, steps + 1)[:-1]
    sigmas = np.append(np.exp(np.interp(at, np.arange(len(levels)), levels)), 0.0)
    return torch.from_numpy(sigmas.astype(np.float32))


def _falling(t: np.ndarray, table: Tensor) -> Tensor:
    levels = np.log(table.double().numpy())
    sigmas = np.append(np.exp(np.interp(t, np.arange(len(levels)), levels)), 0.0)
    return torch.from_numpy(sigmas.astype(np.float32))


def _table(name: str, model: Any, steps: int) -> Tensor:
    table = getattr(model, "sigmas", None)
    if not isinstance(table, Tensor) or table.ndim != 1:
        raise SamplerError(
            f"schedule {name!r} needs a model with a table of noise levels (`sigmas`), which "
            f"{type(model).__name__} lacks; use 'karras' or 'exponential'"
        )
    if steps > len(table):
        raise SamplerError(f"schedule {name!r} has at most the model's {len(table)} steps; got {steps}")
    return table.detach().float().cpu()


def _ends(name: str, model: Any, sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    low = getattr(model, "sigma_min", None) if sigma_min is None else sigma_min
    high = getattr(model, "sigma_max", None) if sigma_max is None else sigma_max
    if low is None or high is None:
        raise SamplerError(
            f"schedule {name!r} needs sigma_min and sigma_max, which {type(model).__name__} lacks; pass them"
        )
    if not 0 < low < high:
        raise SamplerError(f"schedule {name!r} needs 0 < sigma_min < sigma_max; got {low}, {high}")
    return float(low), float(high)


def _at(t: np.ndarray, table: Tensor, final: Final) -> Tensor:
    if final not in ("zero", "sigma_min"):
        raise SamplerError(f"final={final!r} is not one of 'zero', 'sigma_min'")
    levels = table.numpy()
    last = levels[0] if final == "sigma_min" else 0.0
    sigmas = np.append(np.interp(t, np.arange(len(levels)), levels), last)
    return torch.from_numpy(sigmas.astype(np.float32))


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "model": own,
    "karras": karras,
    "exponential": exponential,
    "polyexponential": polyexponential,
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "beta": beta,
    "sgm_uniform": sgm_uniform,
    "simple": simple,
    "align_your_steps": align_your_steps,
    "align_your_steps_xl": align_your_steps_xl,
}

SCHEDULES: dict[str, str] = {name: function.__doc__ or "" for name, function in _FUNCTIONS.items()}
r"""The names that `schedule` knows, each with a line about it."""


def schedule(name: str, model: Any, steps: int, **options: Any) -> Tensor:
    r"""Returns the noise levels from :math:`\sigma_0`, the largest, to :math:`\sigma_N`, usually zero.

    Arguments:
        name: The name, one of `SCHEDULES`.
        model: The denoiser, of which a schedule asks what it needs: `sigmas` (the table of a discrete model),
            `sigma_min` and `sigma_max`, or `get_sigmas`.
        steps: The number of steps :math:`N`.
        options: Options of the schedule: `sigma_min`, `sigma_max` and `rho` of the continuous ones; `final`
            ("zero" or "sigma_min") and `steps_offset` of those on a table.

    Returns:
        The noise levels, in float32 on the CPU, with shape :math:`(N + 1)`.

    Raises:
        SamplerError: If the name or an option is unknown, if `steps` is not a positive integer or more than
            the model has, or if the model lacks what the schedule needs.
    """

    function = lookup("schedule", name, _FUNCTIONS)
    check_options("schedule", name, options, option_defaults(function, ["model", "steps"]))
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise SamplerError(f"steps must be an integer of at least 1; got {steps!r}")
    return function(model, steps, **options).detach().float().cpu()
