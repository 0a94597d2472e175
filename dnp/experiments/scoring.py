"""Metrics for the pictures of a model, and the scoring of a run by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dnp.errors import DNPError
from dnp.models.locate import locate
from dnp.wording import counted
from eval.manifest import read_manifest
from eval.metrics.adherence import Adherence
from eval.metrics.appearance import Appearance
from eval.metrics.clip import Clip, ClipScore, MinObject
from eval.metrics.inception import Inception
from eval.metrics.metric import Metric
from eval.scores import score

METRICS = {
    "judge": "both things right, neglected, wrong attribute, by the drawn world's judge",
    "clip-min-object": "Attend-and-Excite's protocol: raw cosine with 80 templates, full prompt and worst thing",
    "clip": "raw cosine of picture and prompt, and Hessel's CLIPScore",
    "appearance": "contrast and saturation, which high scales push up",
    "inception": "Inception Score of each arm, mean and deviation over 10 splits",
}


def default_metrics(model: str) -> list[str]:
    """What suits a model: the judge's verdict for the embedded one's world, the scores of CLIP for all others."""
    return ["judge", "clip-min-object"] if (locate(model) / "judge").is_dir() else ["clip-min-object", "clip"]


def metrics_of(names: Sequence[str], model: str, clip: str | None = None) -> list[Metric]:
    """Metrics by name: "judge", "clip", "clip-min-object".

    Args:
        clip: A checkpoint; by default the one beside the model, or OpenAI's ViT-B/16 as Attend-and-Excite used it.

    Raises:
        DNPError: an unknown name, or no judge for this model. ValueError: no such checkpoint.
    """
    if unknown := [name for name in names if name not in METRICS]:
        raise DNPError(f"the metric {unknown[0]!r} is none of {', '.join(METRICS)}")
    try:
        folder: Path | None = locate(model)
    except DNPError:  # pictures by a model that is not here can be scored all the same
        folder = None
    beside = folder / "clip" if folder and (folder / "clip").is_dir() else None
    found: list[Metric] = []
    shared = None
    for name in names:
        if name == "judge":
            if not folder or not (folder / "judge").is_dir():
                raise DNPError(f"the metric judge is for the drawn world, and there is no judge beside {model!r}")
            found.append(Adherence(folder / "judge"))
            continue
        if name == "inception":
            continue
        if name == "appearance":
            found.append(Appearance())
            continue
        shared = shared or Clip(clip or beside or "ViT-B-16/openai")
        own = beside and not clip  # a CLIP of a world that has no photos: it knows none of the templates' words
        found.append(ClipScore(shared) if name == "clip" else MinObject(shared, ("{}",) if own else None))
    return found


def score_run(
    folder: Path,
    names: Sequence[str] = (),
    clip: str | None = None,
    classifier: str | None = None,
    say: Callable[[str], None] = print,
) -> bool:
    """Score a run with metrics by name, or with those that suit its model; whether everything could be scored.

    Raises:
        DNPError, ValueError: nothing can be scored, and why.
    """
    records = read_manifest(folder)
    model = next((record["model"] for record in records if record.get("model")), "none")
    try:
        names = names or default_metrics(model)
    except DNPError:
        names = ["clip-min-object", "clip"]
    chosen_metrics = metrics_of(names, model, clip)
    network = None
    if "inception" in names:
        if not classifier:
            raise DNPError("the metric inception needs a network: give torch-fidelity's weights with --classifier FILE")
        inception = Inception(classifier)
        network = (inception.name, inception)
    problems = score(folder, chosen_metrics, network)
    for line in problems[:20]:
        say(line)
    if problems:
        left = f"{counted(len(problems), 'value')} left out"
        say(left + (", the first 20 are above" if len(problems) > 20 else ""))
    say(f"scores in {folder / 'scores.csv'}: dnp report {folder}")
    return not problems
