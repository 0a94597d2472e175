"""The arms of a comparison: what each asks of the model, and where its negative prompt comes from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dnp.errors import DNPError
from dnp.experiments.negatives import SOURCES, Source, source
from dnp.runs.record import DNS

if TYPE_CHECKING:
    from dnp.models.defaults import Defaults
    from dnp.recipe import Sampling
    from guidance import Guidance


_ALSO = str.maketrans("", "", "-_@.+")  # allowed in the name of an arm


@dataclass(frozen=True)
class Known:
    """An arm with a name of its own.

    Args:
        about: A line for help and docs.
        negative: One of `SOURCES`.
        guidance: A formula; the model's default if there is none.
        attend: Whether its pictures are made with Attend-and-Excite.
    """

    about: str
    negative: str = "auto"
    guidance: str | None = None
    attend: bool = False


ARMS = {
    "plain": Known("classifier-free guidance (eq. 3)", "none", "CFG(s)"),
    "dnp": Known("diffusion-negative prompting by the model's default formula"),
    "dnp2": Known(
        "the same with the 2-evaluation negative prompt of most tools, n + s (p − n)",
        guidance="NegPrompt(s, evaluations=2)",
    ),
    "dnp3": Known(
        "the same with the paper's 3 evaluations, u + s (p − n) (eq. 4)", guidance="NegPrompt(s, evaluations=3)"
    ),
    "shuffled": Known(
        "as dnp, the captions shuffled between prompts: what having any such caption is worth", "shuffled"
    ),
    "universal": Known("as dnp, with the universal negative prompt", "universal"),
    "random": Known("as dnp, with a random caption: another prompt's words", "random"),
    "ae": Known("Attend-and-Excite (Chefer et al. 2023) on plain guidance", "none", "CFG(s)", attend=True),
    "ae+dnp": Known("Attend-and-Excite with diffusion-negative prompting", attend=True),
}


@dataclass(frozen=True)
class Arm:
    """One way to make a picture of a prompt.

    Args:
        guidance: A formula in s and w.
        negative: One of `SOURCES`, or a text.
        sampling, dns_sampling: Of the picture, and of the diffusion-negative one where it needs its caption.
        dns: The formula of the diffusion-negative picture.
        attend: Whether its pictures are made with Attend-and-Excite; diffusion-negative pictures never are.
    """

    name: str
    guidance: str
    negative: str
    scale: float
    strength: float
    sampling: Sampling
    dns: str
    dns_sampling: Sampling
    attend: bool = False

    @property
    def formula(self) -> Guidance:
        from guidance import parse

        return parse(self.guidance, s=self.scale, w=self.strength)

    @property
    def _source(self) -> tuple[str, Source]:
        return source(self.negative)

    @property
    def of_caption(self) -> bool:
        """Whether its negative prompts are captions, whatever its formula makes of them."""
        return self._source[1].captions is not None

    @property
    def source(self) -> tuple[str, Source]:
        """Where its negative prompts come from; nowhere if its formula has none, so that nothing is paid for them."""
        return self._source if "negative" in self.formula.names else ("none", SOURCES["none"])

    @property
    def way(self) -> tuple[str, Sampling]:
        """How the diffusion-negative pictures are made whose captions it takes."""
        return self.dns, self.dns_sampling

    def takes(self, scale: str) -> bool:
        """Whether the formula names "s" or "w"."""
        return re.search(rf"\b{scale}\b", self.guidance) is not None

    def settings(self) -> dict[str, Any]:
        """For `run.json`: everything that makes this arm's pictures what they are."""
        found = asdict(self) | {"formula": str(self.formula)}
        return found if self.attend else {name: value for name, value in found.items() if name != "attend"}


def arms(
    names: Sequence[str],
    own: Sequence[tuple[str, str, str]],
    how: Defaults,
    scales: dict[str, float] | None = None,
) -> list[Arm]:
    """The arms of `ARMS` by name, and those of one's own as (name, formula, negative), at a model's settings.

    Args:
        scales: Of an arm by its name; the model's default for the others.

    Raises:
        DNPError: an unknown name, one that occurs twice, a scale for an arm that is not there.
        GuidanceError: a formula is none.
    """
    rows = []
    for name in names:
        if not (known := ARMS.get(name)):
            raise DNPError(
                f"the arm {name!r} is none of {', '.join(ARMS)}: one of your own is --arm NAME FORMULA NEGATIVE"
            )
        rows.append((name, known.guidance or how.guidance, known.negative, known.attend))
    rows += [(*row, False) for row in own]
    from dnp.recipe import Sampling

    found: list[Arm] = []
    scales = scales or {}
    sampling = Sampling(how.sampler, how.schedule, how.steps)
    for name, guidance, negative, attend in rows:
        if name == DNS or not name.translate(_ALSO).isalnum():
            raise DNPError(f"the arm's name {name!r} cannot name a folder of pictures: use letters and digits")
        if name in (arm.name for arm in found):
            raise DNPError(f"the arm {name!r} is there twice: give each a name of its own")
        if not negative.strip():
            raise DNPError(f"the negative prompt of the arm {name!r} is empty: write none")
        arm = Arm(
            name,
            guidance,
            negative,
            scales.get(name, how.scale),
            how.strength,
            sampling,
            how.dns,
            Sampling(how.sampler, how.schedule, how.dns_steps),
            attend,
        )
        needs = set(arm.formula.names) - {"prompt", "empty"}
        if needs - {"negative"} or (needs and negative == "none"):
            raise DNPError(f"the arm {name!r}, {arm.formula}, needs a text for {sorted(needs)[0]!r}")
        found.append(arm)
    if unknown := [name for name in scales if name not in (arm.name for arm in found)]:
        raise DNPError(
            f"there is a scale for {unknown[0]!r}, which is none of the arms {', '.join(a.name for a in found)}"
        )
    return found
