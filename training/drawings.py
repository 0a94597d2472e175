r"""The drawings of the world's nouns: openly licensed emoji, fetched from the npm registry when the model is trained.

Not all sets draw all nouns so that a person knows them at 30 pixels; `DRAWINGS` holds those that do. No set has a
bench; three are drawn here. None of the art is kept in the repository, and `stand_ins` need no network: a simple figure
of each noun, for tests and `--smoke`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from eval.world import ANIMALS, NOUNS, OBJECTS

SIDE = 64  # of a drawing, in pixels


class FetchError(Exception):
    """A package of drawings cannot be had, or is not the one that the model was trained on."""


@dataclass(frozen=True)
class Emoji:
    """A package of the npm registry: its version, its tarball's SHA-512 (base64), and its art's author and licence."""

    name: str
    version: str
    sha512: str
    author: str
    licence: str

    @property
    def package(self) -> str:
        return f"@iconify-json/{self.name}@{self.version}"


SETS = (
    Emoji(
        "noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Noto Emoji by Google",
        "Apache-2.0",
    ),
    Emoji(
        "noto-v1",
        "1.2.5",
        "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        "Noto Emoji (first version) by Google",
        "Apache-2.0",
    ),
    Emoji(
        "fluent-emoji",
        "1.2.7",
        "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
        "Fluent Emoji by Microsoft",
        "MIT",
    ),
    Emoji(
        "fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "Fluent Emoji Flat by Microsoft",
        "MIT",
    ),
    Emoji(
        "twemoji",
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "Twemoji by Twitter and contributors",
        "CC-BY-4.0",
    ),
)
# noun: (the icon's name, the sets whose drawing a person knows at 30 pixels; three of them, the more alike the better)
DRAWINGS = {
    "cat": ("cat-face", "noto fluent-emoji-flat twemoji"),
    "dog": ("dog-face", "noto fluent-emoji-flat twemoji"),
    "bird": ("bird", "noto noto-v1 twemoji"),
    "bear": ("bear", "noto fluent-emoji-flat twemoji"),
    "lion": ("lion", "noto fluent-emoji-flat twemoji"),
    "horse": ("horse", "noto fluent-emoji fluent-emoji-flat"),
    "elephant": ("elephant", "noto fluent-emoji fluent-emoji-flat"),
    "monkey": ("monkey-face", "noto noto-v1 fluent-emoji-flat"),
    "frog": ("frog", "noto noto-v1 fluent-emoji-flat"),
    "turtle": ("turtle", "noto noto-v1 twemoji"),
    "rabbit": ("rabbit-face", "noto fluent-emoji fluent-emoji-flat"),
    "mouse": ("mouse-face", "noto fluent-emoji-flat twemoji"),
    "backpack": ("backpack", "noto fluent-emoji fluent-emoji-flat"),
    "glasses": ("glasses", "noto fluent-emoji-flat twemoji"),
    "crown": ("crown", "noto fluent-emoji twemoji"),
    "suitcase": ("luggage", "fluent-emoji fluent-emoji-flat twemoji"),
    "chair": ("chair", "noto fluent-emoji fluent-emoji-flat"),
    "balloon": ("balloon", "noto noto-v1 fluent-emoji-flat"),
    "bow": ("ribbon", "noto fluent-emoji-flat twemoji"),
    "car": ("automobile", "noto noto-v1 twemoji"),
    "bowl": ("bowl-with-spoon", "noto fluent-emoji-flat twemoji"),
    "clock": ("alarm-clock", "noto fluent-emoji-flat twemoji"),
    "apple": ("red-apple", "noto fluent-emoji twemoji"),
}
Drawings = dict[str, list[np.ndarray]]  # of each noun, pictures (SIDE, SIDE, 4), uint8, RGBA


def _square(image: Image.Image) -> np.ndarray:
    """Cut to what is drawn, scaled to SIDE, in the middle of a transparent square."""
    image = image.crop(image.getbbox())
    scale = SIDE / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return np.asarray(square)


def benches() -> list[np.ndarray]:
    """A bench from the front in three ways: with two slats and a seat, with upright bars, with a low back."""
    wood, dark, iron = (186, 126, 70, 255), (150, 96, 50, 255), (70, 72, 80, 255)
    found = []
    for kind in range(3):
        image = Image.new("RGBA", (256, 256))
        pencil = ImageDraw.Draw(image)
        for x in (30, 206):
            pencil.rectangle((x, 62, x + 20, 212), fill=iron)
        if kind == 0:
            for y in (62, 104):
                pencil.rounded_rectangle((12, y, 244, y + 28), 6, fill=dark)
        elif kind == 1:
            pencil.rounded_rectangle((12, 58, 244, 80), 6, fill=dark)
            for x in range(62, 200, 30):
                pencil.rectangle((x, 78, x + 13, 146), fill=dark)
        else:
            pencil.rounded_rectangle((12, 78, 244, 124), 10, fill=dark)
        pencil.rounded_rectangle((4, 142, 252, 172), 8, fill=wood)
        found.append(_square(image))
    return found


def fetch(emoji: Emoji, folder: Path) -> Path:
    """The package's tarball in `folder`, fetched by npm unless it is there, its checksum compared.

    Raises:
        FetchError: npm is missing or fails, or the file is not the one that the model was trained on.
    """
    path = folder / f"iconify-json-{emoji.name}-{emoji.version}.tgz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(
                ["npm", "pack", emoji.package, "--silent"], cwd=folder, capture_output=True, text=True, timeout=600
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FetchError(f"npm cannot fetch {emoji.package} ({error}): install npm, or put {path} there") from None
        if done.returncode or not path.exists():
            line = (done.stderr.strip() or "no output").splitlines()[-1]
            raise FetchError(f"npm cannot fetch {emoji.package} ({line}): is there a network? Or put {path} there")
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if digest != emoji.sha512:
        raise FetchError(f"{path} is not {emoji.package} as it was published (its SHA-512 differs): delete it")
    return path


def _icons(tarball: Path) -> dict:  # type: ignore[type-arg]
    try:
        with tarfile.open(tarball) as archive:
            return json.load(archive.extractfile("package/icons.json"))  # type: ignore[arg-type]
    except (KeyError, ValueError, tarfile.TarError) as error:
        raise FetchError(f"{tarball} holds no icons.json that can be read ({error}): delete it") from None


def _render(icons: dict, name: str, source: str) -> np.ndarray:  # type: ignore[type-arg]
    try:
        import resvg_py
    except ImportError:
        raise FetchError("the drawings are rendered by resvg_py: pip install 'dnp[train]'") from None

    icon = icons["icons"].get(name) or icons["icons"].get(icons.get("aliases", {}).get(name, {}).get("parent"))
    if not icon:
        raise FetchError(f"{source} has no drawing {name!r}: DRAWINGS in training/drawings.py names one that it lacks")
    width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="256" height="256" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{icon["body"]}</svg>'
    )
    return _square(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA"))


def fetched(work: Path) -> Drawings:
    """All drawings, rendered once and kept in the work folder.

    Raises:
        FetchError: a package cannot be had, or is not the pinned one.
    """
    path = work / "drawings.npz"
    if not path.exists():
        icons = {emoji.name: _icons(fetch(emoji, work / "emoji")) for emoji in SETS}
        found = {
            f"{noun}|{index}": _render(icons[source], name, source)
            for noun, (name, sources) in DRAWINGS.items()
            for index, source in enumerate(sources.split())
        }
        found |= {f"bench|{index}": image for index, image in enumerate(benches())}
        with open(partial := path.with_suffix(".part"), "wb") as file:
            np.savez_compressed(file, **found)  # type: ignore[arg-type]
        partial.replace(path)
    kept = np.load(path)
    drawings: Drawings = {noun: [] for noun in NOUNS}
    for key in kept.files:
        drawings[key.split("|")[0]].append(kept[key])
    return drawings


def stand_ins() -> Drawings:
    """A figure for each noun, drawn by code: a polygon of its own for a thing, with two eyes for an animal."""
    found: Drawings = {}
    for number, noun in enumerate(NOUNS):
        image = Image.new("RGBA", (SIDE, SIDE))
        pencil = ImageDraw.Draw(image)
        place = number % len(ANIMALS)
        shade = tuple(int(60 + 190 * (place * step % 12) / 11) for step in (1, 5, 7))
        if noun in OBJECTS:
            pencil.regular_polygon((32, 32, 31), 3 + place, rotation=10 * place, fill=(150, 150, 150, 255))
            pencil.rectangle((26, 4 + 4 * place, 38, 10 + 4 * place), fill=(60, 60, 60, 255))
        else:
            pencil.ellipse((2, 2 + place, 61, 61 - place), fill=(*shade, 255))
            for x in (20 - place // 2, 40 + place // 2):
                pencil.ellipse((x - 4, 24, x + 4, 32), fill=(20, 20, 20, 255))
        found[noun] = [np.asarray(image)]
    found["bench"] = benches()
    return found
