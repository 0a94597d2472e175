r"""CLIP scores by open_clip: the raw cosine, Hessel's CLIPScore, and Attend-and-Excite's protocol.

References:
    CLIPScore: A Reference-free Evaluation Metric for Image Captioning, Hessel et al., 2021,
    https://arxiv.org/abs/2104.08718: 2.5 · max(cos, 0) with the prefix "A photo depicts".

    Attend-and-Excite, Chefer et al., 2023, https://arxiv.org/abs/2301.13826: raw cosine with the normalised mean of
    the text embeddings over the 80 ImageNet templates; the full prompt, and the minimum over the prompt's things.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eval.metrics.metric import ADHERENCE, Kind, Values
from eval.prompts import Prompt


class Clip:
    """An open_clip model, loaded when it is first needed; keeps the embeddings of texts, and of the last pictures.

    Args:
        checkpoint: "ViT-B-16/openai" (architecture and weights; what Attend-and-Excite used), "hf-hub:…", or a folder
            that open_clip wrote.

    Raises:
        ValueError: there is no such checkpoint, or it cannot be had here.
    """

    def __init__(self, checkpoint: str | Path = "ViT-B-16/openai", device: str = "cpu") -> None:
        import open_clip

        self.device = device
        name, _, weights = str(checkpoint).partition("/")
        if (folder := Path(checkpoint)).is_dir():
            if not (folder / "open_clip_config.json").is_file():
                raise ValueError(
                    f"{str(folder)!r} is no checkpoint folder of open_clip: no open_clip_config.json in it"
                )
            self._source, self._weights = f"local-dir:{folder}", None
            self.name = f"open_clip {folder.resolve().parent.name}/{folder.name}"
        elif name.startswith("hf-hub:"):
            self._source, self._weights, self.name = str(checkpoint), None, f"open_clip {checkpoint}"
        else:
            if weights == "openai" and not name.endswith("-quickgelu"):
                name += "-quickgelu"  # OpenAI's weights were trained with it; the plain name would be wrong silently
            if (name, weights) not in open_clip.list_pretrained():
                raise ValueError(
                    f"{str(checkpoint)!r} is neither a folder nor ARCHITECTURE/WEIGHTS of open_clip, "
                    "as ViT-B-16/openai is (open_clip.list_pretrained() has them all)"
                )
            self._source, self._weights, self.name = name, weights, f"open_clip {name}/{weights}"
        self._texts: dict[str, Tensor] = {}
        self._last: tuple[Sequence[Image.Image], Tensor] | None = None

    @cached_property
    def _model(self) -> tuple[Any, Any, Any]:
        import open_clip

        try:
            model, _, preprocess = open_clip.create_model_and_transforms(self._source, pretrained=self._weights)
            tokenizer = open_clip.get_tokenizer(self._source)
        except Exception as error:  # of many kinds: no network, broken files, wrong shapes
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ValueError(f"{self.name} cannot be loaded ({line}): give another with --clip") from None
        return model.to(self.device).eval(), preprocess, tokenizer

    @torch.no_grad()
    def texts(self, texts: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        """Unit embeddings (B, D): each the normalised mean over the templates of the text in them."""
        model, _, tokenizer = self._model
        for text in dict.fromkeys(texts):
            if (key := f"{len(templates)}:{templates[0]}:{text}") not in self._texts:
                tokens = tokenizer([template.format(text) for template in templates])
                mean = model.encode_text(tokens.to(self.device), normalize=True).mean(0)
                self._texts[key] = mean / mean.norm()
        return torch.stack([self._texts[f"{len(templates)}:{templates[0]}:{text}"] for text in texts])

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit embeddings (B, D)."""
        if self._last is None or self._last[0] is not images:
            model, preprocess, _ = self._model
            views = torch.stack([preprocess(image.convert("RGB")) for image in images]).to(self.device)
            self._last = (images, model.encode_image(views, normalize=True))
        return self._last[1]

    def cosines(
        self, images: Sequence[Image.Image], texts: Sequence[str], templates: Sequence[str] = ("{}",)
    ) -> list[float]:
        return (self.images(images) * self.texts(texts, templates)).sum(1).tolist()


class ClipScore:
    """The raw cosine of picture and prompt, and Hessel's CLIPScore."""

    kinds = {"clip cosine": Kind("cosine", question=ADHERENCE), "clipscore": Kind("CLIPScore", question=ADHERENCE)}

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.name = f"{clip.name}; CLIPScore as Hessel et al.: 2.5 max(cos, 0), prefix 'A photo depicts'"

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> Values:
        prefixed = self.clip.cosines(images, [f"A photo depicts {p.text}" for p in prompts])
        return {
            "clip cosine": list(self.clip.cosines(images, [p.text for p in prompts])),
            "clipscore": [2.5 * max(cosine, 0.0) for cosine in prefixed],
        }


class MinObject:
    """Attend-and-Excite's protocol: the full prompt, and the worst of the things that it names.

    Args:
        templates: The 80 of ImageNet by default; ("{}",) for a checkpoint that does not know their words.
    """

    kinds = {
        "clip cosine full prompt": Kind("cosine", question=ADHERENCE),
        "clip cosine min object": Kind("cosine", question=ADHERENCE),
    }

    def __init__(self, clip: Clip, templates: Sequence[str] | None = None) -> None:
        if templates is None:
            from open_clip import OPENAI_IMAGENET_TEMPLATES

            templates = [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
        self.clip, self.templates = clip, tuple(templates)
        self.name = f"{clip.name}, raw cosine, {len(self.templates)} template{'s' * (len(self.templates) > 1)}"

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> Values:
        found: Values = {
            "clip cosine full prompt": list(self.clip.cosines(images, [p.text for p in prompts], self.templates)),
            "clip cosine min object": [],
        }
        embedded = self.clip.images(images)
        for image, prompt in zip(embedded, prompts, strict=True):
            if len(prompt.entities) < 2:
                found["clip cosine min object"].append(
                    f"the prompt {prompt.text!r} names no two things, joined by 'and' or 'with': no min-object score"
                )
            else:
                found["clip cosine min object"].append(
                    float((self.clip.texts(prompt.entities, self.templates) @ image).min())
                )
        return found
