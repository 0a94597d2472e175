r"""What stands in for a denoiser."""

from __future__ import annotations

from typing import Any

from torch import nn


class Wrapper(nn.Module):
    r"""A denoiser around `inner_model`, as k-diffusion names it: attributes that it has not itself are that one's."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "inner_model":
                raise
            return getattr(self.inner_model, name)
