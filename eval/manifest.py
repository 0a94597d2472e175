"""The boundary to whoever made the pictures: a folder with `manifest.jsonl`, a line of JSON for each picture.

A line needs only `path` and `prompt`, so pictures from any other program can be scored as well. `source` says what kind
of picture it is: "dns" for a diffusion-negative picture, which does not show its prompt and is not scored; otherwise
where its negative prompt comes from.
"""

from __future__ import annotations

import json
import os
import tempfile
from math import isfinite
from pathlib import Path
from typing import Any

from eval.prompts import Prompt, entities
from eval.text import lines, visible

_WITHOUT = {"arm": "images", "seed": 0, "category": ""}
_TEXTS = ("arm", "category", "source", "caption", "negative_prompt", "model", "guidance", "sha256")
_NUMBERS = ("evaluations", "seconds", "scale", "strength", "steps")


class ManifestError(ValueError):
    """A folder has no usable manifest. One line that names what is wrong and the remedy."""

    def __init__(self, text: str) -> None:
        super().__init__(visible(text))


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder's `manifest.jsonl`; none where there is no such file.

    Raises:
        ManifestError: a line is no JSON object, lacks its path or prompt, or holds a value of the wrong type; names it.
    """
    path = folder / "manifest.jsonl"
    if not path.is_file():
        return []
    try:
        found = lines(path.read_bytes())
    except UnicodeDecodeError:
        raise ManifestError(f"{path} is no text in UTF-8: save it as UTF-8") from None
    records = []
    for number, line in enumerate(found, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        where = f"{path}, line {number}"
        if not isinstance(record, dict):
            raise ManifestError(f"{where} is no JSON object: take the line out to have its picture made again")
        if lacking := [key for key in ("path", "prompt") if not isinstance(record.get(key), str)]:
            raise ManifestError(f"{where} has no {lacking[0]!r}: every line needs a path and a prompt, both texts")
        if wrong := _of_wrong_type(record):
            raise ManifestError(
                f"{where}: {wrong!r} cannot be {str(record[wrong])[:60]!r}: mend the line or take it out"
            )
        try:
            json.dumps(record, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ManifestError(f"{where} holds half a character (a lone surrogate): write the text again") from None
        records.append(record | {key: value for key, value in _WITHOUT.items() if key not in record})
    return records


def _of_wrong_type(record: dict[str, Any]) -> str | None:
    for key in _TEXTS:
        if not isinstance(record.get(key, ""), str):
            return key
    for key in _NUMBERS:
        value = record.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value)):
            return key
    named = record.get("entities") or []
    if not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        return "entities"
    return None if isinstance(record.get("seed", 0), int | str) else "seed"


def of_prompt(record: dict[str, Any]) -> bool:
    """Whether a line's picture is meant to show its prompt: a diffusion-negative picture is not."""
    return record.get("source", record["arm"]) != "dns"


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
