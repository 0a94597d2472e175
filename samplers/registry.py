r"""The samplers by name: k-diffusion's own functions, brought to one signature.

Source: https://github.com/crowsonkb/k-diffusion/blob/master/k_diffusion/sampling.py
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .ddim import ddim, ddpm
from .errors import SamplerError, option_defaults
from .lazily import k_sampling


@dataclass(frozen=True)
class Sampler:
    r"""A sampler by the name of k-diffusion's own function.

    Arguments:
        about: What it is, in a line.
        source: The name of the function in `k_diffusion.sampling`.
        wrap: What brings that function to the one signature.
        brownian: Whether its noise comes from a Brownian path.
        on_schedule: Whether it steps on the noise levels given, not on its own between the two ends.
        batched: Whether the images of a batch leave each other alone.
    """

    about: str
    source: str
    wrap: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] = lambda function: function
    brownian: bool = False
    on_schedule: bool = True
    batched: bool = True

    @property
    def function(self) -> Callable[..., Tensor]:
        r"""The sampler, `function(model, x, sigmas, *, extra_args, callback, disable, **options)`."""

        return self.wrap(getattr(k_sampling(), self.source))

    @property
    def options(self) -> dict[str, Any]:
        r"""The sampler's own options and their defaults."""

        common = "model x sigmas sigma_min sigma_max n extra_args callback disable return_info"
        return option_defaults(self.function, common.split())


def _between_ends(function: Callable[..., Tensor], *, count: bool) -> Callable[..., Tensor]:
    # Two of k-diffusion's samplers choose their own steps: of a schedule they need its ends, and its length.
    @functools.wraps(function)
    def wrapped(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, **kwargs: Any) -> Tensor:
        low, high = sigmas[sigmas > 0].min().item(), sigmas[0].item()
        if low == high:
            raise SamplerError("DPM-Solver needs a schedule of two positive noise levels or more")
        kwargs |= {"n": len(sigmas) - 1} if count else {}
        return function(model, x, sigma_min=low, sigma_max=high, **kwargs)

    return wrapped


def _one_step_too(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # Two of k-diffusion's samplers fail on one single step to zero, which is Euler's for all samplers.
    @functools.wraps(function)
    def wrapped(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, **kwargs: Any) -> Tensor:
        if len(sigmas) == 2 and sigmas[1] == 0:
            common = {key: kwargs.get(key) for key in ("extra_args", "callback", "disable")}
            return k_sampling().sample_euler(model, x, sigmas, **common)
        return function(model, x, sigmas, **kwargs)

    return wrapped


TABLE = {
    "euler": Sampler(
        "Euler's method (Karras et al., alg. 2); 1 evaluation a step",
        "sample_euler",
    ),
    "euler_ancestral": Sampler(
        "Euler with fresh noise at every step; 1 evaluation a step",
        "sample_euler_ancestral",
    ),
    "heun": Sampler(
        "Heun's method (Karras et al., alg. 2); 2 evaluations a step",
        "sample_heun",
    ),
    "dpm_2": Sampler(
        "DPM-Solver-2; 2 evaluations a step",
        "sample_dpm_2",
    ),
    "dpm_2_ancestral": Sampler(
        "DPM-Solver-2 with fresh noise at every step; 2 evaluations a step",
        "sample_dpm_2_ancestral",
    ),
    "lms": Sampler(
        "linear multistep of order 4; 1 evaluation a step",
        "sample_lms",
    ),
    "dpm_fast": Sampler(
        "DPM-Solver-Fast, on its own levels down to the smallest positive one; 1 evaluation a step",
        "sample_dpm_fast",
        functools.partial(_between_ends, count=True),
        on_schedule=False,
    ),
    "dpm_adaptive": Sampler(
        "DPM-Solver-23, on its own levels down to the smallest positive one; one image at a time",
        "sample_dpm_adaptive",
        functools.partial(_between_ends, count=False),
        on_schedule=False,
        batched=False,
    ),
    "dpmpp_2s_ancestral": Sampler(
        "DPM-Solver++(2S) with fresh noise at every step; 2 evaluations a step",
        "sample_dpmpp_2s_ancestral",
    ),
    "dpmpp_sde": Sampler(
        "DPM-Solver++ SDE; 2 evaluations a step",
        "sample_dpmpp_sde",
        brownian=True,
    ),
    "dpmpp_2m": Sampler(
        "DPM-Solver++(2M); 1 evaluation a step",
        "sample_dpmpp_2m",
    ),
    "dpmpp_2m_sde": Sampler(
        "DPM-Solver++(2M) SDE; 1 evaluation a step",
        "sample_dpmpp_2m_sde",
        _one_step_too,
        brownian=True,
    ),
    "dpmpp_3m_sde": Sampler(
        "DPM-Solver++(3M) SDE; 1 evaluation a step",
        "sample_dpmpp_3m_sde",
        _one_step_too,
        brownian=True,
    ),
    "ddim": Sampler(
        "DDIM, eta from 0 (no fresh noise) to 1 (DDPM); 1 evaluation a step", "sample_euler_ancestral", ddim
    ),
    "ddpm": Sampler("DDPM's ancestral sampling, DDIM with eta 1; 1 evaluation a step", "sample_euler_ancestral", ddpm),
}

SAMPLERS: dict[str, str] = {name: sampler.about for name, sampler in TABLE.items()}
r"""The names that `sample` knows, each with a line about it."""
