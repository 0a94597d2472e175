r"""What every guidance is: one method, and what follows from it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Union

import torch
from torch import Tensor

from .conditions import Conditions
from .denoiser import Execution, GuidedDenoiser, Trace
from .errors import GuidanceError
from .evaluator import CachingEvaluator, Evaluator, Memory
from .notation import labels, order, scalar
from .weights import Atom, Schedule, Weight, as_weight

_NOT_SCALED = "a prediction cannot be scaled, weights must sum to one: scale a difference, as in u + 7.5*(p - n)"
Argument = Union[Weight, "Guidance"]


class Guidance(ABC):
    r"""What to ask of a denoiser at one :math:`(x, \sigma)`, and how to combine the answers.

    A strategy is a frozen dataclass with :meth:`denoised`; its name and fields, which are scales and guidances,
    give it `repr`, text, JSON and equality. Where it is no weighted sum, only a direction can be added to it.
    """

    # numpy's numbers must leave the multiplication to us instead of looping over us.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        self.names  # noqa: B018  what wraps no guidance fails where it is made
        if len(sizes := self._sizes()) > 1:  # a stack that could never run fails where it is made
            raise GuidanceError(f"the per-sample scales are for batches of {' and '.join(map(str, sorted(sizes)))}")

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

    def rename(self, **names: str) -> Guidance:
        r"""The same guidance of other conditions, all names substituted at once.

        Raises:
            GuidanceError: Where a name to be replaced does not occur, and is not prompt, negative or empty.
        """
        from .renamed import Renamed

        renamed = Renamed(self, **names)
        return renamed if renamed.new else self

    def arguments(self) -> Mapping[str, Argument]:
        r"""What it is made of, by keyword ("" for the first); what has its default value is left out."""
        found: dict[str, Argument] = {}
        for index, field in enumerate(dataclasses.fields(self)):  # type: ignore[arg-type]
            if (value := _argument(getattr(self, field.name))) not in (None, _argument(field.default)):
                found[field.metadata.get("argument", field.name) if index else ""] = value
        return found

    def latex(self) -> str:
        r"""The formula in LaTeX's mathematics, without dollars."""
        names = labels(self.scales())
        arguments = []
        for keyword, value in self.arguments().items():
            text = value.latex() if isinstance(value, Guidance) else "".join(scalar(value, names, latex=True))
            arguments.append(rf"\mathrm{{{keyword}}} = {text}" if keyword else text)
        return rf"\operatorname{{{type(self).__name__}}}\left({', '.join(arguments)}\right)"

    @property
    def samples(self) -> int:
        r"""The batch size that its per-sample scales are for, 1 where it has none."""
        return max(self._sizes(), default=1)

    def _sizes(self) -> set[int]:
        return {len(a.value) for weight in self.scales() for a in weight.atoms if isinstance(a.value, Tensor)}

    def scales(self) -> Iterator[Weight]:
        r"""All scales, those of the guidances inside it too."""
        for value in self.arguments().values():
            if isinstance(value, Guidance):
                yield from value.scales()
            else:
                yield value

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
        aliases = Conditions(conditions).aliases
        memory, count = Memory(), 0
        x = torch.linspace(-1, 1, self.samples * 64).view(self.samples, 1, 8, 8)
        for sigma in torch.as_tensor(sigmas).flatten() + 0.0:  # whole numbers too are noise levels
            if sigma > 0:
                counter = _Counter(aliases, memory)
                self.denoised(counter, x.to(sigma.device), sigma.expand(self.samples))
                count += counter.count
        return count

    def source(self) -> tuple[str, dict[str, Any]]:
        r"""The text that :func:`parse` reads back, and the values of its scales that are not numbers."""
        names = labels(self.scales())
        values = {label: atom.value for atom, label in names.items() if not isinstance(atom.value, Schedule)}
        return self.written(names), values

    def written(self, names: Mapping[Atom, str]) -> str:
        r"""The text, with these `names` for the scales that are not numbers."""
        arguments = []
        for keyword, value in self.arguments().items():
            text = value.written(names) if isinstance(value, Guidance) else "".join(scalar(value, names))
            arguments.append(f"{keyword}={text}" if keyword else text)
        return f"{type(self).__name__}({', '.join(arguments)})"

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
        if not values and not {"/", "ε"} & {*text}:  # 1/3 is exact for parse, not for Python
            return text
        return f"parse({', '.join([repr(text), *(f'{name}={value!r}' for name, value in values.items())])})"

    def _repr_latex_(self) -> str:
        return f"${self.latex()}$"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Guidance):
            return NotImplemented
        return type(self) is type(other) and self.arguments() == other.arguments()

    def __hash__(self) -> int:
        return hash((type(self), frozenset(self.arguments().items())))

    def __add__(self, other: Any) -> Guidance:
        from .added import Added

        added = Added(self, other)
        return added if added.direction.weights else self

    def __sub__(self, other: Any) -> Any:
        from .formula import Direction

        return self + (-other if isinstance(other, Direction) else other)

    def __radd__(self, other: Any) -> Guidance:
        return self.__add__(other)

    def __rsub__(self, other: Any) -> NoReturn:
        refuse(f"a guidance cannot be subtracted from {other!r}: only predictions and directions can")

    def __mul__(self, other: Any) -> NoReturn:
        refuse(_NOT_SCALED)

    def __neg__(self) -> NoReturn:
        refuse(_NOT_SCALED)

    __rmul__ = __truediv__ = __mul__


class _Counter(CachingEvaluator):
    r"""An evaluator that only counts what it is asked, and answers with `x`."""

    def predict(self, names: list[str], x: Tensor, sigma: Tensor) -> Mapping[str, Tensor]:
        return dict.fromkeys(names, x)


def _argument(value: Any) -> Argument | None:
    r"""The value of a field, to be compared and written; None where there is none."""
    if value is None or value is dataclasses.MISSING or isinstance(value, Guidance):
        return value if isinstance(value, Guidance) else None
    return as_weight(value)


def wrapped(guidance: Any, name: str, *others: str) -> tuple[str, ...]:
    r"""The conditions of what a guidance called `name` wraps, and `others`.

    Raises:
        GuidanceError: Where it is no guidance.
    """
    if not isinstance(guidance, Guidance):
        refuse(f"{name} wraps a guidance, as in {name}(CFG(7.5), ...), not {guidance!r}")
    return tuple(sorted({*guidance.names, *others}, key=order))


def refuse(why: str) -> NoReturn:
    raise GuidanceError(why)
