r"""The guided denoiser: a guidance and a denoiser, under the contract of k-diffusion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import GuidanceError
from .conditions import Conditions, fingerprint
from .evaluator import CachingEvaluator, Memory, Rule
from .models import Wrapper

Execution = Literal["batched", "sequential"] | int
Trace = Callable[[Tensor, Mapping[str, Tensor], Tensor], Any]
# How far outside the denoiser's own noise levels one may be: a sampler's churn raises them by up to 1.42.
_OUTSIDE = 1.5


class GuidedDenoiser(Wrapper):
    r"""A denoiser that serves a guidance, for any sampler of k-diffusion.

    .. code-block:: python

        model = CFG(7.5).wrap(denoiser)
        x = sample_euler(model, x, sigmas, extra_args={"prompt": {"cond": c}, "empty": {"cond": e}})

    A call evaluates the denoiser once for each different condition whose weight is not zero, in as few
    forwards as `execution` allows, combines in float32 (or more) whatever the denoiser's dtype, and returns
    the dtype of `x`. Every attribute that it has not itself is the denoiser's.

    Stacked conditions are kept until a tensor is replaced or changed in place. Tensors made in inference mode
    do not say when they change, and are stacked at each call.

    k-diffusion's discrete denoisers clamp a noise level that they do not know, and predict for another one without a
    word. Where the denoiser has a `sigma_min` or `sigma_max`, one more than 1.5 times outside is an error here.

    Args:
        inner_model: The denoiser, called with :math:`x` :math:`(N, ...)`, :math:`\sigma` :math:`(N)` and the
            keyword arguments of the conditions.
        guidance: What to evaluate and how to combine it.
        execution: ``"batched"``, all conditions of the same shape in one forward; ``"sequential"``, one
            condition at a time; or the most rows of a forward, a number, which splits the samples too.
        trace: Called at the end of each call with :math:`\sigma` :math:`(B)`, the last prediction of each
            evaluated condition by name, and the result, both :math:`(B, ...)`.

    Raises:
        GuidanceError: Where the denoiser cannot be called, or `execution` is none of these.
    """

    evaluations: int
    r"""The predictions evaluated since the last :meth:`reset`, per sample."""
    forwards: int
    r"""The calls of the denoiser since the last :meth:`reset`."""

    def __init__(
        self,
        inner_model: Callable[..., Tensor],
        guidance: Rule,
        execution: Execution = "batched",
        trace: Trace | None = None,
    ) -> None:
        super().__init__()
        if not callable(inner_model):
            raise GuidanceError(f"a denoiser is called as denoiser(x, sigma, **condition), not {inner_model!r}")
        rows = isinstance(execution, int) and not isinstance(execution, bool) and execution > 0
        if not rows and execution not in ("batched", "sequential"):
            raise GuidanceError(f"execution is 'batched', 'sequential' or a number of rows: not {execution!r}")
        self.inner_model = inner_model
        self.guidance = guidance
        self.execution = execution
        self.trace = trace
        self._cache: tuple[Any, Conditions] | None = None
        ends = (getattr(inner_model, name, None) for name in ("sigma_min", "sigma_max"))
        self._low, self._high = (
            default if end is None else float(end) for end, default in zip(ends, (0, torch.inf), strict=True)
        )
        self.reset()

    def reset(self) -> None:
        r"""Sets the counts to zero, and forgets what a guidance keeps from step to step.

        A noise level that rises begins a new run by itself; one that begins below the end of the last does not.
        """
        self.evaluations = self.forwards = 0
        self._memory = Memory()

    def forward(self, x: Tensor, sigma: Tensor, /, **conditions: Mapping[str, Any]) -> Tensor:
        r"""The guided prediction of :math:`x_0`.

        Args:
            x: The noisy samples :math:`(B, ...)`.
            sigma: The noise levels :math:`(B)`.
            conditions: Mappings of the denoiser's keyword arguments by name; those the guidance lacks are
                ignored.

        Returns:
            The denoised samples :math:`(B, ...)`.

        Raises:
            GuidanceError: Where a condition is missing or malformed, a batch size differs, a per-sample scale
                does not fit, a noise level is none of the denoiser's, or a prediction is not finite.
        """
        if sigma.shape != x.shape[:1]:
            raise GuidanceError(f"sigma has the shape {tuple(sigma.shape)}, but x has {len(x)} samples")
        outside = (sigma < self._low / _OUTSIDE) | (sigma > self._high * _OUTSIDE)
        if outside.any():
            raise GuidanceError(
                f"sigma {sigma[outside][0].item():g} is outside the denoiser's noise levels, "
                f"{self._low:.3g} to {self._high:.3g}: make the schedule from its own, such as model.get_sigmas(30)"
            )
        call = _Call(self, self._conditions(conditions, len(x)))
        denoised = self.guidance.denoised(call, x, sigma)
        # One pass where all is well; a sum can be infinite though its terms are not.
        if not denoised.sum().isfinite() and not denoised.isfinite().all():
            raise GuidanceError(_blame(x, sigma, call.predictions))
        denoised = denoised.to(x.dtype)
        if self.trace is not None:
            self.trace(sigma, call.predictions, denoised)
        return denoised

    def _conditions(self, given: Mapping[str, Mapping[str, Any]], size: int) -> Conditions:
        names = self.guidance.names
        if missing := [name for name in names if name not in given]:
            raise GuidanceError(
                f"the condition {', '.join(missing)} is missing: {self.guidance} needs {', '.join(names)}, "
                f"given is {', '.join(given) or 'none'}"
            )
        needed = {name: given[name] for name in names}
        # What was stacked without gradient must not serve a call with one.
        key = (size, torch.is_grad_enabled(), fingerprint(needed))
        if self._cache is None or self._cache[0] != key:
            self._cache = key, Conditions(needed, size)
        return self._cache[1]


class _Call(CachingEvaluator):
    r"""The evaluator of one call."""

    def __init__(self, owner: GuidedDenoiser, conditions: Conditions) -> None:
        super().__init__(conditions.aliases, owner._memory)
        self.owner = owner
        self.conditions = conditions
        self.predictions: dict[str, Tensor] = {}

    def predict(self, names: list[str], x: Tensor, sigma: Tensor) -> Mapping[str, Tensor]:
        found: dict[str, Tensor] = {}
        for group in self.conditions.groups(names):
            found |= zip(group, self._evaluate(group, x, sigma), strict=True)
        self.owner.evaluations += len(found)
        self.predictions |= found
        return found

    def _evaluate(self, group: list[str], x: Tensor, sigma: Tensor) -> Iterable[Tensor]:
        count = len(group)
        if count > 1:
            x, sigma = x.repeat(count, *[1] * (x.ndim - 1)), sigma.repeat(count)
        most = self.owner.execution
        if not isinstance(most, int):
            most = len(x) if most == "batched" else len(x) // count
        parts = []
        for start in range(0, len(x), most):
            rows = slice(start, start + most)
            part = self.owner.inner_model(x[rows], sigma[rows], **self.conditions.rows(group, rows))
            self.owner.forwards += 1
            if not isinstance(part, Tensor) or part.shape != x[rows].shape:
                what = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
                raise GuidanceError(f"the denoiser returned {what} for x of shape {tuple(x[rows].shape)}")
            parts.append(part.to(torch.promote_types(part.dtype, torch.float32)))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).chunk(count)


def _blame(x: Tensor, sigma: Tensor, predictions: Mapping[str, Tensor]) -> str:
    r"""Says, after the fact, where a number that is not finite came from."""
    level = f"at sigma {sigma.max().item():g}"
    if not x.isfinite().all():
        return f"x was not finite {level}, before the denoiser saw it"
    if wrong := [name for name, prediction in predictions.items() if not prediction.isfinite().all()]:
        return f"the prediction for {', '.join(wrong)} is not finite {level}: check the model, try float32"
    return f"the guided prediction is not finite {level}, though its parts are: use smaller scales"
