"""Copies of the embedded model to break, and its latents undecoded."""

import os
import shutil
from functools import cache

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from dnp import paint
from dnp.models.checkpoint import Parts
from dnp.models.locate import EMBEDDED
from dnp.models.single_file import tokenizer
from dnp.models.stable_diffusion import StableDiffusion


class Latents:
    """A model whose pictures are its latents."""

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        return getattr(self.model, name)

    def decode(self, latents):
        return list(latents)


@pytest.fixture(scope="session")
def latents_of():
    """As `paint`, without the decoding."""

    def latents_of(model, guidance, prompts, seeds, sampling, **options):
        return torch.stack(paint(Latents(model), guidance, prompts, seeds, sampling, **options)[0])

    return latents_of


@pytest.fixture
def copy(tmp_path):
    """A copy of the embedded model. Its files are hard links: replace them, never write into them."""

    def link(source, target):
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy(source, target)

    return shutil.copytree(EMBEDDED, tmp_path / "copy", copy_function=link)


@pytest.fixture(scope="session")
def replaced():
    """Put another file in the place of one, which may be a link."""

    def replaced(path, data):
        path.unlink(missing_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return replaced


def text_encoder(kind, width, **options):
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=width // 64,
        bos_token_id=49406,
        eos_token_id=49407,
        **{"num_hidden_layers": 2, "hidden_act": "quick_gelu", "projection_dim": width, "initializer_factor": 10.0}
        | options,  # so large that prompts differ by more than rounding
    )
    return kind(config).eval()


def unet(**options):
    common = {"sample_size": 8, "layers_per_block": 1, "block_out_channels": (32, 64)}
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**common | blocks | options).eval()


def tiny(family):
    """A Stable Diffusion with random weights and as few channels as its family's layout allows."""
    torch.manual_seed({"1": 1, "2": 2, "XL": 3}[family])
    levels = ["DownEncoderBlock2D"] * 2, ["UpDecoderBlock2D"] * 2
    autoencoder = AutoencoderKL(3, 3, *levels, block_out_channels=(32, 32), latent_channels=4).eval()
    autoencoder.register_to_config(scaling_factor=0.13025 if family == "XL" else 0.18215)
    parts = {"autoencoder": autoencoder, "tokenizers": [tokenizer()], "zeros": family == "XL"}
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    parts["scheduler"] = DDIMScheduler(
        **betas,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction" if family == "2" else "epsilon",
    )
    if family == "1":
        parts["text_encoders"] = [text_encoder(CLIPTextModel, 64)]
        parts["unet"] = unet(layers_per_block=2, cross_attention_dim=64, attention_head_dim=8)
        for name, weight in parts["unet"].named_parameters():
            if "attn2.to_out" in name:  # or the text would hardly matter
                weight.data *= 10
    if family == "2":
        parts["tokenizers"] = [tokenizer("!")]
        parts["text_encoders"] = [text_encoder(CLIPTextModel, 64, hidden_act="gelu")]
        parts["unet"] = unet(
            block_out_channels=(64, 128), cross_attention_dim=64, attention_head_dim=[1, 2], use_linear_projection=True
        )
    if family == "XL":
        parts["tokenizers"] += [tokenizer("!")]
        parts["text_encoders"] = [
            text_encoder(CLIPTextModel, 64, initializer_factor=2.0),
            text_encoder(CLIPTextModelWithProjection, 128, hidden_act="gelu", initializer_factor=2.0),
        ]
        parts["unet"] = unet(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=[1, 2],
            cross_attention_dim=64 + 128,
            attention_head_dim=[1, 1],
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=128 + 6 * 32,
        )
    return Parts(**parts)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """family → the directory of a tiny model of it, in diffusers' format, written by its pipeline."""

    @cache
    def checkpoint(family):
        folder = tmp_path_factory.mktemp("models") / family
        tiny(family).pipeline().save_pretrained(folder)
        return folder

    return checkpoint


@pytest.fixture(scope="session")
def model_of(checkpoint):
    """family, options → that directory by our adapter, loaded once; "embedded" is the embedded one."""

    @cache
    def model_of(family, **options):
        return StableDiffusion("embedded" if family == "embedded" else str(checkpoint(family)), "cpu", **options)

    return model_of


@pytest.fixture(scope="session")
def pipeline_of(checkpoint):
    """family → diffusers' own pipeline of that directory."""

    def pipeline_of(family, kind=None, **options):
        kind = kind or (StableDiffusionXLPipeline if family == "XL" else StableDiffusionPipeline)
        folder = EMBEDDED if family == "embedded" else checkpoint(family)
        found = kind.from_pretrained(folder, local_files_only=True, torch_dtype=torch.float32, **options)
        found.set_progress_bar_config(disable=True)
        return found

    return pipeline_of


def t5_tokenizer():
    """One that reads letters."""
    from transformers import T5Tokenizer

    letters = [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters], extra_ids=0)


def tiny_flow(kind):
    """A Stable Diffusion 3 or a Flux with random weights, as its pipeline of diffusers."""
    import diffusers
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed({"SD3": 4, "Flux": 5}[kind])
    levels = ["DownEncoderBlock2D"] * 2, ["UpDecoderBlock2D"] * 2
    autoencoder = AutoencoderKL(3, 3, *levels, block_out_channels=(32, 32), latent_channels=4, shift_factor=0.06).eval()
    t5 = T5EncoderModel(
        T5Config(vocab_size=32, d_model=64 if kind == "Flux" else 128, d_kv=32, d_ff=64, num_layers=1, num_heads=2)
    ).eval()
    common = {"num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2}
    parts = {"vae": autoencoder, "tokenizer": tokenizer()}
    if kind == "Flux":
        common |= {"in_channels": 16, "joint_attention_dim": 64, "pooled_projection_dim": 64}
        network = diffusers.FluxTransformer2DModel(
            **common, patch_size=1, num_single_layers=1, axes_dims_rope=(4, 4, 8), guidance_embeds=True
        )
        parts |= {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)}
        parts |= {"text_encoder": text_encoder(CLIPTextModel, 64), "text_encoder_2": t5, "tokenizer_2": t5_tokenizer()}
    else:
        common |= {"sample_size": 8, "in_channels": 4, "out_channels": 4, "pos_embed_max_size": 16}
        network = diffusers.SD3Transformer2DModel(
            **common, caption_projection_dim=32, joint_attention_dim=128, pooled_projection_dim=128
        )
        parts |= {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)}
        parts |= {"text_encoder_3": t5, "tokenizer_3": t5_tokenizer(), "tokenizer_2": tokenizer("!")}
        clips = [text_encoder(CLIPTextModelWithProjection, 64) for _ in range(2)]
        parts |= {"text_encoder": clips[0], "text_encoder_2": clips[1]}
    for weight in network.parameters():  # modulations start at zero, which would leave nothing to compare
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    pipeline = (diffusers.FluxPipeline if kind == "Flux" else diffusers.StableDiffusion3Pipeline)(
        **parts, transformer=network.eval()
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def flow_pipeline():
    """ "SD3" or "Flux" → a tiny pipeline of it, made once."""
    return cache(tiny_flow)
