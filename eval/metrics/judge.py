r"""The judges of the embedded model's world: which things a picture shows, in which colours, where, and whether worn.

There are two, of different architectures (residual blocks; plain layers with larger kernels) and seeds: `judge` chooses
settings, `judge2` gives results, so that no number rests on the network that chose what it is measured with. Both mark
the middle of each thing on a map of 8 × 8 cells and read its colour there. `training/` reports their shares of right
readings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from eval.world import ANIMALS, COLOURS, NOUNS, PLACES, WEARABLE, Scene, Thing

_COLOURS = tuple(COLOURS)
CELLS = 8  # the map's height and width; a cell is 8 × 8 pixels
Reading = tuple[Tensor, Tensor, Tensor, Tensor]


def _normed(channels: int, out: int, stride: int = 1, act: bool = True, kernel: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), *([nn.ReLU()] if act else []))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_normed(channels, channels), _normed(channels, channels, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def _residual() -> nn.Sequential:
    return nn.Sequential(
        _normed(3, 24, 2),
        _normed(24, 48, 2),
        _Residual(48),
        _normed(48, 128, 2),
        _Residual(128),
        _Residual(128),
        _Residual(128),
    )


def _plain() -> nn.Sequential:
    return nn.Sequential(
        _normed(3, 32, 2, kernel=5),
        _normed(32, 64, 2, kernel=5),
        _normed(64, 64),
        _normed(64, 128, 2),
        _normed(128, 128),
        _normed(128, 128),
        _normed(128, 128),
    )


BODIES = {"residual": _residual, "plain": _plain}


class JudgeNet(nn.Module):
    """Pictures (B, 3, 64, 64) in [−1, 1] → logits: nouns on the map (B, 24, 8, 8), colours on the map (B, 11, 8, 8),
    the place (B, 19), whether something is worn (B,)."""

    def __init__(self, architecture: str = "residual") -> None:
        super().__init__()
        self.architecture = architecture
        self.body = BODIES[architecture]()
        self.map = nn.Conv2d(128, len(NOUNS) + len(_COLOURS), 1)
        self.whole = nn.Linear(256, len(PLACES) + 1)

    def forward(self, x: Tensor) -> Reading:
        h = self.body(x)
        maps, whole = self.map(h), self.whole(torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1))
        return maps[:, : len(NOUNS)], maps[:, len(NOUNS) :], whole[:, :-1], whole[:, -1]


class Judge:
    """Reads scenes off pictures; `Judge(folder)` loads `judge.json` and `judge.safetensors` from a folder.

    Raises:
        FileNotFoundError: the folder holds no judge.
        ValueError: its files are damaged, or of another world's judge.
    """

    def __init__(self, folder: str | Path | None = None, net: JudgeNet | None = None, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self.net = net or JudgeNet()
        if folder is not None:
            weights, config = Path(folder) / "judge.safetensors", Path(folder) / "judge.json"
            for path in (weights, config):
                if not path.is_file():
                    raise FileNotFoundError(f"no judge in {str(folder)!r}: {path.name} is missing")
            try:
                self.net = JudgeNet(json.loads(config.read_text())["architecture"])
                self.net.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
            except Exception as error:  # safetensors' own error class, a missing key, shapes of another world
                line = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ValueError(
                    f"the judge in {str(folder)!r} cannot be loaded ({line}): take that of the embedded model"
                ) from None
        self.net.eval()

    @property
    def name(self) -> str:
        return f"world judge ({self.net.architecture})"

    def __call__(self, images: Sequence[Image.Image]) -> list[Scene]:
        """The scene in each picture (any size; read at 64 × 64), things from left to right."""
        return self.read(pixels(images)) if images else []

    @torch.no_grad()
    def read(self, x: Tensor) -> list[Scene]:
        """The same for tensors (B, 3, 64, 64) in [−1, 1]."""
        scenes = []
        for nouns, colours, places, worn in zip(*self._logits(x), strict=True):
            best, at = nouns.flatten(1).sigmoid().max(1)
            found = sorted((int(at[i]) % CELLS, i) for i in (best > self.threshold).nonzero().flatten().tolist())
            shades = colours.flatten(1).argmax(0)
            things = tuple(
                Thing(NOUNS[i], None if NOUNS[i] in ANIMALS else _COLOURS[int(shades[at[i]])]) for _, i in found
            )
            names = {thing.noun for thing in things}
            wears = bool(worn > 0) and bool(names & set(ANIMALS)) and bool(names & set(WEARABLE))
            scenes.append(Scene(things, PLACES[int(places.argmax())], wears))
        return scenes

    @torch.no_grad()
    def distribution(self, images: Sequence[Image.Image]) -> Tensor:
        """How likely each noun is what a picture shows, (B, 24), rows summing to one: for the Inception Score."""
        return self._logits(pixels(images))[0].flatten(2).amax(2).softmax(1)

    def _logits(self, x: Tensor) -> Reading:
        parts = [self.net(part) for part in x.split(256)]
        return tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))  # type: ignore[return-value]


def pixels(images: Sequence[Image.Image]) -> Tensor:
    """Pictures of any size as (B, 3, 64, 64) in [−1, 1]."""
    small = np.stack([np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BOX)) for image in images])
    return torch.from_numpy(small).permute(0, 3, 1, 2).float() / 127.5 - 1
