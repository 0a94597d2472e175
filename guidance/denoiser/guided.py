r"""The guided denoiser: a rule of guidance and a denoiser, under the contract of k-diffusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import GuidanceError
from ..host import peek, tell, transformed
from .batch import Batch, Execution
from .conditions import Conditions, fingerprint, sort_out
from .evaluator import Memory, Rule
from .models import Wrapper

Trace = Callable[[Tensor, Mapping[str, Tensor], Tensor], Any]
# How far outside the denoiser's own noise levels one may be: a sampler's churn raises them by up to 1.42.
_OUTSIDE = 1.5
# What is noted on the device: calls, evaluations and forwards there, and the first call at which a sample went wrong.
_CALLS, _EVALUATIONS, _FORWARDS, _BAD_CALL, _BAD_SAMPLE = range(5)


class GuidedDenoiser(Wrapper):
    r"""A denoiser that serves a guidance, for any sampler of k-diffusion.

    .. code-block:: python

        model = CFG(7.5).wrap(denoiser)
        x = sample_euler(model, x, sigmas, extra_args={"prompt": {"cond": c}, "empty": {"cond": e}})

    A call evaluates the denoiser once for each different condition whose weight is not zero, in as few forwards as
    `execution` allows, combines in float32 (or more) whatever the denoiser's dtype, and returns the dtype of `x`.
    Missing attributes are looked up on the denoiser.

    **Errors and the device.** On a CPU, a noise level outside of the denoiser's and a prediction that is not finite are
    errors at once. On another device, and compiled, a step must not wait for such a value: it is noted there, and
    :meth:`check` raises. `samplers.sample` calls it at the end; a loop of one's own should, too.

    **Stacked conditions** are kept until a tensor is replaced or changed in place. An edit through ``tensor.data`` does
    not say that it happened, and is missed: edit the tensor itself. Tensors made in inference mode do not say when they
    change either, and are compared and stacked at each call.

    k-diffusion's discrete denoisers clamp a noise level that they do not know, and predict for another one without a
    word. If the denoiser has a `sigma_min` or `sigma_max`, one more than 1.5 times outside is an error here.

    Args:
        inner_model: The denoiser, called with :math:`x` :math:`(N, ...)`, :math:`\sigma` :math:`(N)` and the
            keyword arguments of the conditions.
        guidance: What to evaluate and how to combine it.
        execution: ``"batched"``, all conditions of the same shape in one forward; ``"sequential"``, one
            condition at a time; or the most rows of a forward, a number, which splits the samples too.
        trace: Called at the end of each call with :math:`\sigma` :math:`(B)`, the last prediction of each
            evaluated condition by name, and the result, both :math:`(B, ...)`.
        any_sigma: Allows noise levels outside of the denoiser's.

    Raises:
        GuidanceError: If the denoiser cannot be called, `guidance` is no guidance, or `execution` is none of these.
    """

    def __init__(
        self,
        inner_model: Callable[..., Tensor],
        guidance: Rule,
        execution: Execution = "batched",
        trace: Trace | None = None,
        any_sigma: bool = False,
    ) -> None:
        super().__init__()
        if not callable(inner_model):
            raise GuidanceError(f"a denoiser is called as denoiser(x, sigma, **condition), not {inner_model!r}")
        if not hasattr(guidance, "denoised"):
            raise GuidanceError(f"a guidance is needed, such as CFG(7.5) or parse({guidance!r}), not {guidance!r}")
        rows = isinstance(execution, int) and not isinstance(execution, bool) and execution > 0
        if not rows and execution not in ("batched", "sequential"):
            raise GuidanceError(f"execution is 'batched', 'sequential' or a number of rows: not {execution!r}")
        self.inner_model = inner_model
        self.guidance = guidance
        self.execution = execution
        self.trace = trace
        self._cache: tuple[Any, Conditions] | None = None
        ends = (None if any_sigma else getattr(inner_model, name, None) for name in ("sigma_min", "sigma_max"))
        self._low, self._high = (
            default if end is None else float(end) for end, default in zip(ends, (0, torch.inf), strict=True)
        )
        parameter = next(inner_model.parameters(), None) if isinstance(inner_model, nn.Module) else None
        self.register_buffer("_noted", torch.zeros(5, dtype=torch.int64), persistent=False)
        self._noted: Tensor = self._noted if parameter is None else self._noted.to(parameter.device)
        self.reset()

    @property
    def evaluations(self) -> int:
        r"""The predictions evaluated since the last :meth:`reset`, per sample."""
        return self._evaluations + int(self._noted[_EVALUATIONS])

    @property
    def forwards(self) -> int:
        r"""The calls of the denoiser since the last :meth:`reset`."""
        return self._forwards + int(self._noted[_FORWARDS])

    def reset(self) -> None:
        r"""Begins a new run, with counts of zero."""
        self._evaluations = self._forwards = 0
        self._noted = torch.zeros_like(self._noted)
        self.begin()

    def begin(self) -> None:
        r"""Begins a new run: forgets what a guidance keeps from step to step, and what :meth:`check` would raise.

        A noise level that rises begins one by itself; a run that begins below the end of the last one needs this.
        """
        self._memory = Memory()
        self._noted = self._noted.clone()
        self._noted[_BAD_CALL:] = 0

    def check(self) -> None:
        r"""Waits for the device, and raises if anything went wrong there in this run.

        Raises:
            GuidanceError: If a noise level was none of the denoiser's, or a guided prediction was not finite: it names
                the first call and sample.
        """
        noted = self._noted.tolist()
        if noted[_BAD_CALL]:
            raise GuidanceError(
                f"at call {noted[_BAD_CALL]}, sample {noted[_BAD_SAMPLE]}, x or a prediction is not finite, or sigma "
                f"is outside the denoiser's noise levels, {self._range()}: check schedule and model, try float32"
            )

    def tell(self, sigma: Tensor, level: float | Tensor) -> None:
        r"""Says what the noise level of the next call is on the host, so that no rule has to wait to know it.

        Args:
            sigma: The tensor of the next call :math:`(B)`.
            level: Its value, if it is the same for all samples, or its values on the CPU :math:`(B)`.
        """
        tell(sigma, level)

    def forward(
        self, x: Tensor, sigma: Tensor, /, *, shared: Mapping[str, Any] | None = None, **conditions: Any
    ) -> Tensor:
        r"""The guided prediction of :math:`x_0`.

        Args:
            x: The noisy samples :math:`(B, ...)`.
            sigma: The noise levels :math:`(B)`.
            shared: Keyword arguments of the denoiser for all conditions, which may have their own instead.
            conditions: Mappings of the denoiser's keyword arguments by name of the condition, and keyword arguments for
                all conditions that are no mappings, as in ``cross_attn_scale=0.2``. Tensors have the shape
                :math:`(B, ...)` or :math:`(1, ...)`. `prompt`, `negative` and `empty` may be given even if the guidance
                does not need them.

        Returns:
            The denoised samples :math:`(B, ...)`.

        Raises:
            GuidanceError: If a condition is missing, unknown or malformed, a batch size differs, or a scale does not
                fit; and on a CPU, if a noise level is none of the denoiser's or a prediction is not finite.
        """
        if not isinstance(sigma, Tensor) or sigma.shape != x.shape[:1]:
            found = f"has the shape {tuple(sigma.shape)}" if isinstance(sigma, Tensor) else f"is {sigma!r}"
            raise GuidanceError(
                f"sigma {found}, but x has {len(x)} samples: give one noise level each, sigma * x.new_ones({len(x)})"
            )
        bad = None
        if self._low > 0 or self._high < torch.inf:
            bad = (sigma < self._low / _OUTSIDE) | (sigma > self._high * _OUTSIDE)
            if x.is_cpu and any(outside := peek(bad) or ()):
                raise GuidanceError(
                    f"sigma {sigma[outside.index(True)].item():g} is outside the denoiser's noise levels, "
                    f"{self._range()}: make the schedule from its own, such as model.get_sigmas(30), or allow it by "
                    "wrap(denoiser, any_sigma=True)"
                )
        stacked = self._conditions(conditions, shared, len(x))
        call = Batch(self.inner_model, self.execution, stacked, self._memory)
        denoised = self.guidance.denoised(call, x, sigma)
        wrong = ~torch.linalg.vector_norm(denoised.detach().flatten(1), torch.inf, dim=1).isfinite()
        if x.is_cpu and any(peek(wrong) or ()):
            raise GuidanceError(_blame(x, sigma, call.predictions))
        self._note(wrong if bad is None else wrong | bad, call)
        denoised = denoised.to(x.dtype)
        if self.trace is not None:
            self.trace(sigma, call.predictions, denoised)
        return denoised

    def _note(self, bad: Tensor, call: Batch) -> None:
        r"""Counts a call; where the host does not look (another device, compiled), keeps which sample (B) is `bad`."""
        compiling = torch.compiler.is_compiling()
        if not compiling:
            # In Python, but not compiled, where a number that changes would force a new graph at each step.
            self._evaluations += call.count
            self._forwards += call.forwards
            if bad.is_cpu or transformed(bad):
                return
        noted = self._noted.to(bad.device, copy=True)
        noted[_CALLS] += 1
        if compiling:
            noted[_EVALUATIONS] += call.count
            noted[_FORWARDS] += call.forwards
        sample = torch.arange(len(bad), device=bad.device).where(bad, len(bad)).amin()
        first = bad.any() & (noted[_BAD_CALL] == 0)
        here = torch.stack([*noted[:_BAD_CALL], noted[_CALLS], sample])
        self._noted = torch.where(first, here, noted)

    def _range(self) -> str:
        return f"{self._low:.3g} to {self._high:.3g}"

    def _conditions(self, given: Mapping[str, Any], shared: Mapping[str, Any] | None, size: int) -> Conditions:
        needed = sort_out(given, shared, self.guidance)
        if torch.compiler.is_compiling():  # the graph stacks them anew
            return Conditions(needed, size)
        # What was stacked without gradient must not serve a call with one.
        key = (size, torch.is_grad_enabled(), fingerprint(needed))
        if self._cache is None or self._cache[0] != key:
            self._cache = key, Conditions(needed, size)
        return self._cache[1]


def _blame(x: Tensor, sigma: Tensor, predictions: Mapping[str, Tensor]) -> str:
    r"""Says, after the fact, where a number that is not finite came from."""
    level = f"at sigma {sigma.max().item():g}"
    if not x.isfinite().all():
        return f"x was not finite {level}, before the denoiser saw it"
    if wrong := [name for name, prediction in predictions.items() if not prediction.isfinite().all()]:
        return f"the prediction for {', '.join(wrong)} is not finite {level}: check the model, try float32"
    return f"the guided prediction is not finite {level}, though its parts are: use smaller scales"
