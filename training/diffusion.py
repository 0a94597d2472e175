"""The diffusion model: a text encoder and a U-Net, trained together in the autoencoder's latents."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from torchvision.utils import save_image
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from eval.world import describe
from training.data import Pictures
from training.loop import fit
from training.render import random_caption

HALF = torch.float16
WIDTHS = (48, 96, 192)
_LOOK_AT = (
    "a cat and a dog",
    "a bird and a turtle",
    "a horse and a rabbit",
    "a cat and a red balloon",
    "a frog and a purple bowl",
    "a dog with a crown",
    "a red car and a white clock",
    "a green backpack and a yellow chair",
    "a blue bench and a pink apple",
    "a lion on a beach",
    "",
)


def build(tokenizer: CLIPTokenizer, size: int) -> nn.ModuleDict:
    """The text encoder and the U-Net, untrained; `size` is the latents' height and width. Cross-attention is at half
    of it (8 × 8), where Attend-and-Excite looks, and in the middle (4 × 4)."""
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=128,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=size,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=WIDTHS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=8,
        norm_num_groups=16,
    )
    return nn.ModuleDict({"text_encoder": text, "unet": unet})


def load(folder: Path) -> nn.ModuleDict:
    """The text encoder and the U-Net of a finished model, to train them further."""
    parts = {
        name: kind.from_pretrained(folder / name, torch_dtype=torch.float32).train()
        for name, kind in (("text_encoder", CLIPTextModel), ("unet", UNet2DConditionModel))
    }
    return nn.ModuleDict(parts)


def scheduler() -> PNDMScheduler:
    """Stable Diffusion 1's own noise schedule, as its checkpoints carry it."""
    return PNDMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        set_alpha_to_one=False,
    )


def pipeline(parts: nn.ModuleDict, autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """The parts as a pipeline of diffusers, whose directory format is the one that the project ships and loads."""
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=parts["text_encoder"],
        tokenizer=tokenizer,
        unet=parts["unet"],
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def encode(pictures: Pictures, count: int, autoencoder: AutoencoderKL, work: Path) -> Tensor:
    """The latents of the first `count` pictures, (N, 4, h, w) in float16, kept in the work folder."""
    path = work / "latents.npy"
    if not path.exists():
        pieces = []
        with torch.no_grad():
            for index in tqdm(torch.arange(count).split(64), "encoding", mininterval=2):
                x = pictures.batch(index).contiguous(memory_format=torch.channels_last)
                pieces.append(autoencoder.encode(x).latent_dist.mean.half().contiguous())
        with open(partial := path.with_suffix(".part"), "wb") as file:
            np.save(file, (torch.cat(pieces) * autoencoder.config.scaling_factor).numpy())
        partial.replace(path)
    return torch.from_numpy(np.load(path))


def train(
    pictures: Pictures,
    latents: Tensor,
    autoencoder: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    steps: int,
    work: Path,
    name: str = "diffusion",
    start: nn.ModuleDict | None = None,
    mismatched: float = 0.0,
    lr: float = 1e-3,
    first: int = 0,
    batch: int = 32,
    dropout: float = 0.1,
) -> nn.ModuleDict:
    """Train for `steps` steps, from random weights or from those of `start`; a share `mismatched` of the captions
    belongs to another picture, as on the web.

    ε-prediction with the loss weight min(SNR, 5) / SNR (Hang et al. 2023, https://arxiv.org/abs/2303.09556) + 0.1;
    a share `dropout` of the captions is empty, for classifier-free guidance (Ho & Salimans 2022).
    """
    parts = start or build(tokenizer, latents.shape[-1])
    parts.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch //= dist.get_world_size() if dist.is_initialized() else 1
    alphas = scheduler().alphas_cumprod
    count = len(latents)

    def loss(rng: torch.Generator, draw: int) -> Tensor:
        words = random.Random(draw)
        index = torch.randint(count, (batch,), generator=rng)
        z = latents[index].float()
        other = torch.randint(count, (batch,), generator=rng).tolist()
        captions = []
        for mine, another in zip(index.tolist(), other, strict=True):
            told = pictures.layouts[another if words.random() < mismatched else mine].scene
            captions.append("" if words.random() < dropout else describe(random_caption(told, words)))
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        # more often where there is much noise, since it is there that the prompt decides
        spread = (torch.arange(batch) + torch.rand(batch, generator=rng)) / batch  # evenly, for less variance
        t = (1000 * spread.sqrt()).long()
        noise = torch.randn(z.shape, generator=rng)
        a = alphas[t].view(-1, 1, 1, 1)
        context = parts["text_encoder"](tokens).last_hidden_state
        noised = (a.sqrt() * z + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        predicted = parts["unet"](noised, t, encoder_hidden_states=context).sample
        snr = alphas[t] / (1 - alphas[t])
        weight = snr.clamp(max=5) / snr + 0.1
        return (weight * (predicted - noise).square().mean((1, 2, 3))).mean()

    def look(step: int) -> None:
        pipe = pipeline(parts, autoencoder, tokenizer)
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
        pipe.set_progress_bar_config(disable=True)
        rows = [
            pipe(
                list(_LOOK_AT),
                guidance_scale=scale,
                num_inference_steps=12,
                output_type="pt",
                generator=[torch.Generator().manual_seed(seed) for _ in _LOOK_AT],
            ).images
            for scale, seed in ((3.0, 0), (6.0, 0))
        ]
        save_image(torch.cat(rows), work / f"{name}-{step:06d}.png", nrow=len(_LOOK_AT))

    fit(name, parts, loss, steps, work, lr=lr, beta2=0.99, ema=0.998, first=first, look=look)
    return parts
