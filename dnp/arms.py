"""The arms of a comparison: what each asks of the model, and where its negative prompt comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dnp.errors import DNPError
from dnp.model import Defaults
from dnp.recipe import Sampling
from guidance import Guidance, parse

SOURCES = {
    "none": "no negative prompt",
    "auto": "the caption of the diffusion-negative picture",
    "shuffled": "such a caption, but that of another prompt of the same category and the same seed",
    "universal": "one list for all pictures",
    "random": "a prompt of another set, drawn by prompt and seed",
}
ARMS = {
    "plain": "classifier-free guidance (eq. 3)",
    "dnp": "diffusion-negative prompting by the model's default formula",
    "dnp2": "the same with the 2-evaluation negative prompt of most tools, n + s (p − n)",
    "dnp3": "the same with the paper's 3 evaluations, u + s (p − n) (eq. 4)",
    "shuffled": "as dnp, the captions shuffled between prompts: what having any such caption is worth",
    "universal": "as dnp, with the universal negative prompt",
    "random": "as dnp, with a random caption: another prompt's words",
}


@dataclass(frozen=True)
class Arm:
    """One way to make a picture of a prompt.

    Args:
        guidance: A formula in s and w.
        negative: One of `SOURCES`, or a text.
        sampling, dns_sampling: Of the picture, and of the diffusion-negative one where it needs its caption.
        dns: The formula of the diffusion-negative picture.
    """

    name: str
    guidance: str
    negative: str
    scale: float
    strength: float
    sampling: Sampling
    dns: str
    dns_sampling: Sampling

    @property
    def formula(self) -> Guidance:
        return parse(self.guidance, s=self.scale, w=self.strength)

    @property
    def of_caption(self) -> bool:
        return self.negative in ("auto", "shuffled")

    def settings(self) -> dict[str, Any]:
        """For `run.json`: everything that makes this arm's pictures what they are."""
        return asdict(self) | {"formula": str(self.formula)}


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
    guidances = {"plain": "CFG(s)", "dnp2": "NegPrompt(s, evaluations=2)", "dnp3": "NegPrompt(s, evaluations=3)"}
    rows = []
    for name in names:
        if name not in ARMS:
            raise DNPError(
                f"the arm {name!r} is none of {', '.join(ARMS)}: one of your own is --arm NAME FORMULA NEGATIVE"
            )
        source = {"plain": "none"}.get(name, name if name in SOURCES else "auto")
        rows.append((name, guidances.get(name, how.guidance), source))
    rows += own
    found: list[Arm] = []
    scales = scales or {}
    sampling = Sampling(how.sampler, how.schedule, how.steps)
    for name, guidance, negative in rows:
        if name == "dns" or not name.replace("-", "").replace("_", "").replace("@", "").replace(".", "").isalnum():
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
