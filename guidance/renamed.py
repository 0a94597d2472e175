r"""Any guidance, of other conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from .base import Argument, Guidance, wrapped
from .evaluator import Evaluator
from .formula import Linear, prediction
from .notation import order, substitution


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Renamed(Guidance):
    r"""A guidance whose conditions have other names, as in ``Renamed(APG(7.5), prompt=prediction("style"))``.

    It is what :meth:`Guidance.rename` makes of a guidance that is no weighted sum.

    Args:
        guidance: Any guidance.
        names: The conditions, or their names, by the names that they replace, all at once.

    Raises:
        GuidanceError: Where a name to be replaced does not occur, and is not prompt, negative or empty.
    """

    guidance: Guidance
    new: Mapping[str, str]

    def __init__(self, guidance: Guidance, **names: str | Linear) -> None:
        known = wrapped(guidance, "Renamed")
        plain = {old: name.names[0] if isinstance(name, Linear) else name for old, name in names.items()}
        new = {old: name for old, name in substitution(plain, known, guidance).items() if old in known and old != name}
        vars(self).update(guidance=guidance, new=new)
        self.__post_init__()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted({self.new.get(name, name) for name in self.guidance.names}, key=order))

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        return self.guidance.denoised(_Renaming(evaluate, self.guidance.names, self.new), x, sigma)

    def rename(self, **names: str) -> Guidance:
        new = substitution(names, self.names, self)
        now = {name: self.new.get(name, name) for name in self.guidance.names}
        return self.guidance.rename(**{name: new.get(now[name], now[name]) for name in now})

    def arguments(self) -> Mapping[str, Argument]:
        return {"": self.guidance} | {old: prediction(name) for old, name in self.new.items()}


class _Renaming:
    r"""An evaluator that is asked by the old names."""

    def __init__(self, evaluate: Evaluator, names: tuple[str, ...], new: Mapping[str, str]) -> None:
        self.evaluate = evaluate
        self.names = names
        self.new = new
        self.memory = evaluate.memory.part(frozenset(new.items()))

    def same(self, name: str) -> str:
        same = {self.evaluate.same(self.new.get(other, other)): other for other in reversed(self.names)}
        return same[self.evaluate.same(self.new.get(name, name))]

    def __call__(self, names: Iterable[str], x: Tensor, sigma: Tensor) -> Mapping[str, Tensor]:
        asked = {name: self.new.get(name, name) for name in names}
        found = self.evaluate(asked.values(), x, sigma)
        return {name: found[new] for name, new in asked.items()}
