"""The command line: generate, sweep, score, report, ablate, gap, compare, show, models, samplers, formulas, env."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import click

_FORMULAS = {
    "CFG(s)": "classifier-free guidance (eq. 3)",
    "NegPrompt(s, evaluations=2)": "the negative prompt of most tools, in place of the empty one",
    "NegPrompt(s, evaluations=3)": "the paper's negative prompt (eq. 4)",
    "NegPrompt(s, strength=w)": "the family of both, with a strength of the negative of its own",
    "DNS(s)": "diffusion-negative sampling (eq. 19)",
    "DNS(s, evaluations=2)": "the same through a tool's negative prompt of 2 evaluations",
}
_ROOMS = ("guidance", "samplers", "captioning", "eval", "dnp", "training")


class _Group(click.Group):
    """A group whose commands end in one line and status 2 on what a person can mend, 130 on Ctrl-C."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\ndnp: stopped; what was finished is kept, the same command goes on from there", err=True)
            ctx.exit(130)
        except (click.exceptions.Exit, click.Abort):  # RuntimeErrors too, and click's own business
            raise
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)
        except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: torch's, such as a GPU out of memory
            if os.environ.get("DNP_TRACEBACK"):
                raise
            click.echo(f"dnp: {' '.join(str(error).split())}", err=True)
            ctx.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dnp")
def main() -> None:
    """Better pictures from the same prompt: diffusion-negative prompting, and every guidance formula.

    \b
    dnp generate "a red circle and a blue square"             with the embedded model, offline
    dnp generate "a cat and a dog" --model runwayml/stable-diffusion-v1-5
    dnp show out/                                             what made these pictures
    """


def _seeds(text: str, count: int | None) -> list[int]:
    first, dash, last = text.partition("-")
    try:
        low = int(first)
        high = int(last) if dash else low + (count or 1) - 1
    except ValueError:
        raise ValueError(f"--seed {text!r} is neither a number nor a range: write --seed 3 or --seed 0-7") from None
    if dash and count is not None:
        raise ValueError(f"--seed {text!r} already says how many: leave --count {count} out")
    if high < low:
        raise ValueError(f"--seed {text!r} is an empty range: write the smaller seed first, as in --seed 0-7")
    if high >= 2**63:
        raise ValueError(f"--seed {text!r} is too large: seeds go from 0 to 2**63 - 1")
    return list(range(low, high + 1))


def _size(text: str | None) -> tuple[int, int] | None:
    width, _, height = (text or "").partition("x")
    if text and not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f"--size {text!r} is no width and height: write --size 768x512")
    return (int(width), int(height)) if text else None


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str, kind: type = float) -> list[Any]:
    found = [kind(part) for part in _listed(text)]
    if kind is int and any(number < 1 for number in found):
        raise ValueError
    return found


@main.command("generate")
@click.argument("prompt")
@click.option(
    "--model",
    default="embedded",
    show_default=True,
    metavar="embedded|DIR|FILE|HUB_ID",
    help="The tiny model that comes along, a Stable Diffusion 1.x, 2.x or XL: a directory in diffusers' format, a "
    ".safetensors file, or a hub name.",
)
@click.option(
    "--negative",
    default="auto",
    show_default=True,
    metavar="auto|on-the-way|ask|none|universal|TEXT",
    help="Where the negative prompt comes from: a captioner looks at the diffusion-negative picture (auto) or at the "
    "picture itself on its way (on-the-way), you do (ask), "
    "nowhere (none: plain guidance only), the list that people use (universal), or a text.",
)
@click.option(
    "--guidance",
    metavar="FORMULA",
    help='Of the final picture: a formula such as "u + s*(p - n)" of the '
    "predictions p (prompt), n (negative), u (empty), with s = --scale and w = --strength, or a strategy "
    'such as "NegPrompt(s, evaluations=2)". The model has a default; `dnp formulas` lists more.',
)
@click.option("--dns", metavar="FORMULA", help='Of the diffusion-negative picture, such as "DNS(2)".')
@click.option("--scale", type=float, help="Guidance scale s. The model has a default.")
@click.option(
    "--strength",
    type=float,
    help="Strength w of the negative prompt in u + s(p − u) − w(n − u): 0 is none, "
    "s − 1 what most tools do (2 evaluations), s the paper's eq. 4 (3 evaluations).",
)
@click.option("--sampler", help="By its name: `dnp samplers` lists them.")
@click.option("--schedule", help="Of the noise levels, by its name: `dnp samplers` lists them.")
@click.option("--steps", type=click.IntRange(1), help="Of the plain and the final picture.")
@click.option("--dns-steps", type=click.IntRange(1), help="Of the diffusion-negative picture.")
@click.option(
    "--captioner",
    metavar="DIR|HUB_ID|openai:MODEL[@URL]",
    help="For --negative auto: an image-to-text model of transformers, or one at an OpenAI-compatible address (also "
    "from OPENAI_BASE_URL; the key from OPENAI_API_KEY).",
)
@click.option("--caption-steps", default="", metavar="N,N,…", help="For on-the-way: a quarter and half by default.")
@click.option("--seed", default="0", show_default=True, metavar="N|A-B", help="A seed, or a range of them.")
@click.option("--count", type=click.IntRange(1), help="How many pictures: seeds N, N+1, …")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/generate"),
    show_default=True,
    help="Folder of the pictures, the contact sheet and the records. A stopped run goes on in it.",
)
@click.option("--device", help='Such as "cpu" or "cuda"; a GPU where there is one.')
@click.option("--dtype", help="float32, bfloat16 or float16, of the network; what suits the device by default.")
@click.option("--size", metavar="WxH", help="Of the pictures, as 768x512. The model has its own.")
@click.option("--lora", "loras", multiple=True, metavar="FILE[:WEIGHT]", help="Merged into the model; may be repeated.")
@click.option("--controlnet", metavar="DIR", help="A ControlNet, which follows --control-image.")
@click.option("--control-image", metavar="FILE")
@click.option("--control-scale", type=float, help="Weight of the ControlNet; 1 by default.")
@click.option(
    "--empty",
    type=click.Choice(["encoded", "zeros"]),
    help="What the empty prompt is: the encoding of no words, or zeros. SDXL wants zeros, others the encoding.",
)
@click.option(
    "--prediction",
    type=click.Choice(["epsilon", "v_prediction"]),
    help="Of a FILE, whose weights do not show it: v for 2.x, else epsilon, by default.",
)
@click.option("--cpu-offload", is_flag=True, help="Keep each network on the GPU only while it is needed.")
@click.option("--allow-pickle", is_flag=True, help="Read weights from pickled files too, nothing else of them.")
def generate_command(
    prompt: str, seed: str, count: int | None, size: str | None, caption_steps: str, **options: Any
) -> None:
    """Make pictures of PROMPT: plainly, its diffusion-negative, and with that one's caption as negative prompt.

    \b
    dnp generate "a red circle and a blue square" --seed 0-7
    dnp generate "a green heart" --negative "a star" --guidance "u + s*(p - u) - w*(n - u)" --strength 1
    """
    from dnp.generate import generate

    names = "loras controlnet control_image control_scale empty prediction cpu_offload allow_pickle".split()
    loading = {name: options.pop(name) for name in names} | {"size": _size(size)}
    options["loading"] = {
        name: value for name, value in loading.items() if value not in (None, ()) and value is not False
    }
    try:
        at = [int(step) for step in _listed(caption_steps)]
    except ValueError:
        raise ValueError(f"--caption-steps {caption_steps!r} is no list of steps, as in 4,8") from None
    options.update(say=lambda line: click.echo(line, err=True), caption_steps=at)
    generate(prompt, _seeds(seed, count), **options)


@main.command("sweep")
@click.option(
    "--prompts",
    default="world",
    show_default=True,
    metavar="SET|FILE",
    help="world (for the embedded model), attend-and-excite, humans, hands, or a text file with a prompt in each line.",
)
@click.option("--per-category", type=click.IntRange(1), help="So many prompts of each category; the paper took 50.")
@click.option(
    "--arms",
    "names",
    default="plain,dnp,dnp2,shuffled,universal,random",
    show_default=True,
    help="What to compare. plain: no negative prompt. dnp: the diffusion-negative's caption, by the model's formula; "
    "dnp2, dnp3: by n + s(p − n) and u + s(p − n). The controls as dnp: shuffled (another prompt's caption), "
    "universal, random.",
)
@click.option(
    "--arm",
    "own",
    nargs=3,
    multiple=True,
    metavar="NAME FORMULA NEGATIVE",
    help="One of your own: a formula "
    "in p, n, u, s and w, and none, auto, auto-without-prompt, auto-background, shuffled, universal, random or a text. "
    "May be given often.",
)
@click.option("--seeds", default="0-3", show_default=True, metavar="N|A-B", help="A run may be given more later.")
@click.option("--scale", "scales", multiple=True, metavar="S|ARM=S", help="Guidance scale of all arms or of one.")
@click.option(
    "--choose",
    metavar="S,S,…",
    help="Scales of which each arm takes its best, measured on held-out prompts: the fair comparison.",
)
@click.option("--choose-prompts", type=click.IntRange(1), default=10, show_default=True, help="Of each category.")
@click.option("--choose-seeds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--strength", type=float, help="Strength w of the negative prompt. The model has a default.")
@click.option("--model", default="embedded", show_default=True, metavar="embedded|DIR|HUB_ID")
@click.option("--dns", metavar="FORMULA", help="Of the diffusion-negative pictures.")
@click.option("--sampler", help="By its name: `dnp samplers` lists them.")
@click.option("--schedule", help="Of the noise levels.")
@click.option("--steps", type=click.IntRange(1))
@click.option("--dns-steps", type=click.IntRange(1))
@click.option("--captioner", metavar="DIR|HUB_ID|openai:MODEL[@URL]")
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=25,
    show_default=True,
    help="Prompts at a time. It rounds, so a run keeps it.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes on this machine. Small models on a CPU are fastest with one for each core.",
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Work on a Ray cluster; without an address, on one of this machine alone.",
)
@click.option("--device")
@click.option("--dtype")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/sweep"), show_default=True)
def sweep(names: str, seeds: str, choose: str | None, workers: int, ray: str | None, **options: Any) -> None:
    """Make the pictures of a comparison: arms × prompts × seeds, all arms of a prompt and seed from the same noise.

    Stopped or killed, the same command goes on where it was.

    \b
    dnp sweep --prompts world --seeds 0-7 --choose 3,5,7.5,10 --out out/world
    dnp sweep --prompts attend-and-excite --per-category 50 --model DIR --arm late "CFG(StepScale(0, s, 5))" none
    dnp score out/world
    dnp report out/world
    """
    from dnp.experiments.plan import Place
    from dnp.experiments.study import sweep_command

    try:
        tried = [float(value) for value in choose.split(",")] if choose else []
    except ValueError:
        raise ValueError(f"--choose {choose!r} is no list of scales: write --choose 3,5,7.5") from None
    sweep_command(
        seeds=_seeds(seeds, None),
        names=_listed(names),
        choose=tried,
        where=Place(workers, ray),
        say=lambda line: click.echo(line, err=True),
        **options,
    )


@main.command("gap")
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("--seed", "seeds", default="0", show_default=True, metavar="N|A-B", help="A seed, or a range of them.")
@click.option("--model", default="embedded", show_default=True, metavar="embedded|DIR|HUB_ID")
@click.option("--scale", type=float, help="Guidance scale s. The model has a default.")
@click.option("--strength", type=float, help="Strength w of the negative prompt in the last column.")
@click.option("--dns", metavar="FORMULA", help="Of the diffusion-negative pictures.")
@click.option("--sampler", help="By its name: `dnp samplers` lists them.")
@click.option("--schedule", help="Of the noise levels.")
@click.option("--steps", type=click.IntRange(1))
@click.option("--dns-steps", type=click.IntRange(1))
@click.option("--captioner", metavar="DIR|HUB_ID|openai:MODEL[@URL]")
@click.option("--device")
@click.option("--dtype")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/gap"), show_default=True)
def gap_command(prompts: tuple[str, ...], seeds: str, **options: Any) -> None:
    """Draw the paper's figure 4 for PROMPTs: what the model takes for their opposite, and what that does.

    \b
    dnp gap "a red circle and a blue square" "a green heart" --seed 0-1
    """
    from dnp.experiments.gap import gap

    gap(prompts, _seeds(seeds, None), say=lambda line: click.echo(line, err=True), **options)


@main.command("ablate")
@click.argument("formulas", nargs=-1, required=True, metavar="FORMULA...")
@click.option("--scales", default="3,5,7.5,10", show_default=True, metavar="S,S,…", help="Of each formula.")
@click.option(
    "--negatives",
    default="auto",
    show_default=True,
    help="auto, auto-without-prompt (the caption without the prompt's words), auto-background (its background only, "
    "drawn world), shuffled, universal, random or texts, with commas.",
)
@click.option("--strengths", default="", metavar="W,W,…", help="The w of the formulas; the model has a default.")
@click.option("--samplers", default="", help="With commas; the model has a default.")
@click.option("--steps", default="", metavar="N,N,…", help="Of the pictures; the model has a default.")
@click.option("--dns", multiple=True, metavar="FORMULA", help="Of the diffusion-negative pictures. May be given often.")
@click.option("--dns-steps", default="", metavar="N,N,…", help="Of the diffusion-negative pictures.")
@click.option("--prompts", default="world", show_default=True, metavar="SET|FILE")
@click.option("--per-category", type=click.IntRange(1), help="So many prompts of each category.")
@click.option("--seeds", default="0-1", show_default=True, metavar="N|A-B")
@click.option("--model", default="embedded", show_default=True, metavar="embedded|DIR|HUB_ID")
@click.option("--batch", type=click.IntRange(1), default=25, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes on this machine.")
@click.option("--device")
@click.option("--dtype")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/ablate"), show_default=True)
def ablate(
    formulas: tuple[str, ...],
    scales: str,
    strengths: str,
    negatives: str,
    samplers: str,
    steps: str,
    dns_steps: str,
    seeds: str,
    workers: int,
    **options: Any,
) -> None:
    """Compare FORMULAs of s and w over scales, strengths, negatives, samplers, steps, and the formulas and steps of the
    diffusion-negatives; writes a report with curves and grids of pictures.

    \b
    dnp ablate "CFG(s)" "NegPrompt(s, evaluations=2)" "NegPrompt(s, evaluations=3)" --scales 1,3,5,7.5
    dnp ablate "NegPrompt(s, strength=w)" --strengths 0,0.5,1,7.5,10 --negatives auto,shuffled --scales 7.5
    dnp ablate "NegPrompt(s, strength=w)" --dns "DNS(1)" --dns "DNS(7.5)" --dns-steps 4,8,16 --scales 7.5
    dnp ablate "u + s*(p - u) - StepScale(0, w, 3)*(n - u)" "u + s*(p - u) - StepScale(w, 0, 3)*(n - u)"

    The last two are a negative prompt that starts late, at noise level 3, and one that stops there.
    """
    from dnp.experiments.plan import Place
    from dnp.experiments.study import ablate_command

    try:
        options |= {"scales": _numbers(scales), "strengths": _numbers(strengths)}
        options |= {"steps": _numbers(steps, int), "dns_steps": _numbers(dns_steps, int)}
    except ValueError:
        lists = f"--scales {scales!r}, --strengths {strengths!r}, --steps {steps!r} and --dns-steps {dns_steps!r}"
        raise ValueError(f"{lists} are lists of numbers, as in 3,5,7.5; of steps whole ones from 1") from None
    ablate_command(
        formulas=formulas,
        seeds=_seeds(seeds, None),
        negatives=_listed(negatives),
        samplers=_listed(samplers),
        where=Place(workers),
        say=lambda line: click.echo(line, err=True),
        **options,
    )


@main.command("compare")
@click.option("--model", default="embedded", show_default=True, metavar="embedded|DIR|HUB_ID")
@click.option("--random", metavar="sd15", help="That architecture with random weights instead: for its speed alone.")
@click.option("--sampler", default="euler", show_default=True, help="euler or ddim, on Stable Diffusion's own steps.")
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True)
@click.option("--batch", "batches", default="1,16", show_default=True, metavar="N,N,…", help="Pictures at a time.")
@click.option("--repeats", type=click.IntRange(1), default=20, show_default=True, help="Pairs of runs for each batch.")
@click.option("--device")
@click.option("--dtype")
def compare_command(batches: str, **options: Any) -> None:
    """Time our pipeline beside diffusers' own: same weights, noise, steps and batch, in turns in one process.

    With OMP_NUM_THREADS=1 other programs on the machine disturb least.

    \b
    dnp compare
    dnp compare --random sd15 --steps 2 --batch 1 --repeats 1          7 GiB of memory, minutes on a CPU
    """
    from dnp.speed.compare import compare

    try:
        sizes = [int(value) for value in _listed(batches)]
    except ValueError:
        raise ValueError(f"--batch {batches!r} is no list of numbers: write --batch 1,16") from None
    compare(batches=sizes, **options)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--metrics",
    help="judge (both things right, neglected, wrong attribute), clip-min-object "
    "(Attend-and-Excite's), clip (raw cosine and CLIPScore), inception; with commas. What suits the model by default.",
)
@click.option("--clip", metavar="NAME|DIR", help="Of open_clip, as ViT-B-16/openai, or a local folder.")
@click.option("--classifier", metavar="FILE", help="Weights of torch-fidelity's Inception network, for inception.")
@click.pass_context
def score(ctx: click.Context, folder: Path, metrics: str | None, clip: str | None, classifier: str | None) -> None:
    """Score the pictures in FOLDER against their prompts, into scores.csv.

    Status 1 says that something was left out; it is named, the rest is scored.
    """
    from dnp.experiments.study import score_command

    names = _listed(metrics or "")
    if not score_command(folder, names, clip, classifier, say=lambda line: click.echo(line, err=True)):
        ctx.exit(1)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--baseline", default="plain", show_default=True, help="The arm that the others are compared with.")
def report(folder: Path, baseline: str) -> None:
    """Write what the scores in FOLDER say: report.html, report.md and report.csv."""
    from eval.report import report as write

    click.echo(f"{write(folder, baseline)}", err=True)


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The whole record, as JSON.")
def show(path: Path, as_json: bool) -> None:
    """Print what made a picture, or the pictures of a folder."""
    from dnp.runs.run import read_record
    from eval.manifest import read_run

    if path.is_dir():
        records = read_run(path)
    else:
        records = [read_record(path) | {"path": path.name}]
    for record in records:
        if as_json:
            click.echo(json.dumps(record, ensure_ascii=False))
            continue
        click.echo(f"{record['path']}: {record['prompt']!r}, seed {record['seed']} ({record['arm']})")
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
                click.echo(f"  {key:9} {value}")


@main.command()
def models() -> None:
    """List the models that are here: the embedded one, and those in the hub's cache."""
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


@main.command()
def samplers() -> None:
    """List the samplers and the schedules of noise levels."""
    from samplers import SAMPLERS, SCHEDULES

    for title, names in (("samplers", SAMPLERS), ("schedules", SCHEDULES)):
        click.echo(f"{title}:")
        for name, line in names.items():
            click.echo(f"  {name:22} {line}")


@main.command()
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
            click.echo(f"{name}({takes})\n{'':28} {(kind.__doc__ or '').strip().splitlines()[0]}")


@main.command()
def env() -> None:
    """Print versions and devices, and whether another distribution claims one of our names."""
    from importlib.metadata import packages_distributions

    import torch

    from dnp.runs.run import versions

    click.echo(f"python {platform.python_version()} on {platform.platform()}")
    for name, found in versions().items():
        click.echo(f"{name} {found}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    click.echo(f"devices: {', '.join(gpus + ['cpu'])} ({torch.get_num_threads()} threads)")
    claimed = packages_distributions()
    clashes = {room: sorted(set(claimed.get(room, [])) - {"dnp"}) for room in _ROOMS}
    for room, others in clashes.items():
        if others:
            click.echo(
                f"warning: the distribution {', '.join(others)} also claims the package {room!r}, so `import {room}` "
                f"may be theirs: pip uninstall {others[0]}, or use an environment of your own"
            )
    if not any(clashes.values()):
        click.echo(f"no other distribution claims {', '.join(_ROOMS)}")


if __name__ == "__main__":
    main()
