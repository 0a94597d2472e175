"""Chooses the embedded model's defaults by measurement, on prompts that are in no evaluation.

In this order, each step with what the ones before it chose: the plain scale at which most prompts come out right; the
strongest DNS whose pictures the captioner still reads about as well as at any scale (beyond that they are blobs, and a
caption of a blob says nothing); the strength of the negative prompt at which most prompts come out right; the fewest
steps of DNS that lose nothing of that, since the diffusion-negative picture is looked at by the captioner alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from captioning import Transformers
from dnp.models.stable_diffusion import StableDiffusion
from dnp.recipe import Sampling
from eval.judge import Judge
from eval.prompts import world_prompts
from eval.statistics import gain
from eval.world import WORDS
from guidance import CFG, DNS, Guidance, NegPrompt
from training.measure import Verdict, adherence, agrees, share

SCALES = (1.0, 3.0, 5.0, 7.5, 10.0)
DNS_SCALES = (1.0, 3.0, 5.0, 7.5)
STRENGTHS = (0.5, 1.0, 2.0)
DNS_STEPS = (12, 8, 6, 4)
SAMPLING: dict[str, Any] = {"sampler": "dpmpp_2m", "schedule": "karras", "steps": 16}
UNIVERSAL = "a plain gray background"


def settings(**chosen: Any) -> dict[str, Any]:
    """The contents of `dnp.json`."""
    return {
        "scale": 3.0,
        "strength": 1.0,
        "guidance": "NegPrompt(s, strength=w)",
        "dns": "DNS(1)",
        **SAMPLING,
        "dns_steps": 16,
        "captioner": "captioner",
        "universal": UNIVERSAL,
        "words": list(WORDS),
        **chosen,
    }


def save(folder: Path, values: dict[str, Any]) -> None:
    (folder / "dnp.json").write_text(json.dumps(values, indent=2) + "\n")


def choose(folder: Path, prompts: int = 50, seeds: int = 6) -> dict[str, Any]:
    """Measure on the model in `folder`, write its `dnp.json`, and return the measurements."""
    save(folder, settings())
    model, judge = StableDiffusion(str(folder)), Judge(folder / "judge")
    captioner = Transformers(folder / "captioner")
    texts = [prompt for prompt in world_prompts(prompts, held_out=True) for _ in range(seeds)]
    numbers = list(range(seeds)) * prompts
    bar = tqdm(total=len(SCALES) + len(DNS_SCALES) + 2 * (len(STRENGTHS) + len(DNS_STEPS)), desc="choosing")

    def run(guidance: Guidance, steps: int = 16, **others: Sequence[str]) -> tuple[list[Verdict], list[Image.Image]]:
        sampling = Sampling(**SAMPLING | {"steps": steps})
        found = adherence(model, judge, guidance, {"prompt": texts, **others}, numbers, sampling)
        bar.update()
        return found

    plain: dict[float, list[bool]] = {}
    rows: dict[float, Any] = {}
    for scale in SCALES:
        verdicts = run(CFG(scale))[0]
        plain[scale] = [v.right for v in verdicts]
        rows[scale] = {"right": share(plain[scale]), "neglected": share([v.neglected for v in verdicts])}
    best = max(SCALES, key=lambda scale: sum(plain[scale]))

    captions: dict[float, list[str]] = {}
    readable: dict[float, Any] = {}
    for scale in DNS_SCALES:
        images = run(DNS(scale))[1]
        captions[scale] = captioner(images)
        agree = [agrees(caption, seen) for caption, seen in zip(captions[scale], judge(images), strict=True)]
        readable[scale] = {"agree": share(agree), "captions": len(set(captions[scale]))}
    clearest = max(row["agree"][0] for row in readable.values())
    dns = max(scale for scale in DNS_SCALES if readable[scale]["agree"][0] >= clearest - 0.05)

    strengths: list[dict[str, Any]] = []
    by_strength: dict[float, list[bool]] = {}
    for w in STRENGTHS:
        for name, negative in (("its own caption", captions[dns]), ("universal", [UNIVERSAL] * len(texts))):
            right = [v.right for v in run(NegPrompt(best, strength=w), negative=negative)[0]]
            row = {"w": w, "negative": name, "right": share(right), "gain": gain(right, plain[best], texts)}
            strengths.append(row)
            by_strength.setdefault(w, right)
    own = [row for row in strengths if row["negative"] == "its own caption"]
    strength = max(own, key=lambda row: row["right"][0])["w"]

    fewer: list[dict[str, Any]] = []
    for steps in DNS_STEPS:
        negatives = captioner(run(DNS(dns), steps)[1])
        right = [v.right for v in run(NegPrompt(best, strength=strength), negative=negatives)[0]]
        same = [a == b for a, b in zip(negatives, captions[dns], strict=True)]
        row = {"steps": steps, "same": share(same), "right": share(right)}
        fewer.append(row | {"gain": gain(right, by_strength[strength], texts)})
    enough = [row["steps"] for row in fewer if row["gain"].difference >= 0]
    bar.close()

    chosen = settings(scale=best, strength=strength, dns=f"DNS({dns:g})", dns_steps=min(enough, default=16))
    save(folder, chosen)
    found = {"images": len(texts), "settings": chosen, "plain": rows, "dns": readable}
    return found | {"strength": strengths, "fewer": fewer}
