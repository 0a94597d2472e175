"""The examples as a person runs them; what they draw agrees with the recipe, and with the pipeline itself."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnp import Sampling, paint
from dnp.models.stable_diffusion import StableDiffusion
from guidance import DNS, NegPrompt, parse

ROOT = Path(__file__).parents[2]
TEXTS = {"prompt": ["a red balloon and a blue bowl"], "negative": ["a pink background"]}


def run(name, out):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, out], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return {path.stem: np.asarray(Image.open(path).convert("RGB"), int) for path in out.iterdir()}


@pytest.fixture(scope="module")
def model():
    return StableDiffusion("embedded")


def test_sampler_script(tmp_path, model):
    pictures = run("sampler_script.py", tmp_path)
    assert set(pictures) == {"plain", "opposite", "negative"}
    assert np.abs(pictures["plain"] - pictures["opposite"]).mean() > 10
    # Its loop starts from sigma·noise, where the recipe starts from the variance of noised data: nearly the same
    wanted, _ = paint(model, NegPrompt(7.5, evaluations=3), TEXTS, [0], Sampling("euler", "model", 16))
    assert np.abs(pictures["negative"] - np.asarray(wanted[0], int)).mean() < 3


def test_diffusers_pipeline(tmp_path, model):
    pictures = run("diffusers_pipeline.py", tmp_path)
    assert set(pictures) == {"opposite", "opposite-by-pipeline", "formula"}
    assert np.abs(pictures["opposite"] - pictures["opposite-by-pipeline"]).max() <= 1
    for name, guidance in (("opposite", DNS(2.5)), ("formula", parse("u + 5*(p - u) - 0.5*(n - u)"))):
        wanted, _ = paint(model, guidance, TEXTS, [0], Sampling("euler", "leading", 16))
        assert np.abs(pictures[name] - np.asarray(wanted[0], int)).max() <= 1
