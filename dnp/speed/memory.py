"""How much memory something has needed."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

_PROCESS = Path("/proc/self")  # of Linux


def forget_peak() -> None:
    """Measure anew from here on, where the system can."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


def peak_memory() -> int | None:
    """MiB at most since the start or `forget_peak`: the GPU's if one was used, else this process'; None where the
    system does not say."""
    import torch

    if torch.cuda.is_available() and (used := torch.cuda.max_memory_allocated()):
        return used >> 20
    with suppress(OSError, StopIteration):  # not what getrusage says: it counts the parent's before an exec
        lines = (_PROCESS / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)  # bytes there, KiB elsewhere
