r"""A guidance as a guider of ComfyUI.

ComfyUI's flow models have :math:`z_t` and :math:`\sigma = t` where ours have :math:`x = z_t / (1 - t)` and
:math:`\sigma = t / (1 - t)`; all others agree. The denoised prediction is the same in both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .rooms import guidance

try:
    import comfy.model_sampling
    import comfy.samplers

    _NEEDED = (comfy.samplers.CFGGuider, comfy.samplers.calc_cond_batch, comfy.model_sampling.CONST)
except (ImportError, AttributeError) as error:
    raise ImportError(f"these nodes are for ComfyUI as of commit 311c014 or so, which this is not ({error})") from None

# The names of our conditions, as ComfyUI's functions know them
KEYS = {"prompt": "positive"}
FIRST = 1 - 2**-15  # the time that stands for 1, where our sigma would be infinite


class FormulaGuider(comfy.samplers.CFGGuider):  # type: ignore[misc]
    """A guider with a guidance instead of CFG.

    All predictions are one call of `calc_cond_batch`. Functions that other nodes put before and after CFG are called
    as ComfyUI calls them: the first prediction is the prompt's, the second the negative's (the empty one's, where the
    formula names no negative), others follow. A function that replaces CFG is not called, since the guidance does.
    """

    def set_guidance(self, formula: str, **conditions: Any) -> None:
        """The formula, and the conditionings by name: prompt, negative, empty; None where there is none.

        Raises:
            GuidanceError: the formula cannot be read. ValueError: it names a condition that is not given.
        """
        self.guidance = guidance.parse(formula)
        given = {name: value for name, value in conditions.items() if value is not None}
        if missing := [name for name in self.guidance.names if name not in given]:
            raise ValueError(f"{formula} names {missing[0]}: connect a conditioning to that input")
        self.second = next((n for n in ("negative", "empty") if n in self.guidance.names), None)
        self.second = self.second or next((n for n in ("negative", "empty") if n in given), None)
        self.order = list(dict.fromkeys(["prompt", *filter(None, [self.second]), *self.guidance.names]))
        # Some models encode what is no prompt in another way
        self.inner_set_conds(
            {KEYS.get(n, n): given[n] if n in ("prompt", "negative") else _negative(given[n]) for n in self.order}
        )
        self.guided = self.guidance.wrap(self._predict)

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        self.guided.reset()
        return super().sample(*args, **kwargs)

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: Any = None
    ) -> Tensor:
        """The guided denoised prediction (B, …) at ComfyUI's x (B, …) and sigma (B)."""
        model_options = {} if model_options is None else model_options
        flow = isinstance(self.inner_model.model_sampling, comfy.model_sampling.CONST)
        ours = (x, timestep)
        if flow:  # whose first noise level is so high that float32 would lose the picture beside the noise
            wide = torch.float32 if x.device.type == "mps" else torch.float64
            t = timestep.to(wide).clamp(max=FIRST)
            ours = (x.to(wide) / (1 - _like(t, x)), t / (1 - t))
        self._step: dict[str, Any] = {"x": x, "sigma": timestep, "ours": ours, "flow": flow, "options": model_options}
        self._seen: dict[str, Tensor] = {}
        which = {name: {"which": torch.full((1,), i, device=x.device)} for i, name in enumerate(self.order)}
        denoised = self.guided(*ours, **which).to(x.dtype)
        if not self._seen and model_options.get("sampler_post_cfg_function"):
            self._predict(*ours, which=torch.zeros(len(x), dtype=torch.long))  # a rule that asked for nothing at all
        for function in model_options.get("sampler_post_cfg_function", []):
            denoised = function(
                {
                    "denoised": denoised,
                    "cond": self.conds.get("positive"),
                    "uncond": self._second_conds(),
                    "cond_scale": self._scale(ours[1]),
                    "model": self.inner_model,
                    "uncond_denoised": self._seen["second"],
                    "cond_denoised": self._seen["prompt"],
                    "sigma": timestep,
                    "model_options": model_options,
                    "input": x,
                }
            )
        return denoised

    def _second_conds(self) -> Any:
        return None if self.second is None else self.conds.get(KEYS.get(self.second, self.second))

    def _predict(self, x: Tensor, sigma: Tensor, *, which: Tensor) -> Tensor:
        """The denoised predictions of k conditions, (kB, …), in one call."""
        step, size = self._step, len(self._step["x"])
        asked = [self.order[i] for i in which[::size].tolist()]
        x, sigma = x[:size], sigma[:size]
        here = torch.equal(sigma, step["ours"][1]) and torch.equal(x, step["ours"][0])
        if here:  # the very numbers of the sampler, by which others find the step
            x, sigma = step["x"], step["sigma"]
        elif step["flow"]:
            there = (x / (1 + _like(sigma, x)), sigma / (1 + sigma))
            x, sigma = (part.to(step["x"].dtype) for part in there)
        options = step["options"]
        hooked = options.get("sampler_pre_cfg_function") or options.get("sampler_post_cfg_function")
        wanted = set(asked) | ({"prompt"} if hooked else set())
        if options.get("disable_cfg1_optimization", False) and self.second:
            wanted.add(self.second)
        # A condition that is not wanted is None, of which ComfyUI makes zeros; two there always are
        order = self.order if self.second else [*self.order, None]
        conds = [self.conds[KEYS.get(name, name)] if name in wanted else None for name in order]
        arguments = {"conds": conds, "input": x, "sigma": sigma, "model": self.inner_model, "model_options": options}
        if "sampler_calc_cond_batch_function" in options:
            found = options["sampler_calc_cond_batch_function"](arguments)
        else:
            found = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, sigma, options)
        for function in options.get("sampler_pre_cfg_function", []):
            scale = self._scale(step["ours"][1])
            found = function({**arguments, "conds_out": found, "cond_scale": scale, "timestep": sigma})
        if here:
            self._seen = {"prompt": found[0], "second": found[1]} | self._seen
        return torch.cat([found[self.order.index(name)] for name in asked])

    def _scale(self, sigma: Tensor) -> float:
        """The weight of the prompt, which of CFG is its scale."""
        unit = self.guidance.wrap(lambda x, sigma, *, value: x * 0 + value)
        values = {name: {"value": float(name == "prompt")} for name in self.guidance.names}
        return float(unit(torch.zeros(1, 1, 1, 2), sigma[:1].cpu().float(), **values).flatten()[0])


def _like(t: Tensor, x: Tensor) -> Tensor:
    return t.view(-1, *[1] * (x.ndim - 1))


def _negative(conditioning: Any) -> Any:
    return [[tensor, {**about, "prompt_type": "negative"}] for tensor, about in conditioning]
