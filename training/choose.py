"""Chooses the embedded model's defaults by measurement, by the first judge, on prompts that are in no evaluation.

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
from eval.metrics.judge import Judge
from eval.prompts import prompt_set
from eval.statistics import Factors, gain
from eval.world import WORDS
from guidance import CFG, DNS, Guidance, NegPrompt
from training.measure import SAMPLING, agrees, pictures_of, share, verdicts

SCALES = (1.0, 3.0, 5.0, 7.5, 10.0)
DNS_SCALES = (1.0, 3.0, 5.0, 7.5)
STRENGTHS = (0.5, 1.0, 2.0)
DNS_STEPS = (8, 6)
UNIVERSAL = "on a gray background"


def settings(**chosen: Any) -> dict[str, Any]:
    """The contents of `dnp.json`."""
    return {
        "world": "benchmark",
        "scale": 3.0,
        "strength": 1.0,
        "guidance": "NegPrompt(s, strength=w)",
        "dns": "DNS(1)",
        **SAMPLING,
        "dns_steps": SAMPLING["steps"],
        "captioner": "captioner",
        "universal": UNIVERSAL,
        "words": list(WORDS),
        "attention": 2,  # 8 × 8 maps of 16 × 16 latents
        **chosen,
    }


def save(folder: Path, values: dict[str, Any]) -> None:
    (folder / "dnp.json").write_text(json.dumps(values, indent=2) + "\n")


def choose(folder: Path, prompts: int = 20, seeds: int = 2) -> dict[str, Any]:
    """Measure on the model in `folder` (so many prompts of each category), write its `dnp.json`, and return the
    measurements."""
    save(folder, settings())
    model, judge = StableDiffusion(str(folder)), Judge(folder / "judge")
    captioner = Transformers(folder / "captioner")
    held_out = prompt_set("world", prompts)
    texts = [prompt.text for prompt in held_out for _ in range(seeds)]
    numbers = list(range(seeds)) * len(held_out)
    factors: Factors = {"prompt": texts, "seed": numbers}
    bar = tqdm(total=len(SCALES) + len(DNS_SCALES) + len(STRENGTHS) + 2 * len(DNS_STEPS), desc="choosing")

    def run(guidance: Guidance, steps: int = SAMPLING["steps"], **others: Sequence[str]) -> list[Image.Image]:
        sampling = Sampling(**SAMPLING | {"steps": steps})
        images = pictures_of(model, guidance, {"prompt": texts, **others}, numbers, sampling)
        bar.update()
        return images

    plain: dict[float, list[bool]] = {}
    rows: dict[float, Any] = {}
    for scale in SCALES:
        found = verdicts(judge, run(CFG(scale)), texts)
        plain[scale] = [v.right for v in found]
        rows[scale] = {"right": share(plain[scale], factors), "neglected": share([v.neglected for v in found], factors)}
    best = max(SCALES, key=lambda scale: sum(plain[scale]))

    captions: dict[float, list[str]] = {}
    readable: dict[float, Any] = {}
    for scale in DNS_SCALES:
        images = run(DNS(scale))
        captions[scale] = captioner(images)
        agree = [agrees(caption, seen) for caption, seen in zip(captions[scale], judge(images), strict=True)]
        readable[scale] = {"agree": share(agree, factors), "captions": len(set(captions[scale]))}
    clearest = max(row["agree"][0] for row in readable.values())
    dns = max(scale for scale in DNS_SCALES if readable[scale]["agree"][0] >= clearest - 0.05)

    strengths: list[dict[str, Any]] = []
    by_strength: dict[float, list[bool]] = {}
    for w in STRENGTHS:
        guidance = NegPrompt(best, strength=w)
        by_strength[w] = [v.right for v in verdicts(judge, run(guidance, negative=captions[dns]), texts)]
        strengths.append(
            {"w": w, "right": share(by_strength[w], factors), "gain": gain(by_strength[w], plain[best], factors)}
        )
    strength = max(strengths, key=lambda row: row["right"][0])["w"]

    fewer: list[dict[str, Any]] = []
    for steps in DNS_STEPS:
        negatives = captioner(run(DNS(dns), steps))
        right = [v.right for v in verdicts(judge, run(NegPrompt(best, strength=strength), negative=negatives), texts)]
        same = [a == b for a, b in zip(negatives, captions[dns], strict=True)]
        row = {"steps": steps, "same": share(same, factors), "right": share(right, factors)}
        fewer.append(row | {"gain": gain(right, by_strength[strength], factors)})
    enough = [row["steps"] for row in fewer if row["gain"].difference >= 0]
    bar.close()

    chosen = settings(
        scale=best, strength=strength, dns=f"DNS({dns:g})", dns_steps=min(enough, default=SAMPLING["steps"])
    )
    save(folder, chosen)
    found_all = {"images": len(texts), "prompts": len(held_out), "settings": chosen, "plain": rows, "dns": readable}
    return found_all | {"strength": strengths, "fewer": fewer}
