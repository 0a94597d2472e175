"""What made a picture: one schema, in its PNG and as its line in `manifest.jsonl`."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from dnp.errors import DNPError
from dnp.speed.memory import peak_memory

Line = tuple[dict[str, Any], bytes]
"""A line of the manifest, and the PNG that it is about."""

DNS = "dns"
"""The source of diffusion-negative pictures, and the arm of the first way to make them."""
_COMPUTING = ("dnp", "torch", "k-diffusion", "diffusers", "transformers")
WHERE_GIVEN = ("entities", "captions_on_the_way", "caption_error", "model_options", "start")


@dataclass(kw_only=True)
class Record:
    """Everything that a picture depends on.

    Args:
        path: In the run's folder.
        arm: What it is to be compared as.
        source: Where its negative prompt comes from ("none", "auto", "universal", "text", …); "dns" for a
            diffusion-negative picture.
        negative_prompt, caption: The text as it was used, and as the captioner gave it.
        caption_error: Why there is no caption, if the captioner failed.
        scale, strength: What s and w are in the formula, if it has them.
        evaluations: Of the denoiser, for this picture.
        model_options: What else the model was loaded with that changes pictures.
        start: The picture that it started at, if one was given: "init" and "mask" (name of the file and its hash), and
            "denoise", the share of the steps.
    """

    path: str
    prompt: str
    category: str = ""
    entities: list[str] = field(default_factory=list)
    seed: int
    arm: str
    source: str
    guidance: str
    scale: float | None = None
    strength: float | None = None
    negative_prompt: str = ""
    caption: str = ""
    captioner: str = "none"
    captions_on_the_way: list[dict[str, Any]] = field(default_factory=list)
    caption_error: str = ""
    model: str
    model_options: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    dtype: str
    sampler: str
    schedule: str
    steps: int
    evaluations: int

    def line(self, image: Image.Image, seconds: float) -> Line:
        """The manifest's line and the PNG. What was measured is in the line alone: the same picture has the same
        bytes."""
        record = {key: value for key, value in asdict(self).items() if value or key not in WHERE_GIVEN}
        record |= {"width": image.width, "height": image.height, "versions": versions()}
        data = png(image, record)
        measured = {"seconds": round(seconds, 4), "peak_mib": peak_memory()}
        return record | {"sha256": hashlib.sha256(data).hexdigest()} | measured, data


@cache
def versions() -> dict[str, str]:
    """The packages that make a picture what it is, and their versions."""
    found = {}
    for name in _COMPUTING:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def png(image: Image.Image, record: dict[str, Any] | None = None) -> bytes:
    """A PNG that carries its record: all of it as JSON in "dnp", its gist in "parameters", where viewers look."""
    info = PngImagePlugin.PngInfo()
    if record:
        info.add_itxt("parameters", _parameters(record))
        info.add_itxt("dnp", json.dumps(record, ensure_ascii=False, sort_keys=True))
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=info)
    return data.getvalue()


def _parameters(record: dict[str, Any]) -> str:
    lines = [record["prompt"]]
    if record["negative_prompt"]:
        lines.append(f"Negative prompt: {record['negative_prompt']}")
    scale = "" if record["scale"] is None else f"CFG scale: {record['scale']:g}, "
    denoising = f"Denoising strength: {start['denoise']:g}, " if (start := record.get("start")) else ""
    lines.append(
        f"Steps: {record['steps']}, Sampler: {record['sampler']}, Schedule type: {record['schedule']}, {scale}"
        f"Seed: {record['seed']}, {denoising}"
        f"Size: {record['width']}x{record['height']}, Model: {record['model']}, "
        f'Guidance: "{record["guidance"]}", Version: dnp {record["versions"]["dnp"]}'
    )
    return "\n".join(" ".join(line.splitlines()) for line in lines)  # a line break would begin another field


def read_record(path: Path) -> dict[str, Any]:
    """The record inside a PNG.

    Raises:
        DNPError: The file is no picture, or carries no record.
    """
    try:
        with Image.open(path) as image:
            return json.loads(image.info["dnp"])
    except (OSError, ValueError):
        raise DNPError(f"{path} is no readable picture") from None
    except KeyError:
        raise DNPError(f"{path} carries no record: dnp did not write it, or a program removed it") from None
