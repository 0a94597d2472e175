"""The arms of a comparison: what each asks of the model, and where its negative prompt comes from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dnp.errors import DNPError
from dnp.models.defaults import Defaults
from dnp.recipe import Sampling
from eval import world
from eval.manifest import CAPTIONED
from guidance import Guidance, parse

SOURCES = {
    "none": "no negative prompt",
    "auto": "the caption of the diffusion-negative picture",
    "auto-without-prompt": "such a caption without the prompt's own words",
    "auto-background": "of such a caption only what it says of the background, in the drawn world's grammar",
    "shuffled": "such a caption, but that of another prompt of the same category and the same seed",
    "universal": "one list for all pictures",
    "random": "a prompt of another set, drawn by prompt and seed",
}
_FUNCTION_WORDS = frozenset(
    "a an the and or but of on in at by to for from with without near next over under behind before beside between "
    "into onto its his her their some is are it this that there".split()
)
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
        return self.negative in CAPTIONED

    def takes(self, scale: str) -> bool:
        """Whether the formula names "s" or "w"."""
        return re.search(rf"\b{scale}\b", self.guidance) is not None

    def part(self, caption: str, prompt: str) -> str:
        """What the arm uses of a caption; "" is no negative prompt."""
        if self.negative == "auto-without-prompt":
            return without(caption, prompt)
        return background(caption) if self.negative == "auto-background" else caption

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


def without(caption: str, prompt: str) -> str:
    """A caption without a prompt's words, but for articles, prepositions and the like; "" where none is left.

    >>> without("a red circle on a dotted pink background", "a red circle and a blue square")
    'a dotted pink background'
    """
    dropped = {_key(word) for word in prompt.split()} - _FUNCTION_WORDS
    kept: list[str] = []
    before: list[str] = []  # what stands before the next word that counts
    gap = False
    for word in caption.split():
        if _key(word) in _FUNCTION_WORDS:
            before, gap = [*before[: 0 if gap else None], word], False
        elif _key(word) in dropped:
            gap = True
        else:
            kept, before, gap = [*kept, *before, word], [], False
    # What is left of "a red circle on a dotted background" begins with the words that joined it to the circle.
    while len(kept) > 1 and {_key(kept[0]), _key(kept[1])} <= _FUNCTION_WORDS:
        del kept[0]
    return " ".join(kept)


def _key(word: str) -> str:
    return word.strip(".,;:!?\"'()").casefold()


def background(caption: str) -> str:
    """Of a caption of the drawn world what it says of the background; "" where it says nothing of it, or is none."""
    try:
        return world.describe(replace(world.parse(caption), things=()))
    except ValueError:
        return ""
