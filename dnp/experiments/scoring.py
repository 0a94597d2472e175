"""The scoring of a run by metrics that suit the model that made it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dnp.errors import DNPError
from dnp.models.locate import locate
from dnp.wording import counted
from eval.manifest import read_manifest
from eval.metrics.registry import Given, defaults, make
from eval.scores import score

_SHOWN = 20


def needs(model: str, clip: str | None = None, classifier: str | None = None) -> Given:
    """What metrics may use of a model; pictures by one that is not here can be scored all the same."""
    try:
        return Given(locate(model), clip, classifier)
    except DNPError:
        return Given(None, clip, classifier)


def score_run(
    folder: Path,
    names: Sequence[str] = (),
    clip: str | None = None,
    classifier: str | None = None,
    also: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> bool:
    """Score a run, by default with the metrics that suit its model.

    Args:
        names: Of metrics; what suits the model by default.
        clip, classifier: See `eval.metrics.registry.Given`.
        also: Metrics beside these.
        say: Takes what was left out, a line each.

    Returns:
        Whether everything could be scored.

    Raises:
        DNPError, ValueError: nothing can be scored, and why.
    """
    model = next((record["model"] for record in read_manifest(folder) if record.get("model")), "none")
    there = needs(model, clip, classifier)
    problems = score(folder, make([*(names or defaults(there)), *also], there))
    for line in problems[:_SHOWN]:
        say(line)
    if problems:
        left = f"{counted(len(problems), 'value')} left out"
        say(f"{left}, the first {_SHOWN} of them above" if len(problems) > _SHOWN else left)
    say(f"scores in {folder / 'scores.csv'}: dnp report {folder}")
    return not problems
