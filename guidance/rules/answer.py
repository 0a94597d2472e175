r"""Adaptive negative sampling: a negative that the model draws at every step, in latent space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ..algebra.formula import Guidance
from ..algebra.plan import at, vanishes
from ..algebra.weights import Scale, as_number
from ..denoiser.evaluator import Evaluator
from ..errors import GuidanceError
from ..host import on_host
from ..samplewise import choose, from_noise, moments, ratio, to_noise
from .cfg import CFG
from .dns import DNS


@dataclass(frozen=True, eq=False, repr=False)
class ANSWER(Guidance):
    r"""Classifier-free guidance away from what diffusion-negative sampling finds on the way (ANSWER).

    At :math:`x = z_t` the model takes :math:`K` deterministic steps of :class:`DNS`. The last of them predicts a
    negative picture :math:`D^-`, and the noise that would lead from it to :math:`x` is the negative, brought to the
    mean and standard deviation of the empty prompt's prediction, over each sample:

    .. math:: \epsilon^- = \frac{x - D^-}{\sigma}, \qquad
        \tilde\epsilon = \frac{\epsilon^- - \operatorname{mean} \epsilon^-}{\operatorname{std} \epsilon^-}
        \operatorname{std} \epsilon_u + \operatorname{mean} \epsilon_u, \qquad
        \hat\epsilon = \tilde\epsilon + s \, (\epsilon_p - \tilde\epsilon)

    Below the noise level `above` it is :class:`CFG`. Defined in :math:`\epsilon`. The paper is known here only at
    second hand: how far an inner step goes, from :math:`\sigma` to :math:`\rho \sigma`, and that the negative is
    taken as noise at :math:`x`, are our choices. The first inner step needs the two predictions at :math:`x`
    itself, so a step costs :math:`2 K` evaluations.

    Args:
        scale: The guidance scale :math:`s`; 1 is the plain prompt, at one evaluation.
        steps: The number :math:`K` of inner steps.
        strength: The scale of the inner :class:`DNS`; None means `scale`.
        above: The noise level :math:`\sigma` from which up the negative is drawn; 0 for all.
        ratio: The ratio :math:`\rho` of the noise levels of two inner steps.

    Raises:
        GuidanceError: If `scale` or `strength` is not a :class:`Scale`, or another argument is not a number within its
            bounds.

    References:
        | Guiding Diffusion Models with Adaptive Negative Sampling Without External Resources
        | (Desai and Vasconcelos, 2025), https://arxiv.org/abs/2508.02973
    """

    scale: Scale
    steps: int = 1
    strength: Scale | None = None
    above: float = 0
    ratio: float = 0.8

    names = ("empty", "prompt")

    def __post_init__(self) -> None:
        super().__post_init__()
        as_number(self.above, "above of ANSWER", 0)
        if as_number(self.steps, "steps of ANSWER", 1) % 1:
            raise GuidanceError(f"steps of ANSWER is a whole number, not {self.steps}")
        if not 0 < as_number(self.ratio, "ratio of ANSWER") < 1:
            raise GuidanceError(f"ratio of ANSWER is between 0 and 1, not {self.ratio}")

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        if not self.above:
            return self._guided(evaluate, x, sigma)
        return choose(
            on_host(sigma) >= float(self.above),
            lambda: self._guided(evaluate, x, sigma),
            lambda: self._cfg.denoised(evaluate, x, sigma),
        )

    @cached_property
    def _cfg(self) -> Guidance:
        return CFG(self.scale)

    @cached_property
    def _dns(self) -> Guidance:
        return DNS(self.scale if self.strength is None else self.strength)

    def _guided(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        if vanishes(at(self.scale, x, sigma, less=1)):
            return evaluate(("prompt",), x, sigma)["prompt"]
        u, p = (to_noise(d, x, sigma) for d in evaluate(self.names, x, sigma).values())
        negative = to_noise(self._negative(evaluate, x, sigma), x, sigma)
        (mean, std), (old_mean, old_std) = moments(u), moments(negative)
        negative = mean + ratio(std, old_std, 1.0) * (negative - old_mean)
        return from_noise(negative + at(self.scale, x, sigma) * (p - negative), x, sigma)

    def _negative(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        r"""The denoised prediction of the last inner step."""
        y, level = x, sigma
        negative = self._dns.denoised(evaluate, y, level)
        for _ in range(int(self.steps) - 1):
            y, level = negative + float(self.ratio) * (y - negative), level * float(self.ratio)
            negative = self._dns.denoised(evaluate, y, level)
        return negative
