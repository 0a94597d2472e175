"""The sweep: every picture once and the same, whoever made it and whatever happened on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dnp import DNPError
from dnp.experiments.arms import ARMS, arms, background, without
from dnp.experiments.plan import Place, Plan, exchange
from dnp.experiments.sweep import sweep
from dnp.models.defaults import Defaults
from dnp.models.locate import EMBEDDED
from eval.prompts import Prompt

HOW = replace(Defaults.of(EMBEDDED), steps=2, dns_steps=2)
TEXTS = ("a red circle and a blue square", "a green heart and a white star", "a pink cross and a gray heart")
PROMPTS = tuple(Prompt(text, tuple(text.split(" and ")), "two") for text in TEXTS)
ALONE = Place(threads=1)  # as the workers of a pool, so that sums are taken in the same order


def plan_of(names=("plain", "dnp", "shuffled"), own=(), prompts=PROMPTS, batch=2, **scales) -> Plan:
    others = ("a purple star", "a black heart") if "random" in names else ()
    return Plan("embedded", prompts, tuple(arms(names, own, HOW, scales)), others, batch=batch)


def pictures(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def lines(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    sweep(plan_of(), [0, 1], folder, ALONE)
    return folder


def test_every_arm_prompt_and_seed_is_there_once(whole):
    records = lines(whole)
    keys = [(r["arm"], r["prompt"], r["seed"]) for r in records]
    assert len(keys) == len(set(keys)) == 4 * 3 * 2
    assert {r["path"] for r in records} == set(pictures(whole))


def test_captions_go_to_their_own_pictures_and_shuffled_ones_to_others(whole):
    records = {(r["arm"], r["prompt"], r["seed"]): r for r in lines(whole)}
    partner = exchange(PROMPTS)
    for (arm, prompt, seed), record in records.items():
        if arm == "dnp":
            assert record["caption"] == records["dns", prompt, seed]["caption"] != ""
            assert record["negative_prompt"] == record["caption"]
        if arm == "shuffled":
            assert record["caption"] == records["dns", TEXTS[partner[TEXTS.index(prompt)]], seed]["caption"]


@pytest.mark.parametrize("sizes", [(2, 2), (5, 3, 2), (7, 1)])
def test_exchange_leaves_nobody_their_own_and_stays_in_the_category(sizes):
    prompts = [Prompt(f"{c} {i}", (), str(c)) for c, size in enumerate(sizes) for i in range(size)]
    partner = exchange(prompts)
    assert sorted(partner) == list(range(len(prompts)))
    assert all(place != other for place, other in enumerate(partner))
    if 1 not in sizes:
        assert all(prompts[place].category == prompts[other].category for place, other in enumerate(partner))


def test_arms_start_from_the_same_noise(tmp_path):
    sweep(plan_of(["plain"], [("same", "u + s*(p - u)", "none")]), [3], tmp_path, ALONE)
    made = pictures(tmp_path)
    for name in made:
        if "/plain/" in name:
            same = tmp_path / name.replace("/plain/", "/same/")
            assert Image.open(tmp_path / name).tobytes() == Image.open(same).tobytes()


def test_all_arms_by_name_and_formula(tmp_path):
    plan = plan_of([*ARMS], [("mine", "u + s*(p - n)", "a star")], PROMPTS[:2], universal=3.0)
    ledger = sweep(plan, [0], tmp_path, ALONE)
    made = {r["arm"]: r for r in ledger.records.values()}
    assert set(made) == {*ARMS, "mine", "dns"}
    assert made["mine"]["negative_prompt"] == "a star" and made["mine"]["strength"] is None
    assert made["universal"]["scale"] == 3 and made["universal"]["negative_prompt"] == HOW.universal
    assert made["random"]["negative_prompt"] in plan.others
    assert [made[name]["evaluations"] for name in ("plain", "dnp2", "dnp3")] == [4, 4, 6]


def test_a_random_caption_is_never_the_prompt_itself(tmp_path):
    plan = replace(plan_of(["random"], prompts=PROMPTS[:2], batch=1), others=TEXTS[:2])
    records = sweep(plan, range(4), tmp_path, ALONE).records.values()
    assert all(r["negative_prompt"] in TEXTS[:2] and r["negative_prompt"] != r["prompt"] for r in records)
    with pytest.raises(DNPError, match="other prompts to draw from"):
        replace(plan, others=TEXTS[:1])


def test_two_processes_and_ray_give_the_same_bytes(whole, tmp_path):
    for name, place in {"pool": Place(workers=2), "ray": Place(workers=2, ray="local")}.items():
        sweep(plan_of(), [0, 1], tmp_path / name, place)
        assert pictures(tmp_path / name) == pictures(whole)
        assert lines(tmp_path / name) == lines(whole)


def test_ray_does_the_work_of_a_worker_that_died_again(whole, tmp_path, monkeypatch):
    # every worker process dies at its first unit, once
    monkeypatch.setenv("DNP_TEST_DIE_ONCE", str(tmp_path / "died"))
    import dnp.experiments.worker as module

    honest = module.do

    def dies_once(plan, unit, threads):
        marker = Path(os.environ["DNP_TEST_DIE_ONCE"])
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(plan, unit, threads)

    monkeypatch.setattr(module, "do", dies_once)
    sweep(plan_of(), [0, 1], tmp_path / "out", Place(workers=1, ray="local"))
    assert (tmp_path / "died").exists()
    assert pictures(tmp_path / "out") == pictures(whole)


def test_killed_at_any_moment_it_goes_on(whole, tmp_path):
    out = tmp_path / "out"
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_sweep import *
sweep(plan_of(), [0, 1], Path({str(out)!r}), ALONE)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (out / "manifest.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(pictures(out)) < len(pictures(whole)), "it was done before it could be killed"
    sweep(plan_of(), [0, 1], out, ALONE)
    assert pictures(out) == pictures(whole) and lines(out) == lines(whole)


def test_a_torn_line_a_lost_picture_and_more_seeds(whole, tmp_path):
    out = tmp_path / "out"
    sweep(plan_of(), [0], out, ALONE)
    manifest = out / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-40])
    (out / "images" / "dnp" / "0001-00000.png").unlink()
    sweep(plan_of(), [0, 1], out, ALONE)
    assert pictures(out) == pictures(whole) and lines(out) == lines(whole)


def test_other_settings_are_refused(whole):
    with pytest.raises(DNPError, match="holds another run"):
        sweep(plan_of(["plain"]), [0], whole, ALONE)


@pytest.mark.parametrize(
    ("names", "own", "scales", "says"),
    [
        (["best"], [], {}, "'best' is none of plain"),
        (["plain", "plain"], [], {}, "twice"),
        (["plain"], [("dns", "CFG(s)", "none")], {}, "cannot name a folder"),
        (["plain"], [("../x", "CFG(s)", "none")], {}, "cannot name a folder"),
        (["plain"], [("x", "u + s*(p - n)", "none")], {}, "needs a text for 'negative'"),
        (["plain"], [("x", "u + s*(p - n)", " ")], {}, "is empty: write none"),
        (["plain"], [], {"dnp": 3.0}, "none of the arms plain"),
    ],
)
def test_bad_arms_are_named(names, own, scales, says):
    with pytest.raises(DNPError, match=says):
        arms(names, own, HOW, scales)


def test_one_prompt_cannot_be_shuffled():
    with pytest.raises(DNPError, match="only one prompt"):
        plan_of(prompts=PROMPTS[:1])


def test_a_caption_that_says_nothing_is_no_negative_prompt(tmp_path, monkeypatch):
    class Silent:
        name = "silent"

        def __call__(self, images):
            return [""] * len(images)

    monkeypatch.setattr("dnp.experiments.worker.captioner_of", lambda model, name: Silent())
    from dnp.experiments.worker import _painter

    _painter.cache_clear()
    sweep(plan_of(["plain", "dnp"], dnp=7.5), [5], tmp_path, ALONE)
    _painter.cache_clear()
    assert all(r["negative_prompt"] == "" for r in lines(tmp_path))


@pytest.mark.parametrize(
    ("caption", "prompt", "left"),
    [
        ("a red circle on a dotted pink background", "a red circle and a blue square", "a dotted pink background"),
        ("a dog and a cat in the snow", "a cat with a bow", "a dog in the snow"),
        ("A Cat, sleeping", "the cat", "A sleeping"),
        ("a red circle and a star", "a red star", "a circle"),
        ("a red circle on a background", "a red circle on a green background", ""),
        ("cats on a mat", "a cat", "cats on a mat"),
    ],
)
def test_a_caption_without_the_prompts_words(caption, prompt, left):
    assert without(caption, prompt) == left


def test_the_background_of_a_caption():
    assert background("a red circle and a star on a dotted pink background") == "a dotted pink background"
    assert background("a dotted background") == "a dotted background"
    assert background("a red circle") == background("a dog on a beach") == ""


def test_parts_of_captions_are_negative_prompts(tmp_path):
    own = [(source, "NegPrompt(s)", source) for source in ("auto", "auto-without-prompt", "auto-background")]
    sweep(plan_of(("plain",), own), [0], tmp_path, ALONE)
    records = {(r["arm"], r["prompt"]): r for r in lines(tmp_path)}
    used = {arm: [] for arm in ("auto", "auto-without-prompt", "auto-background")}
    for (arm, prompt), r in records.items():
        if arm in used:
            assert r["caption"] == records["dns", prompt]["caption"]
            used[arm].append(r["negative_prompt"])
            if arm == "auto-background":
                tail = r["caption"].rpartition(" on ")[2]  # of pictures of two steps it may be no background
                assert r["negative_prompt"] == (tail if " and " not in tail else "")
            if arm == "auto-without-prompt":
                assert not {*prompt.split()} & {*r["negative_prompt"].split()} - {"a", "and"}
    assert used["auto"] != used["auto-without-prompt"] and used["auto"] != used["auto-background"]
    with pytest.raises(ValueError, match="'a cat' in 'a cat' is no thing"):
        plan_of((), own, (Prompt("a cat", ("a cat",), ""),))
