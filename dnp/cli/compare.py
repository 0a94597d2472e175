"""`dnp compare`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from dnp.cli.kinds import Steps
from dnp.cli.options import COUNT, DEVICE, MODEL, STEP_COUNT, Command, option, takes
from dnp.limits import MOST_AT_ONCE


@click.command("compare", cls=Command)
@takes(
    MODEL,
    option("--random", metavar="sd15", help="That architecture with random weights instead, to measure speed alone."),
    DEVICE,
    option("--sampler", default="euler", metavar="euler|ddim", help="On Stable Diffusion's own steps."),
    option("--steps", type=STEP_COUNT, default=20),
    option("--batch", "batches", type=Steps(most=MOST_AT_ONCE), default="1,16", help="Pictures at a time."),
    option("--repeats", type=COUNT, default=20, help="Pairs of runs for each batch size."),
)
def compare(batches: Sequence[int], **options: Any) -> None:
    """Time our pipeline beside diffusers' own: same weights, noise, steps and batch, in turns in one process.

    With OMP_NUM_THREADS=1 other programs on the machine disturb least.

    \b
    dnp compare
    dnp compare --random sd15 --steps 2 --batch 1 --repeats 1          7 GiB of memory, minutes on a CPU
    """
    from dnp.speed.compare import compare as run

    run(batches=batches, **options)
