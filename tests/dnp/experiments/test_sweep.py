"""The sweep: every picture once and the same, whoever made it and whatever happened on the way."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dnp import DNPError
from dnp.experiments.arms import ARMS, arms
from dnp.experiments.negatives import background
from dnp.experiments.plan import Place, Plan, exchange
from dnp.experiments.sweep import sweep
from dnp.models.defaults import Defaults
from dnp.models.locate import EMBEDDED
from eval.prompts import Prompt

HOW = replace(Defaults.of(EMBEDDED), steps=2, dns_steps=2)
TEXTS = ("a red balloon and a blue bowl", "a green car and a white apple", "a pink bench and a gray car")
PROMPTS = tuple(Prompt(text, tuple(text.split(" and ")), "two") for text in TEXTS)


def plan_of(names=("plain", "dnp", "shuffled"), own=(), prompts=PROMPTS, batch=2, **scales) -> Plan:
    others = ("a purple apple", "a black car") if "random" in names else ()
    return Plan("embedded", prompts, tuple(arms(names, own, HOW, scales)), others, batch=batch)


def pictures(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def lines(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in ("seconds", "peak_mib")} for record in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    sweep(plan_of(), [0, 1], folder)
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
        assert record["source"] == {"plain": "none", "dnp": "auto"}.get(arm, arm)
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
    sweep(plan_of(["plain"], [("same", "u + s*(p - u)", "none")]), [3], tmp_path)
    made = pictures(tmp_path)
    for name in made:
        if "/plain/" in name:
            same = tmp_path / name.replace("/plain/", "/same/")
            assert Image.open(tmp_path / name).tobytes() == Image.open(same).tobytes()


def test_all_arms_by_name_and_formula(tmp_path):
    plan = plan_of([*ARMS], [("mine", "u + s*(p - n)", "a apple")], PROMPTS[:2], universal=3.0)
    ledger = sweep(plan, [0], tmp_path)
    made = {r["arm"]: r for r in ledger.records.values()}
    assert set(made) == {*ARMS, "mine", "dns"}
    assert made["mine"]["negative_prompt"] == "a apple" and made["mine"]["strength"] is None
    assert made["universal"]["scale"] == 3 and made["universal"]["negative_prompt"] == HOW.universal
    assert made["random"]["negative_prompt"] in plan.others
    assert {r["source"] for name, r in made.items() if name.startswith("dn")} == {"dns", "auto"}, made
    assert made["mine"]["source"] == "text" and made["universal"]["source"] == "universal"
    assert [made[name]["evaluations"] for name in ("plain", "dnp2", "dnp3")] == [4, 4, 6]


def test_a_random_caption_is_never_the_prompt_itself(tmp_path):
    plan = replace(plan_of(["random"], prompts=PROMPTS[:2], batch=1), others=TEXTS[:2])
    records = sweep(plan, range(4), tmp_path).records.values()
    assert all(r["negative_prompt"] in TEXTS[:2] and r["negative_prompt"] != r["prompt"] for r in records)
    with pytest.raises(DNPError, match="other prompts to draw from"):
        replace(plan, others=TEXTS[:1])


def test_a_torn_line_a_lost_picture_and_more_seeds(whole, tmp_path):
    out = tmp_path / "out"
    sweep(plan_of(), [0], out)
    manifest = out / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-40])
    (out / "images" / "dnp" / "0001-00000.png").unlink()
    sweep(plan_of(), [0, 1], out)
    assert pictures(out) == pictures(whole) and lines(out) == lines(whole)


def test_other_settings_are_refused(whole):
    with pytest.raises(DNPError, match="holds another run .arms is"):
        sweep(plan_of(["plain"]), [0], whole)
    with pytest.raises(DNPError, match="holds another run .threads is 1 there, 2 here"):
        sweep(plan_of(), [0], whole, Place(threads=2))


def test_a_run_keeps_its_number_of_threads(whole, tmp_path):
    assert json.loads((whole / "run.json").read_text())["threads"] == 1
    settings = plan_of().settings() | {"threads": 3}
    (tmp_path / "run.json").write_text(json.dumps(settings))
    seen = []
    sweep(
        plan_of(),
        [],
        tmp_path,
        do=lambda plan, todo, threads: seen.append(threads) or [],
    )
    assert set(seen) == {3}


def test_sizes_that_nobody_means_are_refused():
    with pytest.raises(DNPError, match="there are 1,000,000,000,000 seeds"):
        sweep(plan_of(), range(10**12), Path("nowhere"))
    with pytest.raises(DNPError, match="the number of workers is 1,000,000"):
        Place(workers=10**6)
    with pytest.raises(DNPError, match="has 1,000,000 characters"):
        plan_of(prompts=(Prompt("x" * 10**6),))
    assert not Path("nowhere").exists()


def test_a_plan_takes_what_a_model_is_loaded_with(tmp_path):
    plan = replace(
        plan_of(["plain"], prompts=PROMPTS[:1]), loading={"size": [32, 48], "cpu_offload": False, "loras": ()}
    )
    assert plan == replace(plan, loading={"size": (32, 48)}) and hash(plan)
    (record,) = sweep(plan, [0], tmp_path).records.values()
    assert (record["width"], record["height"], record["model_options"]) == (32, 48, {"size": "32x48"})
    assert json.loads((tmp_path / "run.json").read_text())["loading"] == {"size": [32, 48]}
    sweep(plan, [0], tmp_path)  # which is that very run
    with pytest.raises(DNPError, match="loading is"):
        sweep(replace(plan, loading={}), [0], tmp_path)


def test_one_prompt_cannot_be_shuffled():
    with pytest.raises(DNPError, match="only one prompt"):
        plan_of(prompts=PROMPTS[:1])


def test_parts_of_captions_are_negative_prompts(tmp_path):
    own = [(source, "NegPrompt(s)", source) for source in ("auto", "auto-without-prompt", "auto-background")]
    sweep(plan_of(("plain",), own), [0], tmp_path)
    records = {(r["arm"], r["prompt"]): r for r in lines(tmp_path)}
    used = {arm: [] for arm in ("auto", "auto-without-prompt", "auto-background")}
    for (arm, prompt), r in records.items():
        if arm in used:
            assert r["caption"] == records["dns", prompt]["caption"]
            used[arm].append(r["negative_prompt"])
            if arm == "auto-background":
                assert r["negative_prompt"] == background(r["caption"])
            if arm == "auto-without-prompt":
                assert not {*prompt.split()} & {*r["negative_prompt"].split()} - {"a", "and"}
    assert used["auto"] != used["auto-without-prompt"] and used["auto"] != used["auto-background"]
    with pytest.raises(ValueError, match="'a zebra' in 'a zebra' is no thing"):
        plan_of((), own, (Prompt("a zebra", ("a zebra",), ""),))
