r"""The judge of the drawn world: which things stand on which background, read off the picture itself.

A small convolutional network marks the centre of each shape on a heat map and reads the colour there; a metric
that is as near to exact as the world allows (`training/` reports its share of right readings on drawn pictures).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from eval.world import COLOURS, PATTERNS, SHAPES, Scene, Thing

_COLOURS = tuple(COLOURS)


class JudgeNet(nn.Module):
    """Pictures (B, 3, H, W) in [−1, 1] → maps (B, shapes + colours, H/4, W/4), background (B, colours + patterns)."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()

        def layer(channels: int, out: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, out, 3, stride, dilation, dilation), nn.GroupNorm(8, out), nn.SiLU()
            )

        self.body = nn.Sequential(
            layer(3, width // 2, 2),
            layer(width // 2, width, 2),
            layer(width, width),
            layer(width, width, dilation=2),
            layer(width, width),
            layer(width, width, dilation=2),
            layer(width, width),
        )
        self.map = nn.Conv2d(width, len(SHAPES) + len(_COLOURS), 1)
        self.ground = nn.Linear(2 * width, len(_COLOURS) + len(PATTERNS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.map(h), self.ground(torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1))


class Judge:
    """Reads scenes off pictures; `Judge(folder)` loads `judge.safetensors` from a folder.

    Raises:
        FileNotFoundError: the folder holds no judge.
    """

    name = "drawn-world judge"

    def __init__(self, folder: str | Path | None = None, net: JudgeNet | None = None, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self.net = net or JudgeNet()
        if folder is not None:
            path = Path(folder) / "judge.safetensors"
            if not path.is_file():
                raise FileNotFoundError(f"no judge in {str(folder)!r}: {path.name} is missing")
            self.net.load_state_dict({key: value.float() for key, value in load_file(path).items()})
        self.net.eval()

    def __call__(self, images: Sequence[Image.Image]) -> list[Scene]:
        """The scene in each picture (any size; read at 64 × 64), things from left to right."""
        if not images:
            return []
        pixels = np.stack([np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BOX)) for image in images])
        return self.read(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1)

    @torch.no_grad()
    def read(self, x: Tensor) -> list[Scene]:
        """The same for tensors (B, 3, 64, 64) in [−1, 1]."""
        maps, grounds = self.net(x)
        heat = maps[:, : len(SHAPES)].sigmoid()
        strongest = heat.amax(1, keepdim=True)  # one thing at one place: the most likely shape there
        peaks = (heat == strongest) & (strongest == F.max_pool2d(strongest, 5, 1, 2)) & (heat > self.threshold)
        scenes = []
        for peak, colours, ground in zip(peaks, maps[:, len(SHAPES) :], grounds, strict=True):
            found = sorted(peak.nonzero().tolist(), key=lambda place: place[2])
            things = tuple(Thing(SHAPES[s], _COLOURS[int(colours[:, y, x].argmax())]) for s, y, x in found)
            scenes.append(
                Scene(
                    things,
                    _COLOURS[int(ground[: len(_COLOURS)].argmax())],
                    PATTERNS[int(ground[len(_COLOURS) :].argmax())],
                )
            )
        return scenes
