"""A small CLIP in open_clip's own format, for scores of how well a picture fits a caption."""

from __future__ import annotations

import json
import random
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from eval.world import Scene, describe
from training.data import Pictures
from training.judge import disturb, mixed
from training.loop import fit
from training.render import SIZE, random_caption


def _config(tokenizer: CLIPTokenizer) -> dict[str, object]:
    return {
        "embed_dim": 96,
        "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 24, "patch_size": None},
        "text_cfg": {
            "context_length": tokenizer.model_max_length,
            "vocab_size": len(tokenizer),
            "width": 128,
            "heads": 4,
            "layers": 2,
        },
    }


def train(
    pictures: Pictures, tokenizer: CLIPTokenizer, steps: int, work: Path, again: Pictures | None = None, batch: int = 64
) -> open_clip.CLIP:
    """Train with CLIP's symmetric contrastive loss (Radford et al. 2021, https://arxiv.org/abs/2103.00020); a third of
    the captions name one of two things only, since the minimum over objects asks for each of them alone."""
    model = open_clip.CLIP(**_config(tokenizer))
    count = len((again or pictures).layouts)

    def told(scene: Scene, words: random.Random) -> str:
        said = random_caption(scene, words)
        if len(said.things) == 2 and words.random() < 0.33:
            said = Scene((words.choice(said.things),))
        return describe(said)

    def loss(rng: torch.Generator, step: int) -> Tensor:
        words = random.Random(step)
        index = torch.randint(count, (batch,), generator=rng)
        captions = [told(pictures.layouts[i].scene, words) for i in index.tolist()]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        image, text, scale = model(disturb(mixed(pictures, again, index, rng), rng), tokens)
        logits = scale.clamp(max=100) * image @ text.T
        match = torch.arange(batch)
        return (F.cross_entropy(logits, match) + F.cross_entropy(logits.T, match)) / 2

    fit("clip", model, loss, steps, work, lr=1e-3, ema=0.998)
    return model


def save(model: open_clip.CLIP, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads."""
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(tokenizer)
    config["text_cfg"]["hf_tokenizer_name"] = "."  # type: ignore[index]  # open_clip takes the tokenizer of the folder
    tokenizer.save_pretrained(folder)
    save_file(
        {key: value.half().contiguous() for key, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    settings = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n")
