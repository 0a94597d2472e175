"""`dnp models`, `samplers`, `formulas` and `env`: what there is."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import unicodedata

import click

_ROOMS = ("guidance", "samplers", "captioning", "eval", "dnp", "training")
_FORMULAS = {
    "CFG(s)": "classifier-free guidance (eq. 3)",
    "NegPrompt(s, evaluations=2)": "the negative prompt of most tools, in place of the empty one",
    "NegPrompt(s, evaluations=3)": "the paper's negative prompt (eq. 4)",
    "NegPrompt(s, strength=w)": "the family of both, with a strength of the negative of its own",
    "DNS(s)": "diffusion-negative sampling (eq. 19)",
    "DNS(s, evaluations=2)": "the same through a tool's negative prompt of 2 evaluations",
}


@click.command("models")
def models() -> None:
    """List the models on this machine: the embedded one, and those in the hub's cache."""
    from dnp.models.locate import EMBEDDED

    click.echo(f"embedded   a drawn world's tiny Stable Diffusion, always here ({EMBEDDED})")
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, ValueError):  # no cache yet
        repos = frozenset()
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        if any((revision.snapshot_path / "model_index.json").is_file() for revision in repo.revisions):
            click.echo(f"{repo.repo_id}   {repo.size_on_disk_str}, in the hub's cache")
    click.echo("DIR        any Stable Diffusion 1.x, 2.x or XL directory in diffusers' format, by its path")
    click.echo("FILE       such a model as one .safetensors file, as other tools have it")
    click.echo("HUB_ID     any such model of the hub, downloaded once: safetensors weights only")


@click.command("samplers")
def samplers() -> None:
    """List the samplers and the schedules of noise levels."""
    from samplers import SAMPLERS, SCHEDULES

    for title, names in (("samplers", SAMPLERS), ("schedules", SCHEDULES)):
        click.echo(f"{title}:")
        for name, line in names.items():
            click.echo(f"  {name:22} {plain_text(line)}")


@click.command("formulas")
def formulas() -> None:
    """List the guidance strategies with their formulas."""
    import inspect

    from guidance import parse, strategies

    for text, line in _FORMULAS.items():
        formula = parse(text, s=7.5, w=1)
        click.echo(f"{text:28} {line}; {len(formula.names)} evaluations a step")
        click.echo(f"{'':28} with s = 7.5, w = 1: {formula}")
    click.echo(
        "\nAny other weighted sum of p (prompt), n (negative) and u (empty) whose weights sum to one is a formula too, "
        'such as "u + 7.5*(p - n) - 0.5*(n - u)". Others by name, alone or around one another:\n'
    )
    for name, kind in strategies().items():
        if not any(text.startswith(f"{name}(") for text in _FORMULAS):
            takes = ", ".join(inspect.signature(kind).parameters)
            click.echo(f"{name}({takes})\n{'':28} {plain_text((kind.__doc__ or '').strip().splitlines()[0])}")


@click.command("env")
def env() -> None:
    """Print versions and devices, and whether another distribution claims one of our names."""
    from dnp.runs.record import versions

    click.echo(f"python {platform.python_version()} on {platform.platform()}")
    for name, found in versions().items():
        click.echo(f"{name} {found}")
    click.echo(f"devices: {', '.join([*_gpus(), f'cpu ({os.cpu_count()} cores)'])}")
    clashes = _claimed()
    for name, room in clashes:
        click.echo(
            f"warning: the distribution {name} also claims the package {room!r}, so `import {room}` may be theirs: "
            f"pip uninstall {name}, or use an environment of your own"
        )
    if not clashes:
        click.echo(f"no other distribution claims {', '.join(_ROOMS)}")


def _gpus() -> list[str]:
    """By the driver's own tool: torch would take seconds to import."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    try:
        done = subprocess.run([tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.decode(errors="replace").splitlines() if done.returncode == 0 else []


def _claimed() -> list[tuple[str, str]]:
    """Other distributions and the room that each also brings. By their lists of files, which takes a fifth of what
    `importlib.metadata.packages_distributions` does."""
    from importlib.metadata import distributions

    found = set()
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name == "dnp":
            continue
        tops = (distribution.read_text("top_level.txt") or "").split()
        files = "" if tops else f"\n{distribution.read_text('RECORD') or ''}"
        found |= {(name, room) for room in _ROOMS if room in tops or f"\n{room}/" in files}
    return sorted(found)


def plain_text(text: str) -> str:
    r"""A docstring's markup as a terminal shows it.

    >>> plain_text(r"by a posterior :math:`\pi`, see :class:`DNS` or ``w``")
    'by a posterior π, see DNS or w'
    """
    text = re.sub(r":[a-z]+:`~?([^`]*)`|``([^`]*)``|`([^`]*)`", lambda found: next(filter(None, found.groups())), text)
    return re.sub(r"\\([a-z]+)", lambda found: _greek(found[1]), text)


def _greek(name: str) -> str:
    try:
        return unicodedata.lookup(f"GREEK SMALL LETTER {name.upper()}")
    except KeyError:
        return name
