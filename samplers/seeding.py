r"""Noise that belongs to an image and not to the batch it is in.

Every image has one seed, and every seed its own CPU generator, so that an image is the same alone, in a
batch, in another batch, and on any device.
"""

import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .errors import SamplerError
from .lazily import k_sampling

NoiseSampler = Callable[..., Tensor]
r"""`(sigma, sigma_next) -> noise`, as k-diffusion's samplers ask for it."""


def check_seeds(seeds: Sequence[int]) -> list[int]:
    r"""Returns the seeds as plain integers.

    Raises:
        SamplerError: If one is not an integer in :math:`[0, 2^{63})`, or there is none.
    """

    if isinstance(seeds, (str, bytes)) or not hasattr(seeds, "__iter__"):
        raise SamplerError(f"seeds must be a list of integers, one per image; got {seeds!r}")
    checked = []
    for seed in seeds:
        try:
            value = -1 if isinstance(seed, bool) else operator.index(seed)
        except TypeError:
            value = -1
        if not 0 <= value < 2**63:
            raise SamplerError(f"seed {seed!r} is not an integer from 0 to 2**63 - 1")
        checked.append(value)
    if not checked:
        raise SamplerError("no seeds given; one per image is needed")
    return checked


def _generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in check_seeds(seeds)]


def _draw(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    # Always float32 on the CPU: the same picture on every device and in every precision.
    return torch.stack([torch.randn(*shape, generator=g, dtype=torch.float32) for g in generators])


def noise(
    shape: Sequence[int],
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""Returns standard Gaussian noise, each image from its own seed.

    The values are those of diffusers' `randn_tensor` with a list of CPU generators. They are drawn in float32
    whatever `dtype` is, as PyTorch itself does for half precision.

    Arguments:
        shape: The shape of one image :math:`(C, H, W)`.
        seeds: The seeds, one per image.
        device: The device of the result.
        dtype: The data type of the result.

    Returns:
        The noise, with shape :math:`(B, C, H, W)`.

    Raises:
        SamplerError: If a seed is not an integer in :math:`[0, 2^{63})`, or there is none.
    """

    return _draw(shape, _generators(seeds)).to(device=device, dtype=dtype)


def step_noise(x: Tensor, seeds: Sequence[int]) -> NoiseSampler:
    r"""Returns a noise sampler for ancestral steps, which goes on where :func:`noise` stopped.

    The first draw of each generator was the initial noise; it is passed over, so that no step sees it again.
    This is the order in which diffusers' pipelines draw from a list of generators.

    Arguments:
        x: A tensor with the shape, device and dtype of the noise wanted, :math:`(B, C, H, W)`.
        seeds: The seeds, one per image.
    """

    shape, generators = x.shape[1:], _generators(seeds)
    _draw(shape, generators)
    return lambda sigma=None, sigma_next=None: _draw(shape, generators).to(x)


def brownian_noise(x: Tensor, sigmas: Tensor, seeds: Sequence[int]) -> NoiseSampler:
    r"""Returns k-diffusion's Brownian tree with one tree per image, for the SDE samplers.

    Their steps and the steps within their steps see one Brownian path. It is drawn on the CPU, since its
    values would differ between devices.

    Arguments:
        x: A tensor with the shape, device and dtype of the noise wanted, :math:`(B, C, H, W)`.
        sigmas: The noise levels, with shape :math:`(N + 1)`.
        seeds: The seeds, one per image.
    """

    like = torch.empty(x.shape, dtype=torch.float32)
    # torchsde rounds the ends of its tree to 6 digits, and the samplers ask at exp(log sigma): either may
    # leave the range by a rounding error, which would warn.
    low, high = (round(sigma.item(), 6) for sigma in (sigmas[sigmas > 0].min(), sigmas.max()))

    def within(sigma: Tensor) -> Tensor:
        return sigma.cpu().double().clamp(low, high)

    tree = k_sampling().BrownianTreeNoiseSampler(like, low, high, check_seeds(seeds), transform=within)
    return lambda sigma, sigma_next: tree(sigma, sigma_next).to(x)


class Churn(TorchFunctionMode):
    r"""Within this context, `torch.randn_like` of a tensor like `x` draws from `noise_sampler`.

    The churn of Karras et al. (`s_churn`) is the one noise that k-diffusion draws from the global generator
    with no argument to replace it.
    """

    def __init__(self, x: Tensor, noise_sampler: NoiseSampler) -> None:
        super().__init__()
        self.shape, self.noise_sampler = x.shape, noise_sampler

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.randn_like and args[0].shape == self.shape:
            return self.noise_sampler()
        return func(*args, **(kwargs or {}))
