"""Diffusion-negative prompting with the model of a pipeline of diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers.utils import BaseOutput
from PIL import Image

from captioning import Captioner
from dnp.models.flow_model import FlowModel
from dnp.plugins.diffusers.models import model_of
from dnp.recipe import DNP, Sampling
from guidance import Guidance, parse


@dataclass
class DNPPipelineOutput(BaseOutput):
    """The final pictures; of the same noises, those of the prompt alone and the diffusion-negative ones; and the
    negative prompts, which are the captions of these."""

    images: list[Image.Image]
    plain: list[Image.Image]
    dns: list[Image.Image]
    negative_prompts: list[str]


class DNPPipeline:
    r"""Diffusion-negative prompting: a diffusion-negative picture, its caption, and the prompt guided away from it.

    .. code-block:: python

        dnp = DNPPipeline.from_pipe(pipeline, Transformers("Salesforce/blip2-opt-2.7b"))
        image = dnp("a cat and a dog", seeds=0).images[0]

    Nothing of the pipeline given is changed.

    Args:
        recipe: The recipe, with the pipeline's model.
    """

    def __init__(self, recipe: DNP) -> None:
        self.recipe = recipe

    @classmethod
    def from_pipe(
        cls,
        pipeline: Any,
        captioner: Captioner,
        *,
        guidance: str | Guidance = "NegPrompt(s, evaluations=3)",
        dns: str | Guidance = "DNS(s)",
        plain: str | Guidance = "CFG(s)",
        scale: float = 7.5,
        sampling: Sampling | None = None,
        dns_sampling: Sampling | None = None,
        **options: Any,
    ) -> DNPPipeline:
        """From any pipeline that :func:`dnp.plugins.diffusers.guide` takes.

        Args:
            captioner: Pictures → texts: see `captioning`.
            guidance, dns, plain: Of the final, the diffusion-negative and the plain picture; `s` is the `scale`.
            sampling, dns_sampling: As of `dnp.DNP`; Euler on the model's own levels in 28 steps for flow models.
            options: `size` (width, height), and those of `guide` for the kind of pipeline.

        Raises:
            DNPError: A pipeline of another kind. GuidanceError: a text is no formula.
        """
        model: Any = model_of(pipeline, **options)
        flow = isinstance(model, FlowModel)
        sampling = sampling or (Sampling("euler", "model", 28) if flow else Sampling())
        final, negative, alone = (
            parse(rule, s=scale) if isinstance(rule, str) else rule for rule in (guidance, dns, plain)
        )
        return cls(DNP(model, captioner, final, negative, alone, sampling=sampling, dns_sampling=dns_sampling))

    def __call__(self, prompt: str | list[str], *, seeds: int | list[int] = 0) -> DNPPipelineOutput:
        """Pictures of B prompts from B seeds.

        Raises:
            DNPError: an empty prompt; lengths that differ. CaptionError: a caption cannot be used.
        """
        many = not isinstance(prompt, str)
        results = self.recipe(list(prompt), seeds if isinstance(seeds, list) else [seeds]) if many else None
        if results is None:
            results = [self.recipe(str(prompt), seeds if isinstance(seeds, int) else seeds[0])]
        return DNPPipelineOutput(
            images=[result.images["dnp"] for result in results],
            plain=[result.plain for result in results],
            dns=[result.images["dns"] for result in results if "dns" in result.images],
            negative_prompts=[result.caption.used for result in results if result.caption],
        )
