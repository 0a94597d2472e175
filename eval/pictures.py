"""Pictures that others wrote, read as whoever made them meant it, or refused by name.

Turned as EXIF says, 16 bits scaled to 8, palettes looked up, what is transparent laid on white. The files are data and
may be hostile: only regular files inside their folder are opened, of limited size, in formats that run no program.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")  # EPS would start Ghostscript
LARGEST = 1 << 30  # bytes of a file


class PictureError(ValueError):
    """A file is no picture that can be used. One line that names it and the remedy."""


def read_bytes(folder: Path, path: str) -> bytes:
    """The bytes of a picture that a manifest names.

    Raises:
        PictureError: it leads out of the folder, is missing, no regular file, or too large.
    """
    place = folder / path
    try:
        inside = place.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name with a NUL, a circle of links
        inside = False
    if not inside:
        raise PictureError(f"{path} leads out of {folder}: a manifest names pictures in its own folder only")
    try:
        handle = os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would be waited for
    except OSError:
        raise PictureError(
            f"{place} is missing: run what made it again, or take its line out of the manifest"
        ) from None
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
        os.close(handle)
        kind = (
            f"has {about.st_size:,} bytes, more than a picture needs"
            if stat.S_ISREG(about.st_mode)
            else "is no regular file"
        )
        raise PictureError(f"{place} {kind}: take its line out of the manifest")
    with os.fdopen(handle, "rb") as file:
        return file.read()


def decode(data: bytes, name: str) -> Image.Image:
    """A picture in RGB.

    Raises:
        PictureError: no readable picture, or one that would need too much memory; named `name`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return _rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS or 0:,}"
        raise PictureError(
            f"{name} says that it has more than {limit} pixels: make it smaller, or leave it out"
        ) from None
    except PictureError as error:
        raise PictureError(f"{name} {error}") from None
    except Exception:  # a broken file raises whatever its reader stumbles over
        raise PictureError(f"{name} is no readable picture ({', '.join(FORMATS)})") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise PictureError("has values that are neither of 8 nor of 16 bits: save it as PNG")
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        shown = image.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        return Image.alpha_composite(white, shown).convert("RGB")
    return image.convert("RGB")


def pictures(
    folder: Path, records: list[dict[str, Any]], problems: list[str]
) -> Iterator[tuple[dict[str, Any], Image.Image]]:
    """The lines whose picture is there and whole, with it; for each of the others a line is added to `problems`."""
    for record in records:
        try:
            data = read_bytes(folder, record["path"])
            if "sha256" in record and hashlib.sha256(data).hexdigest() != record["sha256"]:
                raise PictureError(
                    f"{folder / record['path']} is not the picture that the manifest names (its sha256 differs)"
                )
            found = decode(data, str(folder / record["path"]))
        except PictureError as error:
            problems.append(str(error))
            continue
        yield record, found
