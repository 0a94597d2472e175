"""A stand-in for the parts of ComfyUI that the nodes use, with the signatures of commit 311c014.

`install()` puts it into `sys.modules`. It runs without numpy, as the nodes must.
"""

import math
import sys
import types

import torch


def calc_cond_batch(model, conds, x_in, timestep, model_options):
    """The predictions of all conditions that are there in one forward, zeros of others."""
    there = [i for i, cond in enumerate(conds) if cond is not None]
    found = [torch.zeros_like(x_in) for _ in conds]
    if there:
        size = len(x_in)
        context = torch.cat([conds[i][0]["model_conds"]["c_crossattn"].expand(size, -1, -1) for i in there])
        out = model.apply_model(x_in.repeat(len(there), 1, 1, 1), timestep.repeat(len(there)), c_crossattn=context)
        for i, part in zip(there, out.chunk(len(there)), strict=True):
            found[i] = part
    return found


def cfg_function(model, cond_pred, uncond_pred, cond_scale, x, timestep, model_options=None, cond=None, uncond=None):
    result = uncond_pred + (cond_pred - uncond_pred) * cond_scale
    model_options = model_options or {}
    for function in model_options.get("sampler_post_cfg_function", []):
        result = function(
            {
                "denoised": result,
                "cond": cond,
                "uncond": uncond,
                "cond_scale": cond_scale,
                "model": model,
                "uncond_denoised": uncond_pred,
                "cond_denoised": cond_pred,
                "sigma": timestep,
                "model_options": model_options,
                "input": x,
            }
        )
    return result


def sampling_function(model, x, timestep, uncond, cond, cond_scale, model_options=None, seed=None):
    """The real sampler's path, for what hooks are given."""
    model_options = model_options or {}
    spare = math.isclose(cond_scale, 1.0) and not model_options.get("disable_cfg1_optimization", False)
    conds = [cond, None if spare else uncond]
    out = calc_cond_batch(model, conds, x, timestep, model_options)
    for function in model_options.get("sampler_pre_cfg_function", []):
        out = function(
            {
                "conds": conds,
                "conds_out": out,
                "cond_scale": cond_scale,
                "timestep": timestep,
                "input": x,
                "sigma": timestep,
                "model": model,
                "model_options": model_options,
            }
        )
    return cfg_function(model, out[0], out[1], cond_scale, x, timestep, model_options, cond, conds[1])


class CFGGuider:
    def __init__(self, model_patcher):
        self.model_patcher, self.model_options = model_patcher, model_patcher.model_options
        self.original_conds, self.cfg = {}, 1.0

    def inner_set_conds(self, conds):
        for name in conds:
            self.original_conds[name] = [{**about, "cross_attn": tensor} for tensor, about in conds[name]]

    def __call__(self, *args, **kwargs):
        return self.predict_noise(*args, **kwargs)

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        conds = (self.conds.get("negative"), self.conds.get("positive"))
        return sampling_function(self.inner_model, x, timestep, *conds, self.cfg, model_options, seed)

    def sample(
        self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None
    ):
        self.inner_model = self.model_patcher.model
        self.conds = {
            name: [{**cond, "model_conds": {"c_crossattn": cond["cross_attn"]}} for cond in conds]
            for name, conds in self.original_conds.items()
        }
        flow = isinstance(self.inner_model.model_sampling, CONST)
        x = noise * sigmas[0] if flow else noise * (1 + sigmas[0] ** 2) ** 0.5  # an empty latent at full denoising
        return sampler(self, x, sigmas, extra_args={"model_options": self.model_options, "seed": seed})


class EPS:
    pass


class CONST:
    pass


class Model:
    """What a guider calls: `denoise(x, sigma, context)` in ComfyUI's convention; counts its forwards and rows."""

    def __init__(self, model_sampling, denoise):
        self.model_sampling, self.denoise = model_sampling, denoise
        self.forwards = self.rows = 0

    def apply_model(self, x, t, c_crossattn=None):
        self.forwards, self.rows = self.forwards + 1, self.rows + len(x)
        return self.denoise(x, t, c_crossattn)


class Patcher:
    def __init__(self, model, **options):
        self.model, self.model_options = model, {"transformer_options": {}, **options}


class Clip:
    def tokenize(self, text):
        return [ord(letter) for letter in text]

    def encode_from_tokens_scheduled(self, tokens):
        return [[torch.tensor(tokens).float().view(1, -1, 1) / 100, {"pooled_output": None}]]


def install():
    names = {
        "comfy": {},
        "comfy.samplers": {"CFGGuider": CFGGuider, "calc_cond_batch": calc_cond_batch},
        "comfy.model_sampling": {"EPS": EPS, "CONST": CONST},
    }
    for name, has in names.items():
        module = sys.modules[name] = types.ModuleType(name)
        vars(module).update(has)
        if "." in name:
            setattr(sys.modules["comfy"], name.split(".")[1], module)


def load(folder):
    """The nodes as ComfyUI loads them: by the path of their folder, which may be a link."""
    import importlib.util

    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, f"{folder}/__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def euler(model, x, sigmas, extra_args):
    """k-diffusion's Euler, as ComfyUI has its own copy of it."""
    for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        denoised = model(x, sigma * x.new_ones(len(x)), **extra_args)
        x = x + (x - denoised) / sigma * (after - sigma)
    return x
