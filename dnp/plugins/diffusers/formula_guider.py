"""A formula as a guider of Modular Diffusers."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from dnp.errors import DNPError
from dnp.models.flow_denoiser import FIRST, FIRST_IN_FLOAT64
from dnp.plugins.diffusers.given import LEVELS, Given, asked
from guidance import parse, prediction

try:
    from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput
    from diffusers.modular_pipelines.modular_pipeline import BlockState
except ImportError as error:
    from diffusers import __version__

    raise DNPError(f"diffusers {__version__} has no guiders of this kind ({error}): 0.42 was tested") from None


class FormulaGuider(BaseGuidance):
    r"""A guidance, by its formula, for the loops of Modular Diffusers.

    .. code-block:: python

        guider = FormulaGuider("u + 7.5*(p - u) - 2*(n - u)")
        guider.scheduler = pipeline.scheduler
        guider.set_condition("empty", prompt_embeds=..., text_embeds=...)
        pipeline.update_components(guider=guider)

    A pipeline has slots for two conditions. The first is "prompt"; the second, its negative prompt, is "negative"
    where the formula names it, else "empty". The embeddings of any other are given by :meth:`set_condition`.

    Each prediction is a forward of its own, as the loops have it, or one forward for all where the pipeline takes the
    latents from the guider (Stable Diffusion 3 does). Conditions whose weight is zero are not evaluated.

    Args:
        guidance: The formula, as text; it is what `save_pretrained` keeps.
        start, stop: The share of the steps from which and before which it acts; else the plain prompt is taken.
        enabled: Whether it acts at all.

    Attributes:
        scheduler: The pipeline's, for the noise level and the kind of the prediction (ε, v, x₀ or velocity).

    Raises:
        GuidanceError: The text is no formula.
        DNPError: The rule asks for predictions elsewhere than at a step's x and σ.
    """

    _input_predictions = ["pred_cond", "pred_uncond"]

    @register_to_config
    def __init__(self, guidance: str = "CFG(7.5)", start: float = 0.0, stop: float = 1.0, enabled: bool = True) -> None:
        super().__init__(start, stop, enabled)
        self.guidance = parse(guidance)
        self.scheduler: Any = None
        self._given, self._plain = Given(self.guidance), Given(prediction("prompt"))
        self._embeddings: dict[str, dict[str, Any]] = {}
        self._x: Tensor | None = None
        self._hook: Any = None
        for level in LEVELS:
            asked(self.guidance, level)

    def set_condition(self, name: str, **inputs: Any) -> None:
        """The embeddings (1 or B, …) of a condition, by what the pipeline's loop calls them, such as `prompt_embeds`
        and `text_embeds` of SDXL, `encoder_hidden_states` and `text_embeds` of SD 3. Of others it takes the prompt's.
        """
        self._embeddings[name] = inputs

    # What a loop calls, in this order

    def set_state(self, step: int, num_inference_steps: int, timestep: Tensor) -> None:
        super().set_state(step, num_inference_steps, timestep)
        if step == 0:
            self._given.reset()

    def prepare_inputs(self, data: dict[str, Any]) -> list[BlockState]:
        first = {key: value[0] if isinstance(value, tuple) else value for key, value in data.items()}
        second = {key: value[1] if isinstance(value, tuple) else value for key, value in data.items()}
        batches = [self._inputs(name, first, second) for name in self._names()]
        if "hidden_states" in data and (joined := _joined(batches)) is not None:
            return [BlockState(**joined, **{self._identifier_key: "batched"})]
        named = zip(self._names(), batches, strict=True)
        return [BlockState(**batch, **{self._identifier_key: name}) for name, batch in named]

    def prepare_inputs_from_block_state(self, data: BlockState, input_fields: dict[str, Any]) -> list[BlockState]:
        def field(where: Any, slot: int) -> Any:
            return getattr(data, where if isinstance(where, str) else where[slot], None)

        first, second = ({key: field(where, slot) for key, where in input_fields.items()} for slot in (0, 1))
        return [
            BlockState(**self._inputs(name, first, second), **{self._identifier_key: name}) for name in self._names()
        ]

    def prepare_models(self, denoiser: torch.nn.Module) -> None:
        self._count_prepared += 1
        self.cleanup_models(denoiser)  # of a call that an error ended

        def see(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._x = args[0] if args else kwargs["hidden_states" if "hidden_states" in kwargs else "sample"]

        self._hook = denoiser.register_forward_pre_hook(see, with_kwargs=True)

    def cleanup_models(self, denoiser: torch.nn.Module) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = None

    def __call__(self, data: list[BlockState]) -> GuiderOutput:
        if [getattr(batch, self._identifier_key) for batch in data] == ["batched"]:
            names = self._names()
            return self.forward(**dict(zip(names, data[0].noise_pred.chunk(len(names)), strict=True)))
        return super().__call__(data)

    def forward(self, **predictions: Tensor) -> GuiderOutput:
        r"""The guided prediction from those of the conditions, all of the model's own kind."""
        some = next(iter(predictions.values()))
        assert self._x is not None
        kind = self._kind()
        # A flow model's first noise level is so high that float32 would lose the picture beside the noise
        wide = torch.float64 if kind == "flow" and some.device.type != "mps" else torch.float32
        seen = self._x[: len(some), : some.shape[1]].to(wide)  # not what inpainting models see beside the latents
        sigma = torch.full((len(some),), self._sigma(), device=seen.device, dtype=wide)
        level = sigma.view(-1, *[1] * (some.ndim - 1))
        if kind == "flow":
            x, keep, change = seen * (1 + level), seen, -level / (1 + level)
        else:
            x = seen * (1 + level**2).sqrt()
            keep, change = {
                "epsilon": (x, -level),
                "v_prediction": (x / (1 + level**2), -level / (1 + level**2).sqrt()),
                "sample": (torch.zeros_like(x), torch.ones_like(level)),
            }[kind]
        denoised = {name: keep + change * value.to(wide) for name, value in predictions.items()}
        guided = (self._given if self._active() else self._plain)(denoised, x, sigma)
        made = ((guided - keep) / change).to(some.dtype)
        return GuiderOutput(pred=made, pred_cond=predictions.get("prompt"), pred_uncond=predictions.get(self._second))

    @property
    def num_conditions(self) -> int:
        return len(self._names())

    @property
    def is_conditional(self) -> bool:
        return self._names()[min(self._count_prepared, self.num_conditions) - 1] == "prompt"

    # What it needs

    @property
    def _second(self) -> str:
        return "negative" if "negative" in self.guidance.names else "empty"

    def _active(self) -> bool:
        steps = self._num_inference_steps
        inside = steps is None or int(self._start * steps) <= self._step < int(self._stop * steps)
        return self._enabled and inside

    def _names(self) -> list[str]:
        """The conditions whose predictions this step needs."""
        if not self._active():
            return ["prompt"]
        if self._timestep is None:  # a pipeline asks before it begins: for all that any step may need
            return list(dict.fromkeys(name for level in LEVELS for name in asked(self.guidance, level)))
        return asked(self.guidance, self._sigma()) or ["prompt"]  # a loop needs one, also for a rule that needs none

    def _inputs(self, name: str, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        if name == "prompt":
            return first
        if name in self._embeddings:
            found = {key: self._embeddings[name].get(key, value) for key, value in first.items()}
            return {key: _as_many(value, first[key]) for key, value in found.items()}
        if name != self._second or all(value is first[key] or value is None for key, value in second.items()):
            raise DNPError(
                f"{self.guidance} needs the condition {name!r}, for which the pipeline has no embeddings: give them by "
                f"guider.set_condition({name!r}, {next((k for k in first if 'embed' in k), next(iter(first)))}=...)"
            )
        return second

    def _kind(self) -> str:
        if self.scheduler is None:
            raise DNPError("the guider does not know the noise levels: set guider.scheduler = pipeline.scheduler")
        if type(self.scheduler).__name__.startswith("FlowMatch"):
            return "flow"
        found: str = getattr(self.scheduler.config, "prediction_type", "epsilon")
        if found not in ("epsilon", "v_prediction", "sample"):
            raise DNPError(f"the scheduler's prediction type {found!r} is none of epsilon, v_prediction, sample")
        return found

    def _sigma(self) -> float:
        """The noise level of the step, in k-diffusion's state."""
        t = float(self._timestep.flatten()[0])
        if self._kind() == "flow":
            first = FIRST if self._timestep.device.type == "mps" else FIRST_IN_FLOAT64
            t = min(t / self.scheduler.config.num_train_timesteps, first)
            return t / (1 - t)
        if (at := (self.scheduler.timesteps.float() == t).nonzero()).numel() and hasattr(self.scheduler, "sigmas"):
            found = float(self.scheduler.sigmas[at[0].item()])
        else:
            alpha = float(self.scheduler.alphas_cumprod[int(t)])
            found = ((1 - alpha) / max(alpha, 2**-24)) ** 0.5
        return found


def _joined(batches: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The inputs one after the other, or None where they do not fit."""
    for values in zip(*(batch.values() for batch in batches), strict=True):
        if not all(isinstance(v, torch.Tensor) and v.shape == values[0].shape for v in values):
            return None
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def _as_many(value: Any, like: Any) -> Any:
    if isinstance(value, torch.Tensor) and isinstance(like, torch.Tensor) and len(value) == 1 < len(like):
        return value.expand(len(like), *value.shape[1:])
    return value
