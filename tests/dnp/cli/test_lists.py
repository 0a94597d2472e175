"""`dnp models`, `samplers`, `formulas` and `env`: what there is."""

import importlib.metadata
import re
from types import SimpleNamespace

import huggingface_hub
import pytest

from dnp.cli.lists import plain_text
from dnp.models.locate import EMBEDDED
from guidance import strategies
from samplers import SAMPLERS, SCHEDULES


def test_samplers_and_schedules(dnp):
    listed = dnp("samplers").stdout
    names = re.findall(r"^  (\w+) ", listed, re.M)
    assert names == [*SAMPLERS, *SCHEDULES] and "DPM-Solver++(2M); 1 evaluation a step" in listed


def test_formulas_are_text(dnp):
    listed = dnp("formulas").stdout
    assert "NegPrompt(s, evaluations=3)" in listed and "eq. 19" in listed
    assert "ε(empty) + 7.5 (ε(prompt) − ε(negative))" in listed
    assert not re.search(r":\w+:|`|\\", listed)
    assert all(f"{name}(" in listed for name in strategies())
    assert "where σ is within bounds" in listed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"by :math:`\pi`, see :class:`~guidance.DNS`", "by π, see guidance.DNS"),
        ("as in ``Composable(cat=7.5)`` or `x`", "as in Composable(cat=7.5) or x"),
        (r":math:`s_0 \hat x`", "s_0 hat x"),
    ],
)
def test_markup_becomes_text(text, shown):
    assert plain_text(text) == shown


def test_models_without_a_cache(dnp, monkeypatch):
    def no_cache():
        raise huggingface_hub.CacheNotFound("there is none", cache_dir="/nowhere")

    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", no_cache)
    listed = dnp("models").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["embedded", "DIR", "FILE", "HUB_ID"] and str(EMBEDDED) in listed[0]


def installed(name, **files):
    return SimpleNamespace(metadata={"Name": name}, read_text=lambda file: files.get(file.partition(".")[0]))


OURS = installed("dnp", top_level="dnp\nguidance\n")


def test_env_says_what_computes(dnp, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [OURS, installed("x", top_level="x")])
    shown = dnp("env").stdout
    for name in ("python", "dnp", "torch", "k-diffusion", "diffusers", "transformers"):
        assert re.search(rf"^{name} \d", shown, re.M), name
    assert re.search(r"^devices: .*cpu \(\d+ cores\)$", shown, re.M)
    assert "no other distribution claims guidance, samplers" in shown


@pytest.mark.parametrize("files", [{"top_level": "guidance\n"}, {"RECORD": "guidance/__init__.py,,\n"}])
def test_env_warns_of_another_distribution_with_our_names(dnp, monkeypatch, files):
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [OURS, installed("guidance", **files)])
    shown = dnp("env").stdout
    assert "the distribution guidance also claims the package 'guidance'" in shown
    assert "pip uninstall guidance" in shown and "no other distribution" not in shown
