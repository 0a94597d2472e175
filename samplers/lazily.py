r"""k-diffusion's samplers, imported when first used: with what it imports in turn, that takes longer than torch."""

import warnings
from functools import cache
from types import ModuleType


@cache
def k_sampling() -> ModuleType:
    r"""Returns `k_diffusion.sampling`."""

    with warnings.catch_warnings():  # clip, which k-diffusion imports, imports the deprecated pkg_resources
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        from k_diffusion import sampling
    return sampling
