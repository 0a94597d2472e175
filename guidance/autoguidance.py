r"""Guidance by a weaker version of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from .errors import GuidanceError
from .formula import Formula, Linear, prediction
from .weights import Scale
from .wrapper import Wrapper


@dataclass(frozen=True, eq=False, repr=False)
class Autoguidance(Linear):
    r"""Guidance towards the prompt and away from what a weaker model predicts for it.

    .. math:: \hat\epsilon = \epsilon_w(z_t, p) + s \, (\epsilon_\theta(z_t, p) - \epsilon_w(z_t, p))

    The weaker model's prediction is that of a condition, ``weak``, which says so to a :class:`Models`:

    .. code-block:: python

        model = Autoguidance(2).wrap(Models(denoiser, small=other))
        model(x, sigma, prompt={"cond": c}, weak={"cond": c, "model": "small"})

    Args:
        scale: The guidance scale :math:`s`; 1 is the plain prompt, at one evaluation.

    Raises:
        GuidanceError: Where the scale is none.

    References:
        | Guiding a Diffusion Model with a Bad Version of Itself (Karras et al., 2024),
        | https://arxiv.org/abs/2406.02507
    """

    scale: Scale

    @cached_property
    def formula(self) -> Formula:
        p, w = prediction("prompt"), prediction("weak")
        return w + (p - w) * self.scale


class Models(Wrapper):
    r"""Several denoisers as one, of which a condition chooses by the keyword argument `model`.

    Conditions of different models are evaluated apart. Every attribute that it has not itself is the main
    denoiser's.

    Args:
        inner_model: The main denoiser, of conditions without `model`.
        others: The other denoisers by name.

    Raises:
        GuidanceError: Where a condition names a model that is not there.
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
