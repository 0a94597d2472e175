r"""What is known on the host, so that a step need not wait for the device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# The last tensor of noise levels seen, its version, and its values on the host.
_last: tuple[Callable[[], Tensor | None], int, Tensor] | None = None


def peek(values: Tensor) -> Any:
    r"""The values of a tensor as Python's, None if there are none to read: while compiling, in vmap, of fake tensors.

    Off the CPU it waits for the device.
    """
    if torch.compiler.is_compiling():
        return None
    try:
        return values.tolist()
    except RuntimeError:
        return None


def transformed(values: Tensor) -> bool:
    r"""Whether a tensor lives in one of torch.func's transforms, outside of which it must not be kept."""
    return not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(values)


def on_host(sigma: Tensor) -> Tensor:
    r"""Noise levels :math:`(B)` on the host: as they were told, else read from the device, once for each tensor.

    While compiling and in torch.func's transforms it is `sigma` itself.
    """
    if sigma.is_cpu or torch.compiler.is_compiling() or transformed(sigma):
        return sigma
    if _last is None or _last[0]() is not sigma or _last[1] != _version(sigma):
        tell(sigma, sigma.detach().cpu())
    return _last[2] if _last else sigma


def tell(sigma: Tensor, level: float | Tensor) -> None:
    r"""Says what the noise levels `sigma` :math:`(B)` of the next call are on the host: a number, or :math:`(B)`."""
    global _last
    _last = weakref.ref(sigma), _version(sigma), torch.as_tensor(level, dtype=sigma.dtype).expand(sigma.shape)


def _version(sigma: Tensor) -> int:
    return 0 if sigma.is_inference() else sigma._version
