"""The configurations of a Stable Diffusion, read off the shapes of its weights in the original layout.

Nearly all of a configuration shows in the shapes; the rest is the same in all of a family (Rombach et al. 2022 for 1.x
and 2.x, Podell et al. 2023 for XL).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP = {"1": "cond_stage_model.transformer.text_model.", "XL": "conditioner.embedders.0.transformer.text_model."}
OPEN_CLIP = {"2": "cond_stage_model.model.", "XL": "conditioner.embedders.1.model."}


def configurations(family: str, shapes: Shapes) -> dict[str, dict[str, Any]]:
    """Of the networks, by the folders that diffusers has them in."""
    vae = "vae." if any(key.startswith("vae.") for key in shapes) else VAE
    texts = [_clip(_below(shapes, CLIP[family]))] if family in CLIP else []
    texts += [_open_clip(_below(shapes, OPEN_CLIP[family]))] if family in OPEN_CLIP else []
    return {
        "unet": _unet(_below(shapes, UNET), pooled=texts[-1]["projection_dim"]),
        "vae": _vae(_below(shapes, vae)) | {"scaling_factor": 0.13025 if family == "XL" else 0.18215},
    } | {f"text_encoder{'_2' if i else ''}": config for i, config in enumerate(texts)}


def _below(shapes: Shapes, prefix: str) -> Shapes:
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def _count(shapes: Shapes, prefix: str) -> int:
    """How many `prefix0.`, `prefix1.`, … there are."""
    return len({key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)})


def _unet(shapes: Shapes, pooled: int) -> dict[str, Any]:
    blocks = _count(shapes, "input_blocks.")
    downs = [i for i in range(blocks) if f"input_blocks.{i}.0.op.weight" in shapes]
    layers = (downs[0] if downs else blocks) - 1
    firsts = [1, *(i + 1 for i in downs)]  # of each resolution
    widths = [shapes[f"input_blocks.{i}.0.out_layers.3.weight"][0] for i in firsts]
    depths = [_count(shapes, f"input_blocks.{i}.1.transformer_blocks.") for i in firsts]
    middle = _count(shapes, "middle_block.1.transformer_blocks.")
    first = next(f"input_blocks.{i}.1." for i, depth in zip(firsts, depths, strict=True) if depth)
    linear = len(shapes[f"{first}proj_in.weight"]) == 2
    found = {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [depth or middle for depth in depths],
        "cross_attention_dim": shapes[f"{first}transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": linear,
        # heads, under diffusers' name: of 64 channels each since 2.0, eight of them before
        "attention_head_dim": [max(width // 64, 1) for width in widths] if linear else 8,
    }
    if "label_emb.0.0.weight" in shapes:  # SDXL's pooled text, and six sizes
        total = shapes["label_emb.0.0.weight"][1]
        found |= {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": total}
        found |= {"addition_time_embed_dim": (total - pooled) // 6}
    return found


def _vae(shapes: Shapes) -> dict[str, Any]:
    levels = _count(shapes, "encoder.down.")
    return {
        "block_out_channels": [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": _count(shapes, "encoder.down.0.block."),
        "latent_channels": shapes["decoder.conv_in.weight"][1],
    }


def _clip(shapes: Shapes) -> dict[str, Any]:
    vocabulary, width = shapes["embeddings.token_embedding.weight"]
    return _text(vocabulary, width, shapes["embeddings.position_embedding.weight"][0]) | {
        "num_hidden_layers": _count(shapes, "encoder.layers."),
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "hidden_act": "quick_gelu",
        "projection_dim": width,
    }


def _open_clip(shapes: Shapes) -> dict[str, Any]:
    vocabulary, width = shapes["token_embedding.weight"]
    return _text(vocabulary, width, shapes["positional_embedding"][0]) | {
        # 2.x reads the last layer but one: a 24th is not used
        "num_hidden_layers": 23 if (layers := _count(shapes, "transformer.resblocks.")) == 24 else layers,
        "intermediate_size": shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        "hidden_act": "gelu",
        "projection_dim": shapes["text_projection"][1] if "text_projection" in shapes else width,
    }


def _text(vocabulary: int, width: int, length: int) -> dict[str, Any]:
    return {
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_attention_heads": max(width // 64, 1),
        "max_position_embeddings": length,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }
