"""Files that others made, JSON and weights: read whole, or refused in one line that names the file and the remedy."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnp.errors import DNPError, first_line

PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, with or without a byte order mark, whose numbers are all finite.

    Raises:
        DNPError: The file is missing or is not such an object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_finite, parse_float=_finite)
    except OSError as error:
        raise DNPError(f"{path} cannot be read ({error.strerror}): copy the model again") from None
    except RecursionError:
        raise DNPError(f"{path} is not valid JSON: it is nested without end") from None
    except ValueError as error:
        raise DNPError(f"{path} is not valid JSON: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise DNPError(f'{path} is no JSON object, as {{"scale": 7.5}} is one')
    return found


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value


def readable(path: Path) -> bool:
    """Whether the file is safetensors, as long as its header says, and has a tensor in it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return bool(list(file.keys()))
    except (SafetensorError, OSError):
        return False


def read_weights(path: Path, pickle: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
    """What a file of weights holds, and its metadata.

    Args:
        path: A .safetensors file, or a pickled one.
        pickle: Read pickles too, by torch's loader of weights only.

    Returns:
        Tensors by name (a pickle may hold other things, such as numbers and dictionaries), and safetensors' metadata.

    Raises:
        DNPError: The file is missing, pickled, truncated, or holds something else.
    """
    if not path.is_file():
        raise DNPError(f"there is no file {str(path)!r}")
    if path.suffix.lower() not in PICKLES:
        if not readable(path):
            raise DNPError(f"{path} is truncated or no safetensors file: copy it again")
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    if not pickle:
        raise DNPError(a_pickle(path))
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # of pickle, zipfile and torch
        raise DNPError(
            f"{path} holds more than weights, or is damaged, and is not loaded ({first_line(error)})"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise DNPError(f"{path} holds no weights by name, but a {type(found).__name__}: give another file")
    return found, {}


def a_pickle(path: Path) -> str:
    """Why a pickle is refused."""
    return (
        f"{path} is a pickle, which can run any code when loaded: convert it to safetensors, or ask for it with "
        "--allow-pickle, which reads the weights in it and nothing else"
    )


def finite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raises:
    DNPError: One of the tensors is not of finite numbers.
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise DNPError(f"{path}: {name} has numbers that are not finite: the file is damaged, copy it again")
