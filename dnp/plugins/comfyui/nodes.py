"""The nodes."""

from __future__ import annotations

from typing import Any

from .guider import FormulaGuider
from .rooms import guidance, room

FORMULA = "u + 7.5*(p - u) - 2*(n - u)"
HELP = (
    "p, n and u are the predictions for the prompt, the negative prompt and the empty one; or a rule by its name, as "
    "in CFG(7.5), DNS(7.5), PerpNeg(7.5, 1), Rescale(Interval(CFG(7.5), 0.3, 5), 0.7)"
)


class FormulaGuiderNode:
    """A guider by a formula."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("GUIDER",), "make", "sampling/custom_sampling/guiders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "prompt": ("CONDITIONING",),
                "formula": ("STRING", {"default": FORMULA, "multiline": True, "tooltip": HELP}),
            },
            "optional": {"negative": ("CONDITIONING",), "empty": ("CONDITIONING",)},
        }

    def make(self, model: Any, prompt: Any, formula: str, negative: Any = None, empty: Any = None) -> tuple[Any]:
        guider = FormulaGuider(model)
        guider.set_guidance(formula, prompt=prompt, negative=negative, empty=empty)
        return (guider,)


class DNSGuiderNode:
    """Diffusion-negative sampling (eq. 19): what the model thinks least like the prompt."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("GUIDER",), "make", "sampling/custom_sampling/guiders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        scale = {"default": 7.5, "min": 0.0, "max": 100.0, "step": 0.1}
        return {
            "required": {
                "model": ("MODEL",),
                "prompt": ("CONDITIONING",),
                "empty": ("CONDITIONING",),
                "scale": ("FLOAT", scale),
            }
        }

    def make(self, model: Any, prompt: Any, empty: Any, scale: float) -> tuple[Any]:
        guider = FormulaGuider(model)
        guider.set_guidance(f"DNS({scale})", prompt=prompt, empty=empty)
        return (guider,)


class CaptionNode:
    """The caption of a picture as a conditioning: of a diffusion-negative picture, the negative prompt."""

    RETURN_TYPES, RETURN_NAMES = ("CONDITIONING", "STRING"), ("conditioning", "caption")
    FUNCTION, CATEGORY = "make", "conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        how = "A captioning model's directory or hub name, or openai:MODEL@URL for one at an OpenAI-compatible address"
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "Of several, the first is captioned."}),
                "clip": ("CLIP",),
                "captioner": ("STRING", {"default": "Salesforce/blip2-opt-2.7b", "tooltip": how}),
            }
        }

    def make(self, image: Any, clip: Any, captioner: str) -> tuple[Any, str]:
        from PIL import Image

        captioning = room("captioning", "usable")
        pixels = (image[0].clamp(0, 1) * 255).round().byte().cpu()
        height, width = pixels.shape[:2]
        picture = Image.frombytes("RGB", (width, height), bytes(pixels[..., :3].flatten().tolist()))
        local = not captioner.startswith("openai:")
        model = captioning.Transformers(captioner) if local else captioning.Endpoint.at(captioner)
        caption = captioning.usable(model([picture])[0]).used
        return clip.encode_from_tokens_scheduled(clip.tokenize(caption)), caption


class FormulaInfoNode:
    """What a formula is, and what it costs."""

    RETURN_TYPES, RETURN_NAMES = ("STRING", "STRING", "INT"), ("formula", "latex", "evaluations")
    FUNCTION, CATEGORY = "make", "sampling/custom_sampling/guiders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"formula": ("STRING", {"default": FORMULA, "multiline": True, "tooltip": HELP})},
            "optional": {
                "sigmas": ("SIGMAS",),
                "steps": ("INT", {"default": 20, "min": 1, "tooltip": "Where no sigmas are connected"}),
            },
        }

    def make(self, formula: str, sigmas: Any = None, steps: int = 20) -> tuple[str, str, int]:
        rule = guidance.parse(formula)
        return str(rule), rule.latex(), rule.cost([1.0] * steps if sigmas is None else sigmas)


NODE_CLASS_MAPPINGS = {
    "DNPFormulaGuider": FormulaGuiderNode,
    "DNPDNSGuider": DNSGuiderNode,
    "DNPCaption": CaptionNode,
    "DNPFormulaInfo": FormulaInfoNode,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "DNPFormulaGuider": "Formula Guider",
    "DNPDNSGuider": "DNS Guider",
    "DNPCaption": "Caption → conditioning",
    "DNPFormulaInfo": "Formula info",
}
