r"""What a guidance may ask of the denoiser, and what it may remember of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from ..samplewise import per_sample

State = tuple[Tensor, ...]


class Evaluator(Protocol):
    r"""What a guidance may ask: predictions of the denoiser, at any `x` and `sigma`."""

    memory: Memory
    r"""What the guidance itself kept at the calls before this one."""

    def __call__(self, names: Iterable[str], x: Tensor, sigma: Tensor) -> Mapping[str, Tensor]:
        r"""The denoised predictions :math:`D(x; \sigma, c)` :math:`(B, ...)`, in float32 or more, by name.

        The same condition at the same `x` and `sigma` (the same tensors) is evaluated once a call.
        """
        ...

    def same(self, name: str) -> str:
        r"""The first name that carries the same condition as `name`."""
        ...


class Rule(Protocol):
    r"""What the denoiser serves: a guidance, of which it knows no more than this."""

    @property
    def names(self) -> tuple[str, ...]:
        r"""The conditions it needs."""

    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        r"""The guided prediction :math:`(B, ...)` at the noisy `x` :math:`(B, ...)` and levels `sigma` :math:`(B)`."""
        ...


class CachingEvaluator(ABC):
    r"""An evaluator that asks for each prediction once, and counts.

    Args:
        aliases: The first name with the same condition, by name.
        memory: What lasts from one call of the guided denoiser to the next.
    """

    def __init__(self, aliases: Mapping[str, str], memory: Memory) -> None:
        self.aliases = aliases
        self.memory = memory
        self.count = 0
        self._known: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []

    def same(self, name: str) -> str:
        return self.aliases.get(name, name)

    def __call__(self, names: Iterable[str], x: Tensor, sigma: Tensor) -> Mapping[str, Tensor]:
        asked = {name: self.same(name) for name in names}
        found = [found for y, level, found in self._known if y is x and level is sigma]
        if not found:
            found = [{}]
            self._known.append((x, sigma, found[0]))
        known = found[0]
        if new := [name for name in dict.fromkeys(asked.values()) if name not in known]:
            self.count += len(new)
            known.update(self.predict(new, x, sigma))
        return {name: known[same] for name, same in asked.items()}

    @abstractmethod
    def predict(self, names: list[str], x: Tensor, sigma: Tensor) -> Mapping[str, Tensor]:
        r"""The predictions of conditions that all differ."""


class Memory:
    r"""Tensors that a guidance carries from one noise level down to the next, for each sample by itself.

    A noise level that rises begins a new run. A second call at one level (as Heun's) takes the place of the
    first.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Tensor, State, State]] = {}
        self._parts: dict[Hashable, Memory] = {}

    def part(self, key: Hashable) -> Memory:
        r"""A memory of its own, for the same guidance of other conditions."""
        return self._parts.setdefault(key, Memory())

    def before(self, key: Hashable, sigma: Tensor, start: State) -> State:
        r"""What was kept at the last noise level above `sigma` :math:`(B)`, or `start` :math:`(B, ...)`."""
        last, now, before = self._kept.get(key, (None, start, start))
        if last is None or any(a.shape != b.shape for a, b in zip((last, *now), (sigma, *start), strict=True)):
            return start
        last = last.to(sigma)

        def choose(new: Tensor, kept: Tensor, older: Tensor) -> Tensor:
            falls, stays = (per_sample(where, new) for where in (sigma < last, sigma == last))
            return torch.where(falls, kept.to(new), torch.where(stays, older.to(new), new))

        return tuple(map(choose, start, now, before))

    def keep(self, key: Hashable, sigma: Tensor, now: State, before: State) -> None:
        r"""Keeps `now` for the next level; `before` is what :meth:`before` gave at this one."""
        self._kept[key] = sigma.detach(), tuple(v.detach() for v in now), tuple(v.detach() for v in before)
