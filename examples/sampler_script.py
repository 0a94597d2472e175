"""Use it with your own sampler script: a plain Euler loop around a k-diffusion denoiser, and three lines of ours.

    python examples/sampler_script.py out/sampler-script

In place of the embedded model take your own denoiser of k-diffusion's kind, its text encoder and its decoder.
"""

import sys
from pathlib import Path

import torch

from dnp.models.stable_diffusion import StableDiffusion
from guidance import CFG, DNS, NegPrompt

PROMPT, NEGATIVE, STEPS = "a red balloon and a blue bowl", "a pink background", 16

# What a script has already: a denoiser(x, sigma, **condition) -> denoised, texts encoded, noise and noise levels
model = StableDiffusion("embedded")
denoiser = model.denoiser
sigmas = denoiser.get_sigmas(STEPS)
noise = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def euler(denoiser, x, sigmas, **conditions):
    for sigma, next_sigma in zip(sigmas[:-1], sigmas[1:], strict=True):
        denoised = denoiser(x, sigma.expand(len(x)), **conditions)
        x = x + (x - denoised) / sigma * (next_sigma - sigma)
    return x


# Ours: name the conditions (each the keyword arguments that your denoiser takes), write the formula, wrap
conditions = {name: model.encode([text]) for name, text in (("prompt", PROMPT), ("negative", NEGATIVE), ("empty", ""))}
guidances = {"plain": CFG(7.5), "opposite": DNS(7.5), "negative": NegPrompt(7.5, evaluations=3)}
for name, guidance in guidances.items():
    latents = euler(guidance.wrap(denoiser), noise * sigmas[0], sigmas, **conditions)

    path = Path(sys.argv[1] if len(sys.argv) > 1 else "out/sampler-script") / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    model.decode(latents)[0].save(path)
    print(f"{path}: {guidance}")
