"""A guidance on predictions that another program makes, at one (x, σ)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dnp.errors import DNPError
from guidance import Guidance, GuidedDenoiser

LEVELS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


def asked(guidance: Guidance, sigma: float) -> list[str]:
    """The predictions that a guidance asks for at a noise level, found by running it.

    Raises:
        DNPError: It asks for one at another x or σ.
    """
    x = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    names: list[str] = []

    def denoiser(y: Tensor, level: Tensor, *, name: str) -> Tensor:
        if not torch.equal(y, x) or level.item() != torch.tensor(sigma).item():
            raise DNPError(f"{guidance} asks for predictions elsewhere than at the step's x and noise level: {REMEDY}")
        names.append(name)
        return y

    guidance.wrap(denoiser)(x, torch.tensor([sigma]), **{name: {"name": name} for name in guidance.names})
    return list(dict.fromkeys(names))


REMEDY = "a guider cannot give them; use dnp.plugins.diffusers.guide(pipeline, formula)"


class Given:
    """A guidance that takes its predictions from a mapping, and keeps from step to step what it has to remember."""

    def __init__(self, guidance: Guidance) -> None:
        self.guidance = guidance
        self._guided: GuidedDenoiser = guidance.wrap(self._look_up)

    def reset(self) -> None:
        """Forget the steps so far."""
        self._guided.reset()

    def __call__(self, denoised: Mapping[str, Tensor], x: Tensor, sigma: Tensor) -> Tensor:
        """The guided prediction (B, …) at x (B, …) and σ (B) from the denoised predictions (B, …) by condition."""
        self._x = x
        # A name that is no tensor cannot be taken for a prediction, nor for the same as another
        conditions = {name: {"prediction": denoised.get(name, name)} for name in self.guidance.names}
        return self._guided(x, sigma, **conditions)

    def _look_up(self, x: Tensor, sigma: Tensor, *, prediction: Tensor | str) -> Tensor:
        if isinstance(prediction, str):
            raise DNPError(f"{self.guidance} asks for the prediction of {prediction!r}, which was not made")
        if not torch.equal(x, self._x.repeat(len(x) // len(self._x), *[1] * (x.ndim - 1))):
            raise DNPError(f"{self.guidance} asks for predictions elsewhere than at the step's x: {REMEDY}")
        return prediction
