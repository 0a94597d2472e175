"""The options of the commands, each declared once.

To add an option to `generate`, `sweep`, `ablate` and `gap`, add one entry to a set below; the set says where the value
goes, so that no command has to name it:

- `LOADING`: a keyword argument of `StableDiffusion`, and so of a plan's `loading`;
- `COMMON`: a field of `dnp.models.defaults.Defaults`, whose value comes from the model if the option is left out;
- `HOW`: the same, but not for `ablate`, which has a list of values of its own there;
- `PLACE`: a field of `dnp.experiments.plan.Place` (not for `generate`).

An option of one command stands above its function. To add a command, write its function in one of this folder's files
and name it in `main.COMMANDS`. What is empty (`--captioner ""`) is refused for every option here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from dnp.cli.kinds import Seeds, Size
from dnp.limits import MOST_AT_ONCE, MOST_SEEDS, MOST_STEPS

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]
OF_MODEL = "the model's"  # a default that differs from model to model
COUNT = click.IntRange(1, MOST_SEEDS)
STEP_COUNT = click.IntRange(1, MOST_STEPS)
AT_ONCE = click.IntRange(1, MOST_AT_ONCE)


class Option(click.Option):
    """An option of a section of the help.

    Args:
        into: Name of the command's argument, a dictionary, that collects the value; the option's own name by default.
        lists: Gives what the help ends with: names from a registry, which is imported only when somebody reads it.
    """

    def __init__(
        self,
        *args: Any,
        section: str = "Options",
        into: str | None = None,
        lists: Callable[[], str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.section, self.into, self.lists = section, into, lists

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        if self.lists:
            self.help, self.lists = f"{self.help or ''} {self.lists()}".strip(), None
        return super().get_help_record(ctx)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        values = value if isinstance(value, tuple | list) else [value]
        if any(isinstance(text, str) and not text.strip() for text in values):
            raise click.BadParameter("it is empty: leave the option out, or give it a value", ctx, self)
        return super().process_value(ctx, value)


class Command(click.Command):
    """A command whose options are collected, and shown in sections."""

    def invoke(self, ctx: click.Context) -> Any:
        for option in self.params:
            if isinstance(option, Option) and option.into:
                ctx.params.setdefault(option.into, {})[option.name] = ctx.params.pop(str(option.name))
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                sections.setdefault(getattr(param, "section", "Other"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def option(*names: str, **settings: Any) -> Decorator[Any]:
    return click.option(*names, cls=Option, **settings)


def takes(*options: Decorator[Any] | Iterable[Decorator[Any]]) -> Decorator[Any]:
    """The options of a command and sets of them, in the order of its help."""

    def decorate(function: Function) -> Function:
        for found in reversed(options):
            for one in reversed([found] if callable(found) else list(found)):
                function = one(function)
        return function

    return decorate


_loading = partial(option, section="Model", into="loading")
_how = partial(option, section="Guidance and sampling", into="how", show_default=OF_MODEL)
_place = partial(option, section="Work", into="where")

MODEL = option(
    "--model",
    section="Model",
    default="embedded",
    metavar="embedded|DIR|FILE|HUB_ID",
    help="The tiny model that is included, or a Stable Diffusion 1.x, 2.x or XL: a directory in diffusers' format, a "
    ".safetensors file, or a hub name.",
)
LOADING = (
    _loading("--size", type=Size(), show_default=OF_MODEL, help="Picture size, e.g. 768x512."),
    _loading("--lora", "loras", multiple=True, metavar="FILE[:WEIGHT]", help="Merged into the model. Repeatable."),
    _loading(
        "--embedding",
        "embeddings",
        multiple=True,
        metavar="FILE",
        help="A textual inversion, as a word for prompts and negative prompts. Repeatable.",
    ),
    _loading(
        "--clip-skip",
        type=click.IntRange(1),
        show_default=OF_MODEL,
        help="Layer of the text encoder that is read, counted from the last, which is 1 (as in A1111).",
    ),
    _loading("--controlnet", metavar="DIR", help="A ControlNet, which follows --control-image."),
    _loading("--control-image", metavar="FILE"),
    _loading("--control-scale", type=float, show_default="1", help="Weight of the ControlNet."),
    _loading(
        "--empty",
        type=click.Choice(["encoded", "zeros"]),
        show_default=OF_MODEL,
        help="What the empty prompt is: the encoding of no words, or zeros. SDXL expects zeros, others the encoding.",
    ),
    _loading(
        "--prediction",
        type=click.Choice(["epsilon", "v_prediction"]),
        help="What a single FILE predicts if it does not say so [default: v for 2.x, else epsilon].",
    ),
    _loading("--cpu-offload", is_flag=True, help="Keep each network on the GPU only while it is needed."),
    _loading("--allow-pickle", is_flag=True, help="Load weights from pickled files too (weights only, no code)."),
)
COMMON = (_how("--schedule", metavar="NAME", help="Schedule of the noise levels: `dnp samplers` lists them."),)
DEVICE = (
    option("--device", section="Model", show_default="a GPU if there is one", help='Such as "cpu" or "cuda".'),
    option(
        "--dtype",
        section="Model",
        show_default="float32 on a CPU, bfloat16 on a GPU",
        metavar="float32|bfloat16|float16",
        help="Precision of the network.",
    ),
)
SCALE = _how("--scale", type=float, help="Guidance scale s.")
HOW = (  # and SCALE
    _how(
        "--guidance",
        metavar="FORMULA",
        help='Guidance of the final picture: a formula such as "u + s*(p - n)" of the predictions p (prompt), n '
        "(negative) and u (empty), with s = --scale and w = --strength, or a strategy such as "
        '"NegPrompt(s, evaluations=2)". `dnp formulas` lists them.',
    ),
    _how("--dns", metavar="FORMULA", help='Guidance of the diffusion-negative picture, such as "DNS(2)".'),
    _how(
        "--strength",
        type=float,
        help="Strength w of the negative prompt in u + s(p − u) − w(n − u): 0 ignores it, s − 1 is what most tools do "
        "(2 evaluations), s is the paper's eq. 4 (3 evaluations).",
    ),
    _how("--sampler", metavar="NAME", help="`dnp samplers` lists them."),
    _how("--steps", type=STEP_COUNT, help="Steps of the plain and the final picture."),
    _how(
        "--dns-steps",
        type=STEP_COUNT,
        help="Steps of the diffusion-negative picture; unless given, never more than --steps.",
    ),
    *COMMON,
)
_threads: dict[str, Any] = {
    "type": AT_ONCE,
    "show_default": "1 for a small model",
    "help": "Threads of each process on a CPU. Another number is rounded differently; a run keeps its own.",
}
THREADS = option("--threads", section="Work", **_threads)
CAPTIONER = option(
    "--captioner",
    section="Guidance and sampling",
    metavar="DIR|HUB_ID|openai:MODEL[@URL]",
    show_default=OF_MODEL,
    help="What describes diffusion-negative pictures: an image-to-text model of transformers, or one at an "
    "OpenAI-compatible address (or OPENAI_BASE_URL; the key is read from OPENAI_API_KEY).",
)
PLACE = (
    _place(
        "--workers",
        type=AT_ONCE,
        default=1,
        help="Processes on this machine. Small models on a CPU are fastest with one for each core.",
    ),
    _place(
        "--ray",
        is_flag=False,
        flag_value="local",
        metavar="[ADDRESS]",
        help="Work on a Ray cluster; without an address, on one started on this machine.",
    ),
    _place("--threads", **_threads),
)
PICTURES = (MODEL, *LOADING, *DEVICE)  # what makes a model, for every command that makes pictures


def seeds(default: str) -> Decorator[Any]:
    """Which seeds, by default `default`."""
    return option("--seed", "--seeds", "seeds", type=Seeds(), default=default, help="Seeds: 3, 0-7 or 1,3,8-11.")


def batch(default: int, what: str) -> Decorator[Any]:
    """How many of `what` at a time."""
    return option(
        "--batch",
        section="Work",
        type=AT_ONCE,
        default=default,
        help=f"{what} at a time. Another number is rounded differently, so that a pixel may differ by a level.",
    )


def out(default: str, holds: str) -> Decorator[Any]:
    """The folder of a run."""
    return option(
        "--out",
        type=click.Path(path_type=Path),
        default=Path(default),
        help=f"Folder for {holds}. A run that was stopped goes on in it.",
    )


def _prompt_sets() -> str:
    from eval.prompts import PROMPT_SETS

    return described(PROMPT_SETS)


def described(table: Mapping[str, str]) -> str:
    """The entries of a registry, in a sentence each."""
    return " ".join(f"{name}: {about}." for name, about in table.items())


def prompts() -> tuple[Decorator[Any], ...]:
    """Which prompts of which set."""
    return (
        option(
            "--prompts",
            default="attend-and-excite",
            metavar="SET|FILE",
            help="A text file with one prompt a line, or a set.",
            lists=_prompt_sets,
        ),
        option("--per-category", type=COUNT, help="Prompts of each category; the paper takes 50 [default: all]."),
    )


def say(line: str) -> None:
    """A line for people, on stderr."""
    click.echo(line, err=True)
