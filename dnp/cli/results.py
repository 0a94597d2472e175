"""`dnp score`, `dnp report` and `dnp show`: what is said of pictures that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from dnp.cli.kinds import Names
from dnp.cli.options import Command, described, option, say, takes

_FOLDER = click.argument("folder", type=click.Path(path_type=Path))


def _metrics() -> str:
    from eval.metrics.registry import METRICS

    return described({name: entry.says for name, entry in METRICS.items()})


@click.command("score", cls=Command)
@_FOLDER
@takes(
    option("--metrics", type=Names(), show_default="what suits the model", help="Names with commas.", lists=_metrics),
    option("--clip", metavar="NAME|DIR", help="A checkpoint of open_clip, such as ViT-B-16/openai, or its folder."),
    option("--classifier", metavar="FILE", help="Weights of torch-fidelity's Inception network, for inception."),
)
@click.pass_context
def score(ctx: click.Context, folder: Path, metrics: list[str] | None, **options: Any) -> None:
    """Score the pictures in FOLDER against their prompts, and write scores.csv.

    Exit status 1 means that something was left out: it is named, and the rest is scored.

    \b
    dnp score out/sweep
    dnp score out/sweep --metrics clip,appearance --clip ViT-L-14/openai
    """
    from dnp.experiments.scoring import score_run

    if not score_run(folder, metrics or (), say=say, **options):
        ctx.exit(1)


@click.command("report", cls=Command)
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@takes(
    option("--baseline", default="plain", metavar="ARM", help="The arm that the others are compared with."),
    option("--paper", is_flag=True, help="Write the paper's Tables 1, 2a and 2b over all FOLDERs, into the first."),
)
def report(folders: tuple[Path, ...], baseline: str, paper: bool) -> None:
    """Write what the scores in each FOLDER say: report.html, report.md and report.csv.

    \b
    dnp report out/sweep
    dnp report out/sweep --baseline universal
    dnp report out/ae out/humans out/hands --paper
    """
    from eval import report as wing

    for page in [wing.paper(folders, baseline)] if paper else [wing.report(folder, baseline) for folder in folders]:
        say(f"{page}")


@click.command("show", cls=Command)
@click.argument("path", type=click.Path(path_type=Path))
@takes(option("--json", "as_json", is_flag=True, help="The whole record, as JSON."))
def show(path: Path, as_json: bool) -> None:
    """Print what made a picture, or the pictures in a folder.

    \b
    dnp show out/generate
    dnp show out/generate/00000-dnp.png --json
    """
    from dnp.runs.record import read_record
    from eval.manifest import read_run
    from eval.text import visible

    records = read_run(path) if path.is_dir() else [read_record(path) | {"path": path.name}]
    for record in records:
        if as_json:
            click.echo(json.dumps(record, ensure_ascii=False))
            continue
        click.echo(visible(f"{record['path']}: {record['prompt']!r}, seed {record['seed']} ({record['arm']})"))
        rows = {
            "guidance": record["guidance"],
            "negative": record["negative_prompt"],
            "caption": record["caption"],
            "sampler": f"{record['sampler']}, {record['schedule']}, {record['steps']} steps, "
            f"{record['evaluations']} evaluations",
            "model": f"{record['model']} ({record['dtype']})",
        }
        for key, value in rows.items():
            if value:
                click.echo(visible(f"  {key:9} {value}"))
