"""The recipe: diffusion-negative prompting, the models that it runs on, and the command line.

>>> from captioning import Transformers
>>> from dnp import DNP
>>> from dnp.stable_diffusion import StableDiffusion
>>> model = StableDiffusion("path/to/stable-diffusion-v1-4")
>>> result = DNP(model, Transformers("Salesforce/blip2-opt-2.7b"))("a cat and a dog", seed=0)
>>> result.plain, result.dns, result.caption.used, result.dnp
"""

from dnp.errors import DNPError
from dnp.model import TextToImage
from dnp.recipe import DNP, Result, Sampling, paint

__all__ = ["DNP", "DNPError", "Result", "Sampling", "TextToImage", "paint"]
