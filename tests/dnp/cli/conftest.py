"""The command line as a person types it, and the two runs that its tests look at."""

import json
from functools import cache

import pytest
from click.testing import CliRunner

from captioning import Transformers
from dnp.cli.main import main
from dnp.models.stable_diffusion import StableDiffusion

PROMPT = "a red circle and a blue square"


def typed(*words, status=0, keys=None):
    """What `dnp WORDS` says, which ends with `status`."""
    result = CliRunner().invoke(main, [str(word) for word in words], input=keys)
    assert result.exit_code == status, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def generated(out, *options, status=0, keys=None):
    """`dnp generate` in one step."""
    return typed("generate", PROMPT, "--out", out, "--steps", 1, "--device", "cpu", *options, status=status, keys=keys)


@pytest.fixture(scope="session")
def dnp():
    return typed


@pytest.fixture(scope="session")
def generate():
    return generated


@pytest.fixture(scope="session")
def lines():
    """The records of a run's folder."""
    return lambda folder: [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Four seeds of `dnp generate`, uninterrupted."""
    folder = tmp_path_factory.mktemp("generate") / "deep" / "out"
    generated(folder, "--seed", "0-3")
    return folder


SWEEP = ("--per-category", 1, "--arms", "plain,dnp2", "--steps", 2, "--seeds", "0,1")
SWEEP += ("--choose", "3,7.5", "--choose-prompts", 1, "--choose-seeds", 1)


@pytest.fixture(scope="session")
def swept(tmp_path_factory):
    """A run of `dnp sweep` with the choice of scales, and the words that made it."""
    words = ("sweep", *SWEEP, "--out", tmp_path_factory.mktemp("sweep") / "run")
    typed(*words)
    return words[-1], words


@pytest.fixture
def loaded_once(run, embedded, monkeypatch):
    """But for the first run, the embedded model and its captioner are not read again for each command."""

    def model(name, device, dtype, **options):
        same = (name, device, dtype) == ("embedded", "cpu", None) and not any(options.values())
        return embedded if same else StableDiffusion(name, device, dtype, **options)

    monkeypatch.setattr("dnp.generate.StableDiffusion", model)
    monkeypatch.setattr("dnp.captioners.Transformers", cache(Transformers))
