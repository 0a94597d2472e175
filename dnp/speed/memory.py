"""How much memory a run has needed."""

from __future__ import annotations

import sys


def peak_memory() -> int | None:
    """MiB so far, at most: the GPU's where one was used, else this process'; None where the system does not say."""
    import torch

    if torch.cuda.is_available() and (used := torch.cuda.max_memory_allocated()):
        return used >> 20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)  # bytes there, KiB elsewhere
