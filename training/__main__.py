"""`python -m training`: makes the embedded model again from nothing; what is finished in the work folder is kept."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import click
import numpy as np
import open_clip
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL
from torch import nn
from transformers import BlipForConditionalGeneration, BlipProcessor

from dnp.models.stable_diffusion import StableDiffusion
from eval.metrics.judge import Judge
from eval.prompts import prompt_set
from eval.world import WORDS
from training import (
    autoencoder,
    captioner,
    card,
    choose,
    contrastive,
    diffusion,
    drawings,
    judge,
    measure,
    pack,
    words,
)
from training.data import Pictures, pictures
from training.loop import in_turn


@dataclass(frozen=True)
class Budget:
    """Pictures drawn, and how many of them the diffusion model and (after the autoencoder) the others see; optimiser
    steps of each part; the share of wrong captions in the second cycle; prompts (of a category) and seeds of the
    measurements."""

    pictures: int = 32_000
    latents: int = 20_000
    again: int = 4000
    crops: int = 2000
    whole: int = 550
    decoder: int = 400
    judge: int = 2000
    judge_again: int = 500
    judge2: int = 900
    judge2_again: int = 1800
    captioner: int = 1800
    clip: int = 400
    clean: int = 2600
    noisy: int = 700
    mismatched: float = 0.0
    prompts: int = 8
    choices: int = 2
    benchmark: int | None = None
    seeds: int = 4
    scales: tuple[float, ...] = (3.0, 5.0, 7.5)
    held: int = 512


SMOKE = Budget(
    pictures=96,
    latents=96,
    again=64,
    crops=4,
    whole=2,
    decoder=2,
    judge=3,
    judge_again=2,
    judge2=3,
    judge2_again=2,
    captioner=3,
    clip=2,
    clean=4,
    noisy=2,
    prompts=1,
    choices=1,
    benchmark=1,
    seeds=1,
    scales=(3.0,),
    held=32,
)
PARTS = ("autoencoder", "decoder", "judge", "judge2", "captioner", "clip", "diffusion")


class Training:
    """The trained parts; each is made on its first use, from a fixed seed, or taken from the work folder."""

    def __init__(self, work: Path, budget: Budget, smoke: bool = False, start: Path | None = None) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.budget, self.start = work, budget, start
        self.drawings = drawings.stand_ins if smoke else partial(drawings.fetched, work)
        self.tokenizer = words.build(WORDS)

    @cached_property
    def pictures(self) -> Pictures:
        with in_turn():
            return pictures(self.work, self.budget.pictures, self.drawings)

    @cached_property
    def held_out(self) -> Pictures:
        return pictures(self.work, self.budget.held, self.drawings, seed=1)

    @cached_property
    def autoencoder(self) -> AutoencoderKL:
        """Its encoder is final: the latents are made with it."""
        if self.start:
            return AutoencoderKL.from_pretrained(self.start / "vae", torch_dtype=torch.float32).requires_grad_(False)
        torch.manual_seed(0)
        return autoencoder.train(self.pictures, self.budget.crops, self.budget.whole, self.work)

    @cached_property
    def latents(self) -> torch.Tensor:
        drawn, model = self.pictures, self.autoencoder
        with in_turn():
            return diffusion.encode(drawn, self.budget.latents, model, self.work)

    @cached_property
    def decoder(self) -> AutoencoderKL:
        """The autoencoder, its decoder trained further."""
        if self.start or not self.budget.decoder:
            return self.autoencoder
        self.latents  # noqa: B018  # made before: while the decoder trains, another process may train the U-Net
        torch.manual_seed(1)
        return autoencoder.train_decoder(self.autoencoder, self.pictures, self.budget.decoder, self.work)

    @cached_property
    def again(self) -> Pictures:
        """The first pictures as the autoencoder gives them back."""
        path = self.work / "again.npy"
        drawn, model = self.pictures, self.decoder
        with in_turn(), torch.no_grad():
            if not path.exists():
                model.eval()
                found = []
                for index in torch.arange(self.budget.again).split(64):
                    x = drawn.batch(index).contiguous(memory_format=torch.channels_last)
                    y = model.decode(model.encode(x).latent_dist.mean).sample
                    found.append(((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
                with open(partial_file := path.with_suffix(".part"), "wb") as file:
                    np.save(file, np.concatenate(found))
                partial_file.replace(path)
        return Pictures(np.load(path), drawn.layouts[: self.budget.again])

    def _judge(self, name: str, architecture: str, seed: int, steps: int, further: int, lr: float = 1e-3) -> Judge:
        torch.manual_seed(seed)
        drawn = judge.train(self.pictures, steps, self.work, f"{name}-drawn", architecture)
        return judge.train(self.pictures, further, self.work, name, again=self.again, start=drawn, lr=lr)

    @cached_property
    def judge(self) -> Judge:
        return self._judge("judge", "residual", 1, self.budget.judge, self.budget.judge_again)

    @cached_property
    def judge2(self) -> Judge:
        return self._judge("judge2", "plain", 2, self.budget.judge2, self.budget.judge2_again, lr=2e-3)

    @cached_property
    def captioner(self) -> tuple[BlipForConditionalGeneration, BlipProcessor]:
        torch.manual_seed(0)
        return captioner.train(self.pictures, self.budget.captioner, self.work, self.again)

    @cached_property
    def clip(self) -> open_clip.CLIP:
        torch.manual_seed(0)
        return contrastive.train(self.pictures, self.tokenizer, self.budget.clip, self.work, self.again)

    @cached_property
    def diffusion(self) -> nn.ModuleDict:
        make = partial(diffusion.train, self.pictures, self.latents, self.autoencoder, self.tokenizer, work=self.work)
        torch.manual_seed(0)
        parts = diffusion.load(self.start) if self.start else None
        if self.budget.clean:
            parts = make(steps=self.budget.clean, name="clean", start=parts)
        if self.budget.noisy:
            wrong = self.budget.mismatched
            parts = make(
                steps=self.budget.noisy, name="further", start=parts, mismatched=wrong, lr=7e-4, first=self.budget.clean
            )
        assert parts is not None
        return parts

    def stages(self) -> list[dict[str, float]]:
        """Steps of the diffusion model, and the share of wrong captions in them."""
        stages = [
            {"steps": self.budget.clean, "wrong": 0.0},
            {"steps": self.budget.noisy, "wrong": self.budget.mismatched},
        ]
        return card.history(self.start) + [stage for stage in stages if stage["steps"]]


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
    help="Drawings, pictures, checkpoints, logs and sample grids; a stopped run goes on from here.",
)
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Train the U-Net and the text encoder of this finished model further; its other parts stay as they are.",
)
@click.option(
    "--clean", type=click.IntRange(0), help="Steps of the diffusion model with right captions, in a first cycle."
)
@click.option("--noisy", type=click.IntRange(0), help="Steps of a second cycle after these.")
@click.option("--mismatched", type=click.FloatRange(0, 1), help="The share of wrong captions in the second cycle.")
@click.option("--smoke", is_flag=True, help="A few steps of everything, in about a minute, without a network.")
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
    """Train the embedded model: a tiny Stable Diffusion of the benchmark's words, captioner, CLIP and judges."""
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    budget = SMOKE if smoke else Budget()
    given = {"clean": clean, "noisy": noisy, "mismatched": mismatched}
    budget = replace(budget, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    training = Training(work, budget, smoke, start)
    if start and set(only) - {"diffusion"}:
        raise click.UsageError("--from trains the diffusion model further, no other part: leave --only out")
    try:
        for name in only or (("diffusion",) if start else PARTS):
            getattr(training, name)
    except drawings.FetchError as error:
        raise click.ClickException(str(error)) from None
    if only or (dist.is_initialized() and dist.get_rank() > 0):
        return
    if start:
        pack.further(out, start, training.diffusion)
    else:
        judges = {"judge": training.judge, "judge2": training.judge2}
        parts = (training.decoder, training.diffusion, judges, training.captioner, training.clip)
        pack.write(out, training.tokenizer, *parts)
    finish(out, training)
    click.echo((out / "README.md").read_text())


def finish(out: Path, training: Training) -> None:
    """Choose the settings of the model in `out`, measure it, and write its card."""
    budget = training.budget
    choice = choose.choose(out, budget.prompts, budget.choices)
    model, reader = StableDiffusion(str(out)), Judge(out / "judge2")
    best = choice["settings"]["scale"]
    rows = []
    for scale in sorted({*budget.scales, best}):
        seeds = budget.seeds if scale == best else 1
        shares = measure.plain(model, reader, prompt_set("attend-and-excite", budget.benchmark), seeds, scale)
        rows.append({"scale": scale, "seeds": seeds, "shares": shares})
    card.write(
        out,
        {
            "pictures": budget.pictures,
            "stages": training.stages(),
            "unet": sum(p.numel() for p in training.diffusion["unet"].parameters()) / 1e6,
            "held": budget.held,
            "parts": measure.parts(out, training.held_out),
            "benchmark": rows,
            "choice": choice,
        },
    )


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
