"""Stable Diffusion 1.x, 2.x and XL, from a directory in diffusers' format, a hub name, or a single file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from dnp.attention.inside import inside
from dnp.errors import DNPError, first_line
from dnp.models.checkpoint import from_directory
from dnp.models.defaults import Defaults
from dnp.models.locate import EMBEDDED, locate
from dnp.models.supported import check, latent_statistics, own_size
from dnp.models.text_encoding import Texts
from samplers import noise

log = logging.getLogger(__name__)


class _Noise(nn.Module):
    """A diffusers U-Net as k-diffusion calls one: x (B, C, H, W) and t (B) → (B, C, H, W) in the dtype of x."""

    def __init__(self, unet: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.unet, self.dtype = unet, dtype

    def forward(self, x: Tensor, t: Tensor, attention: Any = None, **condition: Any) -> Tensor:
        with inside(self.unet, attention, (x.shape[-2], x.shape[-1])) if attention is not None else nullcontext():
            return self.unet(x.to(self.dtype), t, **condition, return_dict=False)[0].to(x.dtype)


class StableDiffusion:
    """A Stable Diffusion 1.x, 2.x (ε- or v-prediction) or XL, by directory, hub name or file.

    The U-Net and the text encoders run in float32 on a CPU and in bfloat16 on a GPU (float16 on one without it) unless
    asked otherwise, the autoencoder in float32 (SDXL's overflows in float16).

    Args:
        name: "embedded", a hub name, a directory with `unet/`, `vae/`, `text_encoder/`, `tokenizer/`, `scheduler/`, or
            a `.safetensors` file in the original layout.
        device: "cpu", "cuda", …, or a `torch.device`; by default a GPU if there is one.
        dtype: Of the U-Net and the text encoders, "float32", "bfloat16" or "float16", or a `torch.dtype`.
        size: Width and height of the pictures in pixels, multiples of the autoencoder's factor, 8; by default the
            model's own.
        prediction: "epsilon" or "v_prediction", if a single file does not state it or states it wrong.
        empty: What the empty prompt is: "encoded", or "zeros", an embedding of zeros. By default what the model wants:
            SDXL was trained with zeros, all others with the encoded text.
        clip_skip: The layer of the text encoder that is read, counted from the last, which is 1, as in A1111; by
            default the one that the model was trained with.
        loras: Files merged into the weights, each `FILE` or `FILE:WEIGHT`.
        embeddings: Files of textual inversions, each a word for prompts of any kind, negative ones too: the word in the
            file, or its name without the ending.
        controlnet, control_image, control_scale: A directory of a ControlNet, the picture that it follows, and the
            weight of what it adds.
        cpu_offload: Keep each network on the device only while it is needed.
        allow_pickle: Load pickled weights too, by torch's loader of weights only.

    Attributes:
        options: For the records, what of these changes the pictures.

    Raises:
        DNPError: A file is missing, of another kind, pickled or broken; names it and the remedy.
    """

    def __init__(
        self,
        name: str = "embedded",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        *,
        size: tuple[int, int] | None = None,
        prediction: str | None = None,
        empty: str | None = None,
        clip_skip: int | None = None,
        loras: Sequence[str] = (),
        embeddings: Sequence[str] = (),
        controlnet: str | None = None,
        control_image: str | None = None,
        control_scale: float = 1.0,
        cpu_offload: bool = False,
        allow_pickle: bool = False,
    ) -> None:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # of reading weights: it would come between those of the stages
        if prediction not in (None, "epsilon", "v_prediction"):
            raise DNPError(f"the prediction {prediction!r} is none of epsilon, v_prediction")
        if empty not in (None, "encoded", "zeros"):
            raise DNPError(f"the empty prompt {empty!r} is none of encoded, zeros")
        if (controlnet is None) != (control_image is None):
            raise DNPError("a ControlNet and its picture go together: give --controlnet and --control-image")
        folder = locate(str(name))
        self.name = "embedded" if folder == EMBEDDED else str(name)
        self.folder, self.defaults = folder, Defaults.of(folder)
        self.device, self.dtype = _device(device), _dtype(dtype, _device(device))
        if folder.is_file():
            from dnp.models.single_file import from_file

            parts = from_file(folder, self.dtype, prediction, allow_pickle)
        else:
            parts = from_directory(folder, self.dtype, allow_pickle)
        check(folder, parts)
        if parts.unread:
            count, first = len(parts.unread), parts.unread[0]
            log.warning("%s: nothing reads %d of its weights and settings, such as %s", folder, count, first)
        self.options: dict[str, Any] = {}
        if loras:
            from dnp.models.lora import merge

            self.options["loras"] = merge(parts, _listed(loras), allow_pickle)
        words: dict[str, list[int]] = {}
        if embeddings:
            from dnp.models.textual_inversion import add

            words, self.options["embeddings"] = add(parts, _listed(embeddings), allow_pickle)
        self.tokenizer = parts.tokenizers[0]
        self.text_encoder, self.unet, self.autoencoder = parts.text_encoders[0], parts.unet, parts.autoencoder
        factor = 2 ** (len(self.autoencoder.config.block_out_channels) - 1)
        self.width, self.height = size or own_size(folder, parts, factor)
        mean, std, self._factor = latent_statistics(folder, self.autoencoder)
        self._mean, self._std = mean.to(self.device), std.to(self.device)
        if self.width % factor or self.height % factor or min(self.width, self.height) < factor:
            raise DNPError(f"the size {self.width}x{self.height} does not fit the model: give multiples of {factor}")
        channels: int = self.unet.config.in_channels
        self.shape = (channels, self.height // factor, self.width // factor)
        network, networks, self.control = self.unet, parts.networks, None
        if controlnet and control_image:
            from dnp.models.controlnet import Controlled, load_controlnet, read_control

            network = Controlled(self.unet, load_controlnet(controlnet, parts, self.dtype, allow_pickle), control_scale)
            networks.insert(-2, network.controlnet)
            self.control = read_control(control_image, self.width, self.height).to(self.device, self.dtype)
            digest = sha256(Path(control_image).read_bytes()).hexdigest()
            self.options["controlnet"] = {"name": controlnet, "scale": control_scale, "image_sha256": digest}
        self.cpu_offload = cpu_offload
        self._hooks: list[Any] = []
        for part in networks:
            part.requires_grad_(False).eval()
            if cpu_offload:
                from accelerate import cpu_offload_with_hook

                # What came before leaves the device, but a U-Net and its ControlNet take turns at every step
                before = [] if part is self.unet and self.control is not None else self._hooks[-1:]
                self._hooks.append(cpu_offload_with_hook(part, self.device, *before)[1])
            else:
                part.to(self.device)
        self.denoiser = self._denoiser(network, parts.scheduler, prediction)
        zeros = parts.zeros if empty is None else empty == "zeros"
        self.texts = Texts(parts, zeros, words, clip_skip)
        if clip_skip:
            self.options["clip_skip"] = clip_skip
        if parts.xl or empty:
            self.options["empty"] = "zeros" if zeros else "encoded"
        if size:
            self.options["size"] = f"{self.width}x{self.height}"
        if prediction:
            self.options["prediction"] = prediction

    def _denoiser(self, network: nn.Module, scheduler: Any, prediction: str | None) -> Any:
        from dnp.models.denoisers import EpsDenoiser, VDenoiser

        kinds = {"epsilon": EpsDenoiser, "v_prediction": VDenoiser}
        if (kind := prediction or scheduler.config.prediction_type) not in kinds:
            raise DNPError(f"{self.folder / 'scheduler'}: the prediction type {kind!r} is none of {', '.join(kinds)}")
        # A schedule that ends in nothing but noise has an infinite sigma; diffusers' Euler takes this for zero
        alphas = scheduler.alphas_cumprod.clamp(min=2**-24).to(self.device)
        return kinds[kind](_Noise(network, self.dtype), alphas, False)

    def encode(self, prompts: str | Sequence[str]) -> dict[str, Any]:
        """Texts → {"encoder_hidden_states": (B, tokens, width)}, with SDXL's pooled embeddings and sizes, and with the
        picture of a ControlNet; each text is encoded by itself, the last ones once. One text is a batch of one."""
        prompts = _listed(prompts)
        hidden, pooled = self.texts(list(prompts), self.device)
        found: dict[str, Any] = {"encoder_hidden_states": hidden}
        if pooled is not None:
            # original size, corner of the crop, size: as of an uncropped picture of this size
            size = [self.height, self.width, 0, 0, self.height, self.width]
            times = torch.tensor([size] * len(prompts), dtype=torch.float32, device=self.device)
            found["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": times}
        if self.control is not None:
            found["control"] = self.control.expand(len(prompts), -1, -1, -1)
        return found

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, C, H, W) → B pictures, one at a time, which spares memory and makes none depend on another."""
        images = []
        for z in latents.to(self.device, torch.float32).split(1):
            x = self.autoencoder.decode(z * self._std / self._factor + self._mean, return_dict=False)[0][0]
            pixels = ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
            images.append(Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()))
        self._rest()
        return images

    @torch.no_grad()
    def encode_image(self, images: Image.Image | Sequence[Image.Image], seeds: Sequence[int] | None = None) -> Tensor:
        """B pictures, resized to the model's size → their latents (B, C, H, W), normalised as the U-Net sees them.

        Args:
            seeds: One for each picture, to draw from what the autoencoder says; by default its mode is taken.

        Raises:
            DNPError: There are more or fewer seeds than pictures.
        """
        from diffusers.image_processor import VaeImageProcessor

        pictures = [images] if isinstance(images, Image.Image) else list(images)
        if seeds is not None and len(seeds) != len(pictures):
            raise DNPError(f"{len(pictures)} pictures and {len(seeds)} seeds: give one seed for each picture")
        processor, found = VaeImageProcessor(), []
        for i, picture in enumerate(pictures):
            x = processor.preprocess(picture.convert("RGB"), height=self.height, width=self.width)
            latent = self.autoencoder.encode(x.to(self.device, torch.float32), return_dict=False)[0]
            z = latent.mode()
            if seeds is not None:
                z = latent.mean + latent.std * noise(z.shape[1:], [seeds[i]], device=self.device)
            found.append((z - self._mean) * self._factor / self._std)
        self._rest()
        return torch.cat(found)

    def _rest(self) -> None:
        for hook in self._hooks:
            hook.offload()

    def warnings(self, prompt: str) -> list[str]:
        """What of a prompt the model may not understand, a line each: words that it was never shown (if it says which
        it knows), and more tokens than its text encoder takes at once."""
        found, known = [], self.defaults.words
        words = "".join(c if c.isalnum() else " " for c in prompt.lower()).split()
        if unknown := [word for word in dict.fromkeys(words) if known and word not in known]:
            found.append(
                f"the model {self.name} was never shown {', '.join(map(repr, unknown))}; it knows: {' '.join(known)}"
            )
        tokens, room = self.texts.count(prompt)
        if tokens > room:
            found.append(
                f"the prompt has {tokens} tokens, more than the {room} that the model reads at once: it is read in "
                f"{-(-tokens // room)} parts, which no training showed it"
            )
        return found


def _listed(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)  # a text is a sequence of letters, too


def _device(name: str | torch.device | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise DNPError(f"the device {str(name)!r} cannot be used ({first_line(error)}): try --device cpu") from None
    return torch.device(name)


def _dtype(name: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name is None:
        on_gpu = device.type == "cuda"
        return (torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16) if on_gpu else torch.float32
    if name not in names:
        raise DNPError(f"the dtype {name!r} is none of {', '.join(names)}")
    return names[name]
