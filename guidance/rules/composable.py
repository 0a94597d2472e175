r"""Several prompts at once, each with its weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ..algebra.direction import Direction
from ..algebra.expression import Argument
from ..algebra.formula import Formula, Linear, prediction
from ..algebra.notation import condition_name
from ..algebra.weights import Scale, Weight, as_weight
from ..errors import GuidanceError


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Composable(Linear):
    r"""The conjunction (AND) of conditions that the user names, as in ``Composable(cat=7.5, hat=3, rain=-2)``.

    .. math:: \hat\epsilon = \epsilon_\theta(z_t, \varnothing)
        + \sum_i w_i \, (\epsilon_\theta(z_t, c_i) - \epsilon_\theta(z_t, \varnothing))

    A negative weight is the paper's NOT. The weights need not sum to anything: some tools divide by their sum,
    which fails if it is 0.

    Args:
        weights: The weight :math:`w_i` of each condition, by keyword or as one mapping.

    Raises:
        GuidanceError: If there is no weight, one is not a :class:`Scale`, or a name cannot be a keyword argument.

    References:
        | Compositional Visual Generation with Composable Diffusion Models (Liu et al., 2022),
        | https://arxiv.org/abs/2206.01714
    """

    weights: Mapping[str, Weight]

    def __init__(self, weights: Mapping[str, Scale] | Scale | None = None, **named: Scale) -> None:
        given = {**weights, **named} if isinstance(weights, Mapping) else {**named}
        if weights is not None and not isinstance(weights, Mapping):
            given["weights"] = weights  # a condition of that name
        if not given:
            raise GuidanceError("Composable takes a weight for each condition, as in Composable(cat=7.5, hat=3)")
        vars(self).update(weights={condition_name(name): as_weight(scale) for name, scale in given.items()})
        self.__post_init__()

    @cached_property
    def formula(self) -> Formula:
        u = prediction("empty")
        return u + sum(((prediction(name) - u) * weight for name, weight in self.weights.items()), start=Direction({}))

    def arguments(self) -> Mapping[str, Argument]:
        return self.weights
