"""The boundary to whoever made the pictures: a folder with `manifest.jsonl`, a line of JSON for each picture.

Only `path` and `prompt` are needed of a line, so pictures from any other program can be scored as well.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from eval.prompts import Prompt, entities

CAPTIONED = ("auto", "auto-without-prompt", "auto-background", "shuffled")
"""What an arm's `negative` says in `run.json` where it takes the captions of diffusion-negative pictures."""
_WITHOUT = {"arm": "images", "seed": 0, "category": ""}


class ManifestError(ValueError):
    """A folder has no usable manifest. One line that names what is wrong and the remedy."""


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder's `manifest.jsonl`; none where there is no such file.

    Raises:
        ManifestError: a line is no JSON object, or lacks its path or prompt; names it.
    """
    path = folder / "manifest.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise ManifestError(f"{path}, line {number} is no JSON: take the line out to have its picture made again")
        if lacking := [key for key in ("path", "prompt") if not isinstance(record.get(key), str)]:
            raise ManifestError(f"{path}, line {number} has no {lacking[0]!r}: every line needs a path and a prompt")
        records.append(record | {key: value for key, value in _WITHOUT.items() if key not in record})
    return records


def read_run(folder: Path) -> list[dict[str, Any]]:
    """The lines of a manifest that must be there.

    Raises:
        ManifestError: it is not, or has none, or a line of it is broken.
    """
    if not (records := read_manifest(folder)):
        raise ManifestError(f"there is no manifest.jsonl with pictures in {str(folder)!r}: give the --out of a run")
    return records


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step: whoever looks sees the old one or the new one, whatever happens in between."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def prompt_of(record: dict[str, Any]) -> Prompt:
    """The prompt of a line; its entities are split off the text where the line does not say them."""
    named = record.get("entities") or entities(record["prompt"])
    return Prompt(record["prompt"], tuple(named), record["category"])


def pictures(
    folder: Path, records: list[dict[str, Any]], problems: list[str]
) -> Iterator[tuple[dict[str, Any], Image.Image]]:
    """The lines whose picture is there and whole, with it; of the others a line each is added to `problems`."""
    for record in records:
        path = folder / record["path"]
        try:
            data = path.read_bytes()
        except OSError:
            problems.append(f"{path} is missing: run what made it again, or take its line out of the manifest")
            continue
        if "sha256" in record and hashlib.sha256(data).hexdigest() != record["sha256"]:
            problems.append(f"{path} is not the picture that the manifest names (its sha256 differs)")
            continue
        try:
            with Image.open(io.BytesIO(data)) as image:
                yield record, image.convert("RGB")
        except (OSError, ValueError, SyntaxError):
            problems.append(f"{path} is no readable picture")
