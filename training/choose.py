"""Chooses the embedded model's defaults by measurement, on prompts that are in no evaluation.

In this order, each step with what the ones before it chose: the plain scale at which most prompts come out right; the
scale of DNS at which the captions of its pictures are right most often, so that they are pictures of the world at all
and not blobs; the strength of the negative prompt at which most prompts come out right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from captioning import Transformers
from dnp.recipe import Sampling
from dnp.stable_diffusion import StableDiffusion
from eval.judge import Judge
from eval.prompts import world_prompts
from eval.world import WORDS, Scene, parse
from guidance import CFG, DNS, NegPrompt
from training.measure import adherence, gain, share

SCALES = (1.0, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0)
DNS_SCALES = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
STRENGTHS = (0.5, 1.0, 2.0)
SAMPLING = {"sampler": "dpmpp_2m", "schedule": "karras", "steps": 20}
UNIVERSAL = "a plain gray background"


def settings(**chosen: Any) -> dict[str, Any]:
    """The contents of `dnp.json`."""
    return {
        "scale": 3.0,
        "strength": 1.0,
        "guidance": "NegPrompt(s, strength=w)",
        "dns": "DNS(1)",
        **SAMPLING,
        "dns_steps": 20,
        "captioner": "captioner",
        "universal": UNIVERSAL,
        "words": list(WORDS),
        **chosen,
    }


def save(folder: Path, values: dict[str, Any]) -> None:
    (folder / "dnp.json").write_text(json.dumps(values, indent=2) + "\n")


def _agrees(caption: str, seen: Scene) -> bool:
    try:
        return parse(caption).same_as(seen)
    except ValueError:
        return False


def choose(folder: Path, prompts: int = 50, seeds: int = 6) -> dict[str, Any]:
    """Measure on the model in `folder`, write its `dnp.json`, and return the measurements."""
    save(folder, settings())
    model, judge, captioner = (
        StableDiffusion(str(folder)),
        Judge(folder / "judge"),
        Transformers(str(folder / "captioner")),
    )
    sampling = Sampling(**SAMPLING)  # type: ignore[arg-type]
    texts = [prompt for prompt in world_prompts(prompts, held_out=True) for _ in range(seeds)]
    numbers = list(range(seeds)) * prompts
    found: dict[str, Any] = {"images": len(texts), "plain": {}, "dns": {}, "strength": {}}
    bar = tqdm(total=len(SCALES) + len(DNS_SCALES) + 2 * len(STRENGTHS), desc="choosing")

    def run(guidance: Any, **others: list[str]) -> Any:
        verdicts, images = adherence(model, judge, guidance, {"prompt": texts, **others}, numbers, sampling)
        bar.update()
        return [v.right for v in verdicts], [v.neglected for v in verdicts], images

    plain = {scale: run(CFG(scale))[:2] for scale in SCALES}
    for scale, (right, neglected) in plain.items():
        found["plain"][scale] = {"right": share(right), "neglected": share(neglected)}
    best = max(SCALES, key=lambda scale: sum(plain[scale][0]))
    captions = {}
    for scale in DNS_SCALES:
        images = run(DNS(scale))[2]
        captions[scale] = captioner(images)
        agree = [_agrees(caption, seen) for caption, seen in zip(captions[scale], judge(images), strict=True)]
        found["dns"][scale] = {
            "captioner and judge agree": share(agree),
            "captions": len(set(captions[scale])),
        }
    agreed = {scale: entry["captioner and judge agree"][0] for scale, entry in found["dns"].items()}
    # among scales whose pictures are about as readable as the most readable, the strongest is the most negative
    dns = max(scale for scale in DNS_SCALES if agreed[scale] >= max(agreed.values()) - 0.05)
    results = {}
    for strength in STRENGTHS:
        for name, negative in (("own caption", captions[dns]), ("universal", [UNIVERSAL] * len(texts))):
            right = run(NegPrompt(best, strength=strength), negative=negative)[0]
            results[strength, name] = right
            found["strength"][f"{strength:g} {name}"] = {
                "right": share(right),
                "gain": gain(right, plain[best][0], texts),
            }
    strength = max(STRENGTHS, key=lambda w: sum(results[w, "own caption"]))
    bar.close()
    save(folder, settings(scale=best, strength=strength, dns=f"DNS({dns:g})"))
    return found | {"chosen": {"scale": best, "dns": dns, "strength": strength}}
