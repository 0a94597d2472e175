"""Scored runs that are made up, so that what a report must say is known."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

KIND = {"higher_is_better": True, "unit": "share", "binary": True, "question": "Do the pictures show it?"}


def describe(name, guidance="u", negative="none", **facts):
    """An arm as `run.json` describes it."""
    walk = {"sampler": "euler", "schedule": "karras", "steps": 8}
    about = {"name": name, "guidance": guidance, "negative": negative, "scale": 7.5, "strength": 1.0, "sampling": walk}
    return about | {"dns": "DNS(7.5)", "dns_sampling": walk | {"steps": 4}, "dns_arm": None} | facts


def write(path, values, metrics=None, arms=(), records=None, **files):
    """A folder of pictures and their scores.

    Args:
        values: (arm, prompt, seed, category) → metric → value.
        records: (arm, prompt, seed) → what its line says besides.
    """
    rng = np.random.default_rng(0)
    lines, rows = [], []
    for place, ((name, prompt, seed, category), scores) in enumerate(values.items()):
        file = f"{place}.png"
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path / file)
        record = {"path": file, "prompt": prompt, "seed": seed, "arm": name, "category": category}
        record |= {"evaluations": 8, "seconds": 0.5, "scale": 7.5, "guidance": "u", "model": "tiny"}
        lines.append(json.dumps(record | (records or {}).get((name, prompt, seed), {})))
        rows += [[file, name, prompt, seed, category, metric, value] for metric, value in scores.items()]
    (path / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    with open(path / "scores.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "arm", "prompt", "seed", "category", "metric", "value"], *rows])
    names = dict.fromkeys(metric for scores in values.values() for metric in scores)
    (path / "metrics.json").write_text(json.dumps({name: {"name": "judge"} | KIND for name in names} | (metrics or {})))
    (path / "run.json").write_text(json.dumps({"arms": list(arms)}))
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


@pytest.fixture(scope="session")
def arm():
    return describe


@pytest.fixture(scope="session")
def write_run():
    return write


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """20 prompts and 6 seeds: an arm that is better, one that is plain's equal but for luck, diffusion-negatives."""
    rng = np.random.default_rng(0)
    values, records = {}, {}
    for place in range(20):
        category, prompt, luck = ("one", "two")[place % 2], f"a <b> {place}", rng.random(6)
        for seed in range(6):
            for name, gain in {"dns": 0.0, "plain": 0.0, "better": 0.3, "same": 0.0}.items():
                right = float(luck[seed] < 0.4 + gain) if name != "same" else float(rng.random() < 0.4)
                scored = name != "dns" and (name, place, seed) != ("same", 0, 0)
                values[name, prompt, seed, category] = {"both right": right, "neglected": 1 - right} if scored else {}
                caption = "a & b" if name in ("dns", "better") else ""
                source = {"dns": "dns", "better": "auto"}.get(name, "none")
                records[name, prompt, seed] = {"caption": caption, "negative_prompt": caption, "source": source}
    tried = [{"scale": s, "value": v, "low": v - 0.1, "high": v + 0.1} for s, v in ((3.0, 0.35), (7.5, 0.4))]
    chosen = {"plain": {"chosen": 7.5, "tried": tried}}
    scales = {"metric": "clip cosine", "name": "tiny clip", "prompts": 5, "seeds": 4, "arms": chosen}
    arms = [describe("plain", "CFG(s)"), describe("better", "NegPrompt(s)", "auto", dns_arm="dns"), describe("same")]
    metrics = {"neglected": {"name": "judge"} | KIND | {"higher_is_better": False}}
    return write(tmp_path_factory.mktemp("run"), values, metrics, arms, records, scales=scales)
