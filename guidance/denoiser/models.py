r"""What stands in for a denoiser: a wrapper of one, and several as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..errors import GuidanceError


class Wrapper(nn.Module):
    r"""A denoiser around `inner_model`, as k-diffusion names it. Missing attributes are looked up on `inner_model`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "inner_model":
                raise
            return getattr(self.inner_model, name)


class Models(Wrapper):
    r"""Several denoisers as one, of which a condition chooses by the keyword argument `model`.

    Conditions of different models are evaluated apart. Missing attributes are looked up on the main
    denoiser.

    Args:
        inner_model: The main denoiser, of conditions without `model`.
        others: The other denoisers by name.

    Raises:
        GuidanceError: If a condition names a model that is not there.
    """

    def __init__(self, inner_model: Callable[..., Tensor], **others: Callable[..., Tensor]) -> None:
        super().__init__()
        self.inner_model = inner_model
        self.others = others
        self.modules_of_others = nn.ModuleList(m for m in others.values() if isinstance(m, nn.Module))

    def forward(self, x: Tensor, sigma: Tensor, /, *, model: str | None = None, **condition: Any) -> Tensor:
        r"""The denoised samples :math:`(B, ...)` of the model that the condition names."""
        if model is not None and model not in self.others:
            raise GuidanceError(f"there is no model {model!r}: there are {', '.join(self.others) or 'no others'}")
        chosen = self.inner_model if model is None else self.others[model]
        return chosen(x, sigma, **condition)
