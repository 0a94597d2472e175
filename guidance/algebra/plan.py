r"""Weights at a step: what a rule multiplies its predictions by."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from ..host import peek
from .weights import Atom, Scale, Weight, as_float, as_weight

# Below this, a weight computed at run time (1 - s for a float32 s) counts as zero and saves its evaluation.
NEGLIGIBLE = 1e-6


class Plan:
    r"""What several weights need at every step, worked out once.

    Args:
        weights: The weights by name.

    Raises:
        GuidanceError: If a weight is larger than a float can hold.
    """

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        self.atoms = list(dict.fromkeys(atom for weight in weights.values() for atom in weight.atoms))
        self.sums = {
            name: [(as_float(c), [self.atoms.index(atom) for atom in atoms]) for c, atoms in weight.products]
            for name, weight in weights.items()
        }

    def __call__(self, x: Tensor, sigma: Tensor) -> dict[str, float | Tensor]:
        r"""Each weight for `x` :math:`(B, ...)` at `sigma` :math:`(B)`: a number, or a tensor that broadcasts to `x`.

        A weight of functions of :math:`\sigma` that vanishes for all samples is the number 0.
        """
        found = [atom.at(x, sigma) for atom in self.atoms]
        live = [
            isinstance(atom.value, Tensor) or (isinstance(value, Tensor) and value.requires_grad)
            for atom, value in zip(self.atoms, found, strict=True)
        ]
        if any(isinstance(value, Tensor) and value.device == x.device for value in found):
            found = [_moved(value, x) for value in found]
        weights: dict[str, float | Tensor] = {}
        for name, products in self.sums.items():
            weights[name] = 0.0
            for c, atoms in products:
                term: float | Tensor = c
                for atom in atoms:
                    term = term * found[atom]
                weights[name] = weights[name] + term
        used = {name: [i for _, atoms in products for i in atoms] for name, products in self.sums.items()}
        fades = [name for name, atoms in used.items() if atoms and not any(live[i] for i in atoms)]
        weights.update(_vanishing({name: weights[name] for name in fades}))
        return {name: _moved(value, x) for name, value in weights.items()}


def _moved(value: float | Tensor, x: Tensor) -> float | Tensor:
    # A blocking copy would wait for the device.
    return value.to(x.device, non_blocking=True) if isinstance(value, Tensor) else value


def _vanishing(weights: Mapping[str, float | Tensor]) -> dict[str, float]:
    r"""Zeros for those of `weights` that are negligible for all samples."""
    zeros = {name: 0.0 for name, value in weights.items() if isinstance(value, float) and abs(value) <= NEGLIGIBLE}
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    if tensors:
        counts = peek(torch.stack([(value.abs() > NEGLIGIBLE).any() for value in tensors.values()]))
        zeros |= {name: 0.0 for name, counted in zip(tensors, counts or [], strict=bool(counts)) if not counted}
    return zeros


def at(scale: Scale, x: Tensor, sigma: Tensor, less: float = 0) -> float | Tensor:
    r"""One scale minus `less` for `x` :math:`(B, ...)` at `sigma` :math:`(B)`, as :class:`Plan` gives its weights."""
    if isinstance(scale, (int, float, Fraction)):
        value = float(scale) - less
        return value if not less or abs(value) > NEGLIGIBLE else 0.0
    if isinstance(scale, Tensor):
        return _moved(Atom(scale).at(x, sigma), x) - less
    return Plan({"": as_weight(scale) - as_weight(less)})(x, sigma)[""]


def vanishes(value: float | Tensor) -> bool:
    r"""Whether a weight is known to be zero for all samples, so that what it multiplies need not be evaluated."""
    return not isinstance(value, Tensor) and value == 0
