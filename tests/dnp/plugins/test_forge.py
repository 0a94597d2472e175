"""The script over a stand-in for Forge, with the signatures of commit dfdcbab."""

import importlib.util
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from guidance import parse

SCRIPT = Path(__file__).parents[3] / "dnp" / "plugins" / "forge" / "scripts" / "dnp_formula.py"
B = 2


def denoise(x, t, context):
    return 0.6 * x + context.mean((1, 2)).view(-1, 1, 1, 1) * torch.sin(3 * x) / (1 + t.view(-1, 1, 1, 1))


def calc_cond_uncond_batch(model, cond, uncond, x_in, timestep, model_options):
    return denoise(x_in, timestep, cond[0]["model_conds"]["c_crossattn"].expand(len(x_in), -1, -1)), None


class Script:
    pass


class SdConditioning(list):
    def __init__(self, prompts, is_negative_prompt=False, width=None, height=None, copy_from=None):
        super().__init__(prompts)


@pytest.fixture
def forge(monkeypatch):
    @contextmanager
    def accordion(value, label):
        yield label

    stubs = {
        "gradio": {"Textbox": lambda **options: options},
        "backend": {},
        "backend.sampling": {},
        "backend.sampling.condition": {
            "compile_conditions": lambda cond: [{"cross_attn": cond, "model_conds": {"c_crossattn": cond}}]
        },
        "backend.sampling.sampling_function": {"calc_cond_uncond_batch": calc_cond_uncond_batch},
        "modules": {},
        "modules.scripts": {"Script": Script, "AlwaysVisible": object()},
        "modules.prompt_parser": {"SdConditioning": SdConditioning},
        "modules.ui_components": {"InputAccordion": accordion},
    }
    for name, has in stubs.items():
        module = types.ModuleType(name)
        vars(module).update(has)
        monkeypatch.setitem(sys.modules, name, module)
        if "." in name:
            setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module)
    spec = importlib.util.spec_from_file_location("dnp_formula", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


class Unet:
    controlnet_linked_list = None

    def __init__(self):
        self.model_options = {}

    def clone(self):
        copy = Unet()
        copy.model_options = dict(self.model_options)
        return copy

    def set_model_sampler_cfg_function(self, sampler_cfg_function, disable_cfg1_optimization=False):
        self.model_options |= {
            "sampler_cfg_function": sampler_cfg_function,
            "disable_cfg1_optimization": disable_cfg1_optimization,
        }


def run(forge, formula, negative, kind, enabled=True):
    """One step as `sampling_function_inner` makes it; the denoised prediction, and the original U-Net."""
    contexts = {text: torch.full((1, 7, 8), (1 + len(text)) / 10) for text in ("", "a cat", "a dog")}
    unet = Unet()
    model = types.SimpleNamespace(
        forge_objects=types.SimpleNamespace(unet=unet), get_learned_conditioning=lambda texts: contexts[texts[0]]
    )
    p = types.SimpleNamespace(
        sd_model=model, negative_prompts=[negative] * B, width=64, height=64, extra_generation_params={}
    )
    forge.FormulaScript().process_before_every_sampling(p, enabled, formula, x=None, noise=None, c=None, uc=None)
    options = model.forge_objects.unet.model_options
    torch.manual_seed(1)
    x, t = torch.randn(B, 4, 8, 8), torch.tensor([0.7, 0.6])
    cond, uncond = (denoise(x, t, contexts[text].expand(B, -1, -1)) for text in ("a cat", negative))
    predictor = types.SimpleNamespace(prediction_type=kind)
    args = {"cond": x - cond, "uncond": x - uncond, "cond_scale": 7.0, "timestep": t, "input": x, "sigma": t}
    args |= {"cond_denoised": cond, "uncond_denoised": uncond, "model": types.SimpleNamespace(predictor=predictor)}
    args["model_options"] = options
    if "sampler_cfg_function" not in options:
        return None, unet, p
    found = x - options["sampler_cfg_function"](args)

    def ours(x, sigma, context):
        level = sigma.view(-1, 1, 1, 1)
        const = kind == "const"
        return denoise(x / (1 + level), sigma / (1 + sigma), context) if const else denoise(x, sigma, context)

    state = (x / (1 - t.view(-1, 1, 1, 1)), t / (1 - t)) if kind == "const" else (x, t)
    names = {"prompt": "a cat", "negative": negative, "empty": ""}
    want = parse(formula).wrap(ours)(*state, **{name: {"context": contexts[text]} for name, text in names.items()})
    return (found, want), unet, p


@pytest.mark.parametrize("kind", ["epsilon", "const"])
@pytest.mark.parametrize("negative", ["", "a dog"])
@pytest.mark.parametrize(
    "formula", ["CFG(5)", "u + 5*(p - u) - 2*(n - u)", "DNS(4)", "PerpNeg(5, 1)", "CFGZeroStar(4)", "n + 4*(p - n)"]
)
def test_it_equals_the_library(forge, formula, negative, kind):
    (found, want), unet, p = run(forge, formula, negative, kind)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    assert not unet.model_options  # the clone has it, not the one that was there
    assert p.extra_generation_params["Guidance formula"] == formula


def test_switched_off_it_does_nothing(forge):
    found, unet, p = run(forge, "CFG(5)", "", "epsilon", enabled=False)
    assert found is None and not p.extra_generation_params


def test_what_is_wrong_is_said_in_a_line(forge):
    with pytest.raises(ValueError, match="names style: there are prompt, negative and empty here"):
        run(forge, "CFG(5) + (ε(style) - u)", "", "epsilon")
    with pytest.raises(ValueError, match="asks for predictions elsewhere"):
        run(forge, "ANSWER(5, steps=2)", "a dog", "epsilon")


def test_the_box(forge):
    script = forge.FormulaScript()
    enabled, formula = script.ui(False)
    assert enabled == script.title() and parse(formula["value"]) == parse("u + 7.5*(p - u) - 2*(n - u)")
    assert script.show(False) is forge.scripts.AlwaysVisible
