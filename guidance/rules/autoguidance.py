r"""Guidance by a weaker version of the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..algebra.formula import Formula, Linear, prediction
from ..algebra.weights import Scale


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
        GuidanceError: If `scale` is not a :class:`Scale`.

    References:
        | Guiding a Diffusion Model with a Bad Version of Itself (Karras et al., 2024),
        | https://arxiv.org/abs/2406.02507
    """

    scale: Scale

    @cached_property
    def formula(self) -> Formula:
        p, w = prediction("prompt"), prediction("weak")
        return w + (p - w) * self.scale
