r"""Predictions of a perturbed network, to be guided away from.

What a perturbation takes away is what guidance adds, at one evaluation more and with no negative text:

.. math:: \hat\epsilon = \text{CFG}(s) + w (\epsilon(p) - \tilde\epsilon(p))

which is `CFG(s) + w * (p - prediction("identity"))` here, since a condition may say what is done to attention::

    {**model.encode(prompts), "attention": "identity"}                          # by name, as it is by default
    {**model.encode(prompts), "attention": Blur(sigma=10, layers=("mid_block",))}

References:
    | Self-rectifying diffusion sampling with perturbed-attention guidance (PAG), Ahn et al., ECCV 2024,
      https://arxiv.org/abs/2403.17377
    | Smoothed energy guidance (SEG), Hong, NeurIPS 2024, https://arxiv.org/abs/2408.00760
    | Token perturbation guidance for diffusion models (TPG), Rajabi et al., 2025, https://arxiv.org/abs/2506.10036
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dnp.attention.layers import Change, Grid, argument, grids, select
from dnp.errors import DNPError
from guidance.denoiser.conditions import flatten

Choose = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Perturbation(Change):
    r"""Something done to chosen transformer blocks.

    Args:
        layers: Paths of transformer blocks, or of what holds them; the middle of the network by default, as in the
            papers.
    """

    layers: tuple[str, ...] = ("mid_block",)

    def hooks(self, unet: nn.Module, size: Grid, **states: Tensor) -> Iterator[RemovableHandle]:
        r"""See :class:`Change`. `rows` :math:`(B)`, if given, says which samples are perturbed."""
        rows = states.get("rows")

        def choose(new: Tensor, old: Tensor) -> Tensor:
            return new if rows is None else torch.where(rows.view(-1, 1, 1), new, old)

        at = grids(unet, size, "block")
        for place, (name, block) in enumerate(select(unet, "block", self.layers).items()):
            yield from self.perturb(block, at[name], choose, place)

    @abstractmethod
    def perturb(self, block: Any, grid: Grid, choose: Choose, place: int) -> Iterator[RemovableHandle]:
        r"""The hooks on one transformer block of diffusers, which attends on a `grid` (height, width).

        `choose(new, old)` gives what each sample is to go on with; `place` counts the blocks.
        """


@dataclass(frozen=True, kw_only=True)
class Identity(Perturbation):
    r"""Self-attention in which each point attends to itself alone: its output are its values (PAG)."""

    def perturb(self, block: Any, grid: Grid, choose: Choose, place: int) -> Iterator[RemovableHandle]:
        values: list[Tensor] = []
        yield block.attn1.to_v.register_forward_hook(lambda layer, args, found: values.append(found))
        yield block.attn1.to_out[0].register_forward_pre_hook(lambda layer, args: (choose(values.pop(), args[0]),))


@dataclass(frozen=True, kw_only=True)
class Blur(Perturbation):
    r"""Self-attention whose queries are blurred over the picture (SEG).

    Args:
        sigma: Of the Gaussian, in points of the layer's map; infinity takes the mean of all. The kernel reaches to
            :math:`3 \sigma`, and no further than half the map; the map is reflected at its edges.
    """

    sigma: float = math.inf

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise DNPError(f"the blur of the queries is a positive number or inf, not {self.sigma}")

    def perturb(self, block: Any, grid: Grid, choose: Choose, place: int) -> Iterator[RemovableHandle]:
        def blurred(layer: nn.Module, args: Any, q: Tensor) -> Tensor:
            planes = q.mT.unflatten(-1, grid)
            return choose(blur(planes, self.sigma).flatten(-2).mT, q)

        yield block.attn1.to_q.register_forward_hook(blurred)


@dataclass(frozen=True, kw_only=True)
class Skip(Perturbation):
    r"""Transformer blocks that are left out (skip-layer guidance, SLG): what goes in comes out."""

    def perturb(self, block: Any, grid: Grid, choose: Choose, place: int) -> Iterator[RemovableHandle]:
        def skipped(layer: nn.Module, args: Any, kwargs: Any, found: Tensor) -> Tensor:
            return choose(argument(args, kwargs, 0, "hidden_states"), found)

        yield block.register_forward_hook(skipped, with_kwargs=True)


@dataclass(frozen=True, kw_only=True)
class Shuffle(Perturbation):
    r"""Transformer blocks whose points come in another order (TPG), which keeps all norms.

    Args:
        seed: Of the orders: each block has its own, the same at each step and for each sample, so that a picture does
            not depend on its batch.
    """

    seed: int = 0

    def perturb(self, block: Any, grid: Grid, choose: Choose, place: int) -> Iterator[RemovableHandle]:
        drawn = torch.Generator().manual_seed(1000 * self.seed + place)
        order = torch.randperm(grid[0] * grid[1], generator=drawn)

        def shuffled(layer: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
            hidden = argument(args, kwargs, 0, "hidden_states")
            return (choose(hidden[:, order.to(hidden.device)], hidden), *args[1:]), {
                name: value for name, value in kwargs.items() if name != "hidden_states"
            }

        yield block.register_forward_pre_hook(shuffled, with_kwargs=True)


PERTURBED: dict[str, Perturbation] = {"identity": Identity(), "blur": Blur(), "skip": Skip(), "shuffle": Shuffle()}
r"""The perturbations by the names that conditions and formulas have for them."""


def blur(planes: Tensor, sigma: float) -> Tensor:
    r"""A Gaussian blur of :math:`(B, C, H, W)`; infinity gives each plane its mean everywhere."""
    if math.isinf(sigma):
        return planes.mean((-2, -1), keepdim=True).expand_as(planes)
    channels = planes.shape[1]
    for axis in (-2, -1):
        reach = min(math.ceil(6 * sigma) // 2, planes.shape[axis] // 2, planes.shape[axis] - 1)
        line = torch.arange(-reach, reach + 1, device=planes.device, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (line / sigma) ** 2)
        kernel = (kernel / kernel.sum()).to(planes.dtype).view((1, 1, -1, 1) if axis == -2 else (1, 1, 1, -1))
        pad = (0, 0, reach, reach) if axis == -2 else (reach, reach, 0, 0)
        planes = F.conv2d(F.pad(planes, pad, mode="reflect"), kernel.expand(channels, -1, -1, -1), groups=channels)
    return planes


def together(conditions: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    r"""The same conditions, such that the perturbed one is evaluated in one batch with the others.

    Otherwise it has a forward of its own, which takes less memory. The samples that are not perturbed stay as they are.

    Raises:
        DNPError: Not one perturbation is asked for, but none or several.
    """
    changes = {
        name: change(condition["attention"]) for name, condition in conditions.items() if "attention" in condition
    }
    found = list(dict.fromkeys(changes.values()))
    if len(found) != 1 or not isinstance(found[0], Perturbation):
        raise DNPError(f"one batch takes one perturbation: here there are {len(found)}; leave them apart")
    result = {}
    for name, condition in conditions.items():
        leaves = [leaf for leaf in flatten(condition).values() if isinstance(leaf, Tensor)]
        rows = torch.tensor([name in changes], device=leaves[0].device if leaves else None)
        result[name] = {**condition, "attention": {"change": found[0], "rows": rows}}
    return result


def change(attention: Any) -> Change:
    r"""What a condition's `attention` asks for, by its name or as it is.

    Raises:
        DNPError: It is nothing that can be done to attention.
    """
    asked = attention.get("change") if isinstance(attention, Mapping) else attention
    found = PERTURBED.get(asked) if isinstance(asked, str) else asked
    if not isinstance(found, Change):
        raise DNPError(f"attention={asked!r} is none of {', '.join(PERTURBED)}, nor a change of attention")
    return found
