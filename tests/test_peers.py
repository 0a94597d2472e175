"""docs/peers.md is what docs/peers.py writes, and what it calls the same is the same."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from diffusers import guiders

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def peers():
    spec = importlib.util.spec_from_file_location("peers", DOCS / "peers.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["peers"]


@pytest.fixture(scope="module")
def tables(peers):
    return peers.tables()


def numbers_apart(text):
    """The text without what is measured and without versions, and the numbers measured."""
    text = re.sub(r"diffusers \d[\d.]*\d", "diffusers", text)
    measured = r"(?<=[|:] )\d+(?:\.\d+)?(?:e[+-]\d+)?(?= \|)"
    return re.sub(measured, "#", text), [float(found) for found in re.findall(measured, text)]


def test_the_page_is_what_the_script_writes(tables):
    page = (DOCS / "peers.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- peers:(\w+) -->", page)) == set(tables)
    for name, table in tables.items():
        text, numbers = numbers_apart(re.search(rf"<!-- peers:{name} -->\n(.*?)<!-- /peers:{name} -->", page, re.S)[1])
        expected, values = numbers_apart(table)
        assert text == expected and numbers == pytest.approx(values, rel=0.06, abs=1e-9)


def test_what_is_called_another_formula_differs_and_its_remedy_does_not(peers):
    found = [*peers.guidances(), *peers.levels()]
    assert len({(d.name, d.peer) for d in found}) == len(found)
    for d in found:
        assert d.apart > 1e-3, d
        assert (d.left is None) == (not d.remedy) and (d.left or 0) < peers.ZERO, d


def test_what_is_called_the_same_is_the_same(peers):
    for name, _, apart in peers.same():
        assert apart < peers.ZERO, name


def test_numbers_by_hand(peers):
    """Two of the differences from their algebra: eq. 4 is u − n away, and a scale off by one is p − u away."""
    g = peers.Given()
    by = {(d.name, d.peer): d.apart for d in peers.guidances()}
    eq4, cfg = g.u + 7.5 * (g.p - g.n), g.u + 7.5 * (g.p - g.u)
    negative = by["negative prompt", "diffusers, ComfyUI, Forge"]
    assert negative == pytest.approx(float((g.u - g.n).norm() / eq4.norm()))
    assert by["CFG", "azula"] == pytest.approx(float((g.p - g.u).norm() / cfg.norm()))


def test_guiders_named_are_diffusers_own(peers):
    named = {name for line in peers.WHO for name in re.findall(r"`(\w+Guidance)`", line[2])}
    assert len(named) > 5 and all(hasattr(guiders, name) for name in named)
