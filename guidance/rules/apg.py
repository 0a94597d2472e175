r"""Adaptive projected guidance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.plan import at, vanishes
from ..algebra.weights import Scale, as_number
from ..denoiser.evaluator import Evaluator
from ..errors import GuidanceError
from ..samplewise import dot, ratio


@dataclass(frozen=True, eq=False, repr=False)
class APG(Guidance):
    r"""Adaptive projected guidance, which weakens the part of the guidance that is parallel to the prediction.

    Defined in :math:`D`, with :math:`\Delta` split along :math:`D_p`, over each sample:

    .. math:: D = D_p + (s - 1) \, (\Delta^\perp + \eta \, \Delta^\parallel), \qquad
        \Delta = \min\Big(1, \frac{r}{\|\bar\Delta\|}\Big) \, \bar\Delta, \qquad
        \bar\Delta = D_p - D_u + \beta \, \bar\Delta_\text{before}

    diffusers' guider computes :math:`D_u + s \, (\ldots)` by default, in whatever space the model predicts; its
    ``use_original_formulation`` has the paper's form at the scale :math:`s - 1`. The two differ unless
    :math:`\eta = 1`. In :math:`\epsilon` the rule is another one.

    Args:
        scale: The guidance scale :math:`s`; 1 is the plain prompt, at one evaluation.
        eta: The share :math:`\eta` of the parallel part; the paper fixes it at 0 (which is not written), 1 without the
            other two is :class:`CFG`.
        threshold: The largest norm :math:`r` of :math:`\bar\Delta`; None for no limit.
        momentum: The share :math:`\beta` of the last noise level's :math:`\bar\Delta`, negative in the paper.

    Raises:
        GuidanceError: If `scale` or `eta` is not a :class:`Scale`, or `threshold` or `momentum` is not one number.

    References:
        | Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models
        | (Sadat, Hilliges and Weber, 2024), https://arxiv.org/abs/2410.02416
    """

    scale: Scale
    eta: Scale = 0
    threshold: float | None = None
    momentum: float = 0

    names = ("empty", "prompt")
    fixed = ("eta",)

    def __post_init__(self) -> None:
        super().__post_init__()
        as_number(self.momentum, "the momentum of APG")
        if self.threshold is not None and as_number(self.threshold, "the threshold of APG") <= 0:
            raise GuidanceError(f"the threshold of APG is a norm above 0, or none, not {self.threshold}")

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        s = at(self.scale, x, sigma, less=1)
        # With momentum, a step at which the scale is 1 counts for those after it.
        if vanishes(s) and not self.momentum:
            return evaluate(("prompt",), x, sigma)["prompt"]
        u, p = evaluate(self.names, x, sigma).values()
        change = p - u
        if self.momentum:
            before = evaluate.memory.before(self, sigma, (torch.zeros_like(change),))
            change = change + float(self.momentum) * before[0]
            evaluate.memory.keep(self, sigma, (change,), before)
        if self.threshold is not None:
            norm = dot(change, change).sqrt()
            change = change * ratio(torch.full_like(norm, float(self.threshold)), norm, 1.0).clamp(max=1)
        parallel = ratio(dot(change, p), dot(p, p)) * p
        return p + s * (change - parallel + at(self.eta, x, sigma) * parallel)
