"""`dnp generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from dnp.cli.kinds import Steps, refuse
from dnp.cli.options import (
    CAPTIONER,
    COUNT,
    HOW,
    PICTURES,
    SCALE,
    THREADS,
    Command,
    batch,
    option,
    out,
    say,
    seeds,
    takes,
)


@click.command("generate", cls=Command)
@click.argument("prompt")
@takes(
    option(
        "--negative",
        section="Guidance and sampling",
        default="auto",
        metavar="auto|on-the-way|ask|none|universal|TEXT",
        help="Where the negative prompt comes from: a captioner that looks at the diffusion-negative picture (auto) or "
        "at the picture itself while it is sampled (on-the-way), you (ask), nowhere (none: plain guidance only), the "
        "list that people use (universal), or a text.",
    ),
    SCALE,
    HOW,
    CAPTIONER,
    option(
        "--caption-steps",
        section="Guidance and sampling",
        type=Steps(least=0),
        show_default="a quarter and half of --steps",
        help="For --negative on-the-way: steps before which to caption.",
    ),
    option(
        "--attend",
        section="Attention",
        is_flag=False,
        flag_value="entities",
        metavar="[WORD,WORD]",
        help="Attend-and-Excite for the final picture: words of PROMPT that must be attended to; without any, the last "
        'word of each entity (the parts between " and " and " with ").',
    ),
    option(
        "--bind",
        section="Attention",
        is_flag=False,
        flag_value="colours",
        metavar="[MODIFIER:NOUN,…]",
        help='SynGen for the final picture: pairs such as red:car; without any, those of each "a COLOUR NOUN".',
    ),
    option(
        "--attention-maps",
        section="Attention",
        is_flag=True,
        help="Write where plain pictures attend to each of these words, too: attention-maps.png.",
    ),
    option(
        "--init",
        section="Start",
        metavar="FILE",
        help="A picture to start at instead of noise, resized to --size; the diffusion-negative starts at it, too.",
    ),
    option(
        "--denoise",
        section="Start",
        type=float,
        show_default="0.75 with --init",
        help="Share of the steps that are walked from it, above 0 and at most 1: the smaller, the more is kept.",
    ),
    option(
        "--mask",
        section="Start",
        metavar="FILE",
        help="A picture of the size of --init: white is painted anew, black is kept.",
    ),
    PICTURES,
    seeds("0"),
    option("--count", type=COUNT, help="How many pictures, if --seed is one seed N: N, N+1, …"),
    out("out/generate", "the pictures, the contact sheet and the records"),
    batch(1, "Seeds"),
    THREADS,
)
def generate(prompt: str, seeds: Sequence[int], count: int | None, how: dict[str, Any], **options: Any) -> None:
    """Make pictures of PROMPT: plain, its diffusion-negative, and with the caption of that as negative prompt.

    \b
    dnp generate "a cat and a red balloon" --seed 0-7
    dnp generate "a cat and a dog" --model sd15.safetensors --size 768x512 --lora style.safetensors:0.8
    dnp generate "a cat and a dog" --model DIR --negative ask             you describe the diffusion-negative picture
    dnp generate "a green car" --negative "a apple" --guidance "u + s*(p - u) - w*(n - u)" --strength 1
    """
    if count and len(seeds) > 1:
        refuse(f"--seed already names {len(seeds)} seeds: leave --count {count} out")
    from dnp.generate import generate as make

    make(prompt, range(seeds[0], seeds[0] + count) if count else seeds, say=say, **how, **options)
