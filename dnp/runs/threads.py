"""How many threads a run computes with: another number takes sums in another order, which rounds differently."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SMALL = 2**28  # bytes of files


def default_threads(folder: Path) -> int:
    """For a new run of the model in `folder`: 1 for a small one, which more make little faster, else torch's own."""
    import torch

    files = folder.rglob("*") if folder.is_dir() else [folder]
    small = sum(file.stat().st_size for file in files if file.is_file()) < _SMALL
    return 1 if small else torch.get_num_threads()


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch compute with so many."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
