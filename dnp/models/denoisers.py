r"""k-diffusion's denoisers of discrete models, without the work that they repeat at every call."""

from __future__ import annotations

from typing import Any

import torch
from k_diffusion.external import DiscreteEpsDDPMDenoiser, DiscreteSchedule, DiscreteVDDPMDenoiser
from torch import Tensor


class _Quick(DiscreteSchedule):
    r"""The same numbers, sooner: a noise level is searched for in the table, which is sorted, instead of compared with
    all of it; and if no gradient is needed, the network runs in inference mode, which is faster for small ones."""

    def sigma_to_t(self, sigma: Tensor, quantize: bool | None = None) -> Tensor:
        r"""The timesteps, fractions and all, of noise levels :math:`(B)`."""
        if self.quantize if quantize is None else quantize:
            return super().sigma_to_t(sigma, quantize)
        level = sigma.log().view(-1)
        low_idx = (torch.searchsorted(self.log_sigmas, level, right=True) - 1).clamp(0, len(self.log_sigmas) - 2)
        low, high = self.log_sigmas[low_idx], self.log_sigmas[low_idx + 1]
        w = ((low - level) / (low - high)).clamp(0, 1)
        return ((1 - w) * low_idx + w * (low_idx + 1)).view(sigma.shape)

    def _predict(self, *args: Any, **condition: Any) -> Tensor:
        with torch.inference_mode(not torch.is_grad_enabled()):
            return self.inner_model(*args, **condition)


class EpsDenoiser(_Quick, DiscreteEpsDDPMDenoiser):
    r"""For a network that predicts :math:`\epsilon`: x (B, C, H, W) and σ (B) → denoised (B, C, H, W)."""

    get_eps = _Quick._predict


class VDenoiser(_Quick, DiscreteVDDPMDenoiser):
    r"""For a network that predicts :math:`v`: x (B, C, H, W) and σ (B) → denoised (B, C, H, W)."""

    get_v = _Quick._predict
