"""The command line: a group of commands, and what a person reads when something cannot be done."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from dnp.cli.compare import compare
from dnp.cli.experiments import ablate, gap, sweep
from dnp.cli.generate import generate
from dnp.cli.lists import env, formulas, models, samplers
from dnp.cli.results import report, score, show
from eval.text import visible

COMMANDS = (generate, sweep, score, report, ablate, gap, compare, show, models, samplers, formulas, env)


class _Group(click.Group):
    """A group whose commands end in one line and a status: see its help."""

    def main(self, *args: Any, **options: Any) -> NoReturn:
        try:
            status = super().main(*args, **{"prog_name": "dnp"} | options | {"standalone_mode": False})
        except click.Abort as stop:
            if isinstance(stop.__cause__, EOFError):
                _end("the input ended before it was complete", 2)
            _end("stopped; what was finished is kept, the same command goes on from there", 130)
        except click.ClickException as error:
            where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
            _end(f"{error.format_message()}{f' (see {where} --help)' if where else ''}", error.exit_code)
        except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: torch's, such as a GPU out of memory
            if os.environ.get("DNP_TRACEBACK"):
                raise
            _end(str(error), 2)
        sys.exit(status if isinstance(status, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _end(line: str, status: int) -> NoReturn:
    click.echo(f"dnp: {visible(' '.join(line.split()))}", err=True)
    sys.exit(status)


@click.group(
    "dnp",
    cls=_Group,
    commands={command.name: command for command in COMMANDS},
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(package_name="dnp")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Better pictures from the same prompt: diffusion-negative prompting, and every guidance formula.

    \b
    dnp generate "a cat and a red balloon"             with the embedded model, offline
    dnp generate "a cat and a dog" --model runwayml/stable-diffusion-v1-5
    dnp show out/generate                                     what made these pictures
    dnp sweep --out out/mine && dnp score out/mine && dnp report out/mine

    Exit status: 0, done; 1, something was left out, and named; 2, the input cannot be used, and why; 130, stopped.
    With DNP_TRACEBACK=1 in the environment an error shows where it came from.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


if __name__ == "__main__":
    main()
