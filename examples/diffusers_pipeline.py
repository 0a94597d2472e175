"""Use it with a diffusers pipeline: diffusion-negative sampling through its own negative prompt, or any formula.

    python examples/diffusers_pipeline.py out/diffusers-pipeline

In place of the embedded model take your own pipeline, as from StableDiffusionPipeline.from_pretrained.
"""

import sys
from pathlib import Path

import k_diffusion as K
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

import samplers
from dnp.models.locate import EMBEDDED
from guidance import DNS, parse

PROMPT, NEGATIVE, SCALE, STEPS = "a red balloon and a blue bowl", "a pink background", 2.5, 16
out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/diffusers-pipeline")
out.mkdir(parents=True, exist_ok=True)

# What you have already
pipe = StableDiffusionPipeline.from_pretrained(EMBEDDED, local_files_only=True).to(torch.float32)
pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
pipe.set_progress_bar_config(disable=True)
noise = samplers.noise((pipe.unet.config.in_channels, *[pipe.unet.config.sample_size] * 2), seeds=[0])

# Diffusion-negative sampling alone needs nothing of ours: a pipeline's negative prompt is that of two evaluations,
# n + s (p − n), so the prompt goes where the negative one belongs, with the scale s + 1.
pipe("", negative_prompt=PROMPT, guidance_scale=SCALE + 1, num_inference_steps=STEPS, latents=noise).images[0].save(
    out / "opposite-by-pipeline.png"
)


# Any formula: the pipeline's U-Net as k-diffusion's denoiser (DiscreteVDDPMDenoiser if it predicts v)
def unet(x, t, **condition):
    return pipe.unet(x, t, **condition, return_dict=False)[0]


def encode(text):
    return {"encoder_hidden_states": pipe.encode_prompt(text, pipe.device, 1, False)[0]}


denoiser = K.external.DiscreteEpsDDPMDenoiser(unet, pipe.scheduler.alphas_cumprod, quantize=False)
with torch.no_grad():
    conditions = {"prompt": encode(PROMPT), "negative": encode(NEGATIVE), "empty": encode("")}
sigmas = samplers.schedule("leading", denoiser, STEPS)  # the pipeline's own; "karras" with "dpmpp_2m" takes fewer steps
guidances = {"opposite": DNS(SCALE), "formula": parse("u + 5*(p - u) - 0.5*(n - u)")}
for name, guidance in guidances.items():
    latents = samplers.sample(guidance.wrap(denoiser), noise, sigmas, sampler="euler", extra_args=conditions)
    with torch.no_grad():
        pixels = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    pipe.image_processor.postprocess(pixels)[0].save(out / f"{name}.png")
    print(f"{out / name}.png: {guidance}")
