"""The captioner: a small BLIP, loaded by the same class of transformers as the real one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

from eval.metrics.judge import CELLS
from eval.world import COLOURS, NOUNS, WORDS, describe
from training.data import Pictures
from training.judge import disturb, mixed, targets
from training.loop import fit
from training.render import SIZE

_PATCH, _LENGTH = SIZE // CELLS, 24


def _processor() -> BlipProcessor:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.txt")
        path.write_text("\n".join(words) + "\n")
        tokenizer = BertTokenizer(str(path), model_max_length=_LENGTH)
    images = BlipImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return BlipProcessor(images, tokenizer)


def build() -> tuple[BlipForConditionalGeneration, BlipProcessor]:
    processor = _processor()
    tokens = processor.tokenizer
    model = BlipForConditionalGeneration(
        BlipConfig(
            text_config=dict(
                vocab_size=len(tokens),
                hidden_size=128,
                encoder_hidden_size=128,
                intermediate_size=256,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=_LENGTH,
                projection_dim=64,
                bos_token_id=tokens.cls_token_id,
                eos_token_id=tokens.sep_token_id,
                sep_token_id=tokens.sep_token_id,
                pad_token_id=tokens.pad_token_id,
            ),
            vision_config=dict(
                hidden_size=128,
                intermediate_size=256,
                num_hidden_layers=4,
                num_attention_heads=4,
                image_size=SIZE,
                patch_size=_PATCH,
            ),
            projection_dim=64,
            image_text_hidden_size=64,
        )
    )
    return model, processor


def train(
    pictures: Pictures, steps: int, work: Path, again: Pictures | None = None, batch: int = 32
) -> tuple[BlipForConditionalGeneration, BlipProcessor]:
    """Train to say everything that a picture shows, things from left to right; half of the pictures as the autoencoder
    gives them back, if `again` holds those.

    Beside the caption, a linear head tells at each patch what stands there: without it a transformer this small
    takes far longer to find the things. The head is thrown away.
    """
    model, processor = build()
    head = nn.Linear(128, len(NOUNS) + len(COLOURS))
    count = len((again or pictures).layouts)

    def loss(rng: torch.Generator, step: int) -> Tensor:
        index = torch.randint(count, (batch,), generator=rng)
        layouts = [pictures.layouts[i] for i in index.tolist()]
        tokens = processor.tokenizer([describe(layout.scene) for layout in layouts], padding=True, return_tensors="pt")
        labels = tokens.input_ids.masked_fill(tokens.attention_mask == 0, -100)
        seen = model.vision_model(disturb(mixed(pictures, again, index, rng), rng)).last_hidden_state
        said = model.text_decoder(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            encoder_hidden_states=seen,
            labels=labels,
        ).loss.mean()
        nouns, colours, _, _ = targets(layouts)
        maps = head(seen[:, 1:]).transpose(1, 2).unflatten(2, (CELLS, CELLS))
        there = F.binary_cross_entropy_with_logits(maps[:, : len(NOUNS)], nouns.clamp(min=0), reduction="none")
        there = torch.where(nouns < 0, 0.0, there) * torch.where(nouns > 0, 4.0, 1.0)
        return 2 * said + there.sum() / batch + 0.5 * F.cross_entropy(maps[:, len(NOUNS) :], colours)

    fit("captioner", nn.ModuleDict({"model": model, "head": head}), loss, steps, work, lr=1e-3, ema=0.998)
    return model, processor
