"""A guidance, by its formula, in Forge: link the folder above this one into `extensions`. See docs/plugins.md.

Written for Forge as of commit dfdcbab. Forge predicts for the prompt and for the negative prompt at every step, and the
formula combines these; where it names the empty prompt, and the negative prompt is not empty, that is a third.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from backend.sampling.condition import compile_conditions
from backend.sampling.sampling_function import calc_cond_uncond_batch
from modules import scripts
from modules.prompt_parser import SdConditioning
from modules.ui_components import InputAccordion
from torch import Tensor

_spec = importlib.util.spec_from_file_location(
    "dnp_rooms", Path(__file__).resolve().parents[2] / "comfyui" / "rooms.py"
)
assert _spec is not None and _spec.loader is not None
_rooms = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_rooms)
guidance = _rooms.guidance

FIRST = 1 - 2**-15  # the time that stands for 1, where our sigma would be infinite


class FormulaScript(scripts.Script):  # type: ignore[misc]
    """The box, and what it puts in the place of CFG."""

    def title(self) -> str:
        return "Guidance by a formula"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def ui(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        with InputAccordion(False, label=self.title()) as enabled:
            formula = gr.Textbox(
                label="Formula",
                value="u + 7.5*(p - u) - 2*(n - u)",
                info="p, n, u: predictions for the prompt, the negative and the empty one; or CFG(7.5), DNS(7.5), …",
            )
        self.infotext_fields = [(enabled, lambda found: "Guidance formula" in found), (formula, "Guidance formula")]
        return enabled, formula

    def process_before_every_sampling(self, p: Any, enabled: bool, formula: str, **kwargs: Any) -> None:
        if not enabled:
            return
        unet = p.sd_model.forge_objects.unet.clone()
        function = Formula(formula, p, unet)
        unet.set_model_sampler_cfg_function(function, disable_cfg1_optimization=True)
        p.sd_model.forge_objects.unet = unet
        p.extra_generation_params["Guidance formula"] = formula


class Formula:
    """What Forge calls in the place of CFG; gives x − D."""

    def __init__(self, formula: str, p: Any, unet: Any) -> None:
        self.guidance = guidance.parse(formula)
        blank = not any(text.strip() for text in p.negative_prompts)
        self.slots = {"prompt": "cond_denoised", "negative": "uncond_denoised"}
        self.others: dict[str, Any] = {}
        for name in self.guidance.names:
            if name == "empty" and blank:
                self.slots[name] = "uncond_denoised"
            elif name == "empty":
                texts = SdConditioning([""], is_negative_prompt=True, width=p.width, height=p.height)
                self.others[name] = compile_conditions(p.sd_model.get_learned_conditioning(texts))
                if unet.controlnet_linked_list is not None:
                    self.others[name][0]["control"] = unet.controlnet_linked_list
            elif name not in self.slots:
                raise ValueError(f"{formula} names {name}: there are prompt, negative and empty here")
        self.guided = self.guidance.wrap(self._predict)

    def __call__(self, args: dict[str, Any]) -> Tensor:
        x, sigma = args["input"], args["sigma"]
        flow = args["model"].predictor.prediction_type == "const"
        self.args, self.flow, self.ours = args, flow, (x, sigma)
        if flow:  # whose first noise level is so high that float32 would lose the picture beside the noise
            wide = torch.float32 if x.device.type == "mps" else torch.float64
            t = sigma.to(wide).clamp(max=FIRST)
            self.ours = (x.to(wide) / (1 - t.view(-1, 1, 1, 1)), t / (1 - t))
        names = self.guidance.names
        which = {name: {"which": torch.full((1,), i, device=x.device)} for i, name in enumerate(names)}
        return x - self.guided(*self.ours, **which).to(x.dtype)

    def _predict(self, x: Tensor, sigma: Tensor, *, which: Tensor) -> Tensor:
        size = len(self.ours[0])
        asked = [self.guidance.names[i] for i in which[::size].tolist()]
        x, sigma = x[:size], sigma[:size]
        here = torch.equal(x, self.ours[0]) and torch.equal(sigma, self.ours[1])
        if here:
            x, sigma = self.args["input"], self.args["sigma"]
        elif self.flow:
            x = (x / (1 + sigma.view(-1, 1, 1, 1))).to(self.args["input"].dtype)
            sigma = (sigma / (1 + sigma)).to(self.args["sigma"].dtype)
        return torch.cat([self._one(name, x, sigma, here) for name in asked])

    def _one(self, name: str, x: Tensor, sigma: Tensor, here: bool) -> Tensor:
        if name in self.others:
            model, options = self.args["model"], self.args["model_options"]
            found: Tensor = calc_cond_uncond_batch(model, self.others[name], None, x, sigma, options)[0]
            return found
        if not here:
            raise ValueError(f"{self.guidance} asks for predictions elsewhere than at the step's x: Forge gives none")
        given: Tensor = self.args[self.slots[name]]
        return given
