r"""What every guidance is: one method, and what follows from it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .conditions import Conditions
from .denoiser import Execution, GuidedDenoiser, Trace
from .errors import GuidanceError
from .notation import labels, scalar
from .weights import as_weight


class Evaluator(Protocol):
    r"""What a guidance may ask: predictions of the denoiser, at any `x` and `sigma`."""

    def __call__(self, names: Iterable[str], x: Tensor, sigma: Tensor) -> Mapping[str, Tensor]:
        r"""The denoised predictions :math:`D(x; \sigma, c)` :math:`(B, ...)`, in float32 or more, by name."""
        ...

    def same(self, name: str) -> str:
        r"""The first name that carries the same condition as `name`."""
        ...


class Guidance(ABC):
    r"""What to ask of a denoiser at one :math:`(x, \sigma)`, and how to combine the answers.

    A strategy is a frozen dataclass with :meth:`denoised`; its name and fields give it `repr`, text and JSON.
    """

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        r"""The conditions it needs."""

    @abstractmethod
    def denoised(self, evaluate: Evaluator, x: Tensor, sigma: Tensor) -> Tensor:
        r"""The guided prediction of :math:`x_0`.

        Args:
            evaluate: Evaluates the denoiser; what is not asked is not paid.
            x: The noisy samples :math:`(B, ...)`.
            sigma: The noise levels :math:`(B)`.

        Returns:
            The denoised samples :math:`(B, ...)`. Samples must not influence each other.
        """

    @abstractmethod
    def rename(self, **names: str) -> Guidance:
        r"""The same guidance of other conditions, all names substituted at once.

        Raises:
            GuidanceError: Where a name to be replaced does not occur, and is not prompt, negative or empty.
        """

    @abstractmethod
    def latex(self) -> str:
        r"""The formula in LaTeX's mathematics, without dollars."""

    @property
    def samples(self) -> int:
        r"""The batch size that its per-sample scales are for, 1 where it has none."""
        return 1

    def wrap(
        self,
        denoiser: Callable[..., Tensor],
        execution: Execution = "batched",
        trace: Trace | None = None,
    ) -> GuidedDenoiser:
        r"""The guided denoiser, for any k-diffusion sampler: see :class:`GuidedDenoiser`."""
        return GuidedDenoiser(denoiser, self, execution, trace)

    def evaluations(self, sigmas: Tensor | Sequence[float], **conditions: Mapping[str, Any]) -> int:
        r"""How many predictions per sample a run over `sigmas` evaluates, with one denoiser call at each.

        Found by running the guidance itself with an evaluator that only counts. The zero that ends a schedule
        is not counted, since no denoiser is called there. Samplers that call twice a step (Heun, DPM-2) pay
        more.

        Args:
            sigmas: The noise levels :math:`(N)`.
            conditions: If given, those that are the same are counted once, as they are when sampling.
        """
        counter = _Counter(Conditions(conditions).aliases)
        x = torch.linspace(-1, 1, self.samples * 64).view(self.samples, 1, 8, 8)
        for sigma in torch.as_tensor(sigmas).flatten():
            if sigma > 0:
                self.denoised(counter, x.to(sigma.device), sigma.expand(self.samples))
        return counter.count

    def source(self) -> tuple[str, dict[str, Any]]:
        r"""The text that :func:`parse` reads back, and the values of its scales that are not numbers."""
        first, *_ = fields = dataclasses.fields(self)  # type: ignore[arg-type]
        weights = {f: as_weight(v) for f in fields if (v := getattr(self, f.name)) is not f.default}
        names = labels(weights.values())
        arguments = []
        for field, weight in weights.items():
            keyword = "" if field is first else field.metadata.get("argument", field.name) + "="
            arguments.append(keyword + "".join(scalar(weight, names)))
        text = f"{type(self).__name__}({', '.join(arguments)})"
        return text, {label: atom.value for atom, label in names.items()}

    def to_json(self) -> dict[str, Any]:
        r"""A dictionary for :func:`json.dumps`; :func:`from_json` reads it back.

        Raises:
            GuidanceError: Where a scale is a function, which has no JSON.
        """
        text, values = self.source()
        for name, value in values.items():
            if not isinstance(value, Tensor):
                raise GuidanceError(f"the scale {name} of {text!r} is a function and has no JSON: use numbers")
        listed = {name: value.tolist() for name, value in values.items()}
        return {"guidance": text} | ({"values": listed} if listed else {})

    def __str__(self) -> str:
        return self.source()[0]

    def __repr__(self) -> str:
        text, values = self.source()
        if not values and "/" not in text:  # 1/3 is exact for parse, not for Python
            return text
        return f"parse({', '.join([repr(text), *(f'{name}={value!r}' for name, value in values.items())])})"

    def _repr_latex_(self) -> str:
        return f"${self.latex()}$"


class _Counter:
    r"""An evaluator that counts what it is asked and answers with `x`."""

    def __init__(self, aliases: Mapping[str, str]) -> None:
        self.aliases = aliases
        self.count = 0

    def same(self, name: str) -> str:
        return self.aliases.get(name, name)

    def __call__(self, names: Iterable[str], x: Tensor, sigma: Tensor) -> Mapping[str, Tensor]:
        asked = tuple(names)
        self.count += len({self.same(name) for name in asked})
        return dict.fromkeys(asked, x)
