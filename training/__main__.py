"""`python -m training`: makes the embedded model again from nothing; what is finished in the work folder is kept."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import click
import open_clip
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL
from torch import nn
from transformers import BlipForConditionalGeneration, BlipProcessor

from eval.metrics.judge import Judge
from eval.world import WORDS
from training import autoencoder, captioner, card, choose, contrastive, diffusion, judge, measure, pack, words
from training.data import Pictures, pictures
from training.loop import in_turn


@dataclass(frozen=True)
class Budget:
    """Pictures drawn, optimiser steps of each part, the share of wrong captions in the noisy steps, and the prompts and
    seeds of the measurements."""

    pictures: int = 24_000
    autoencoder: int = 2600
    judge: int = 1500
    captioner: int = 9000
    clip: int = 1200
    clean: int = 7800
    noisy: int = 900
    mismatched: float = 0.3
    prompts: int = 50
    seeds: int = 3


SMOKE = Budget(pictures=96, autoencoder=4, judge=4, captioner=4, clip=2, clean=4, noisy=2, prompts=1, seeds=2)
PARTS = ("autoencoder", "judge", "captioner", "clip", "diffusion")


class Training:
    """The trained parts; each is made on its first use, from a fixed seed, or taken from the work folder."""

    def __init__(self, work: Path, budget: Budget, start: Path | None = None) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.budget, self.start = work, budget, start
        self.tokenizer = words.build(WORDS)

    @cached_property
    def pictures(self) -> Pictures:
        with in_turn():
            return pictures(self.work, self.budget.pictures)

    @cached_property
    def autoencoder(self) -> AutoencoderKL:
        if self.start:
            return AutoencoderKL.from_pretrained(self.start / "vae", torch_dtype=torch.float32).requires_grad_(False)
        torch.manual_seed(0)
        return autoencoder.train(self.pictures, self.budget.autoencoder, self.work)

    @cached_property
    def judge(self) -> Judge:
        torch.manual_seed(0)
        return judge.train(self.pictures, self.budget.judge, self.work)

    @cached_property
    def captioner(self) -> tuple[BlipForConditionalGeneration, BlipProcessor]:
        torch.manual_seed(0)
        return captioner.train(self.pictures, self.budget.captioner, self.work)

    @cached_property
    def clip(self) -> open_clip.CLIP:
        torch.manual_seed(0)
        return contrastive.train(self.pictures, self.tokenizer, self.budget.clip, self.work)

    @cached_property
    def diffusion(self) -> nn.ModuleDict:
        drawn, autoencoder = self.pictures, self.autoencoder
        with in_turn():
            latents = diffusion.encode(drawn, autoencoder, self.work)
        torch.manual_seed(0)
        return diffusion.train(
            drawn,
            latents,
            autoencoder,
            self.tokenizer,
            self.budget.clean,
            self.budget.noisy,
            self.work,
            mismatched=self.budget.mismatched,
            start=self.start,
        )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("dnp/embedded"),
    show_default=True,
    help="Where the finished model goes.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("build/train"),
    show_default=True,
    help="Pictures, checkpoints, logs and sample grids; a stopped run goes on from here.",
)
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Train the U-Net and the text encoder of this finished model further; its other parts stay as they are.",
)
@click.option("--clean", type=click.IntRange(0), help="Steps of the diffusion model with right captions.")
@click.option("--noisy", type=click.IntRange(0), help="Steps after these in which some captions are wrong.")
@click.option("--mismatched", type=click.FloatRange(0, 1), help="The share of those that are: 0.3 unless given.")
@click.option("--smoke", is_flag=True, help="A few steps of everything, in about a minute: does it run?")
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Train these parts only, and write no model.")
def main(
    out: Path,
    work: Path,
    start: Path | None,
    clean: int | None,
    noisy: int | None,
    mismatched: float | None,
    smoke: bool,
    only: tuple[str, ...],
) -> None:
    """Train the embedded model: a drawn world's tiny Stable Diffusion, captioner, CLIP and judge."""
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    budget = SMOKE if smoke else Budget()
    given = {"clean": clean, "noisy": noisy, "mismatched": mismatched}
    budget = replace(budget, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    training = Training(work, budget, start)
    if start and set(only) - {"diffusion"}:
        raise click.UsageError("--from trains the diffusion model further, no other part: leave --only out")
    for name in only or (("diffusion",) if start else PARTS):
        getattr(training, name)
    if not only and (not dist.is_initialized() or dist.get_rank() == 0):
        steps = card.history(start) + [(budget.clean, budget.noisy, budget.mismatched)]
        if start:
            pack.further(out, start, training.diffusion)
        else:
            pack.write(
                out,
                training.tokenizer,
                training.autoencoder,
                training.diffusion,
                training.judge,
                training.captioner,
                training.clip,
            )
        found = choose.choose(out, budget.prompts, budget.seeds)
        unseen = pictures(work, min(512, budget.pictures), seed=1)
        card.write(out, measure.parts(out, unseen), found, budget, steps)
        click.echo((out / "README.md").read_text())


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
