r"""A negative prompt captioned on the way: at chosen steps, of the picture that the sampler is heading for.

Before such a step the guidance, with the negative prompt so far, predicts :math:`\hat x_0`; its caption is the negative
prompt from that step on. Before the first caption the negative prompt is empty. Each caption costs one more call of
the guidance, so that even the first step can have a negative prompt of its own picture.

References:
    Dynamic VLM-guided negative prompting for diffusion models, 2025, https://arxiv.org/abs/2510.26052. Which steps,
    and that they are captioned before and not after them, are choices of the user and ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from captioning import Caption, Captioner, captions_of
from dnp.models.text_to_image import TextToImage
from guidance import GuidedDenoiser
from samplers import Step


class OnTheWay:
    """What `paint` takes as its `hook`, for one batch.

    Args:
        captioner: Pictures → texts.
        steps: Before which to caption, from 0.

    Attributes:
        captions: Step → the captions of the batch, as captioned and as used.

    Raises:
        CaptionError: A caption cannot be used, or the captioner gave too few.
    """

    def __init__(self, model: TextToImage, captioner: Captioner, steps: Sequence[int]) -> None:
        self.model, self.captioner, self.steps = model, captioner, steps
        self.captions: dict[int, list[Caption]] = {}

    def __call__(self, guided: GuidedDenoiser, conditions: dict[str, Mapping[str, Any]], step: Step) -> None:
        if step.index not in self.steps:
            return
        images = self.model.decode(guided(step.x, step.sigma, **conditions))
        found = captions_of(self.captioner, images, getattr(self.model, "tokenizer", None))
        self.captions[step.index] = found
        if "negative" in conditions:
            conditions["negative"] = self.model.encode([caption.used for caption in found])
