"""A worker, and captioners that fail it."""

import json
from dataclasses import replace

import pytest

from captioning import CaptionError
from dnp.attention.attend_and_excite import AttendAndExcite
from dnp.experiments import worker
from dnp.experiments.arms import arms
from dnp.experiments.plan import Plan
from dnp.experiments.sweep import sweep
from dnp.experiments.worker import Painter, captions
from dnp.models.defaults import Defaults
from dnp.models.locate import EMBEDDED
from dnp.recipe import hook_of, paint
from eval.prompts import Prompt

HOW = replace(Defaults.of(EMBEDDED), steps=1, dns_steps=1)
PLAN = Plan("embedded", tuple(map(Prompt, ("a red circle", "a green heart"))), tuple(arms(["dnp"], [], HOW)))


class Captioner:
    """Says of each picture, a letter here, what it is told; fails for those of which it is told nothing."""

    name = "told"

    def __init__(self, **says):
        self.says = says

    def __call__(self, images):
        if lacking := [image for image in images if image not in self.says]:
            raise CaptionError(f"nothing of {lacking[0]}")
        return [self.says[image] for image in images]


def test_one_bad_caption_is_left_out():
    assert captions(Captioner(a="A", c="C"), "abc") == [("A", ""), ("", "nothing of b"), ("C", "")]
    assert captions(Captioner(c="C", f="F"), "abcdef"[1:]) == [
        ("", "nothing of b"), ("C", ""), ("", "nothing of d"), ("", "nothing of e"), ("F", "")
    ]  # fmt: skip


@pytest.mark.parametrize("images", ["b", "bd", "abdef"])
def test_a_captioner_that_does_not_work_is_an_error(images):
    with pytest.raises(CaptionError, match="nothing of"):
        captions(Captioner(a="A"), images)


def test_captions_that_cannot_be_used_are_no_negative_prompts(embedded, tmp_path):
    class Half:
        name = "half"

        def __call__(self, images):
            if len(images) > 1 or self.asked:
                self.asked = len(images) == 1
                raise CaptionError("no answer")
            self.asked = True
            return ["..."]

        asked = False

    def do(plan, todo, threads):
        return (Painter(plan, embedded, Half())(unit) for unit in todo)

    records = sweep(PLAN, [5], tmp_path, do=do).records
    assert {r["negative_prompt"] for r in records.values()} == {""}
    first, second = (records[f"images/dns/000{place}-00005.png"] for place in (0, 1))
    assert first["caption"] == "..." and "caption_error" not in first
    assert second["caption"] == "" and second["caption_error"] == "no answer"
    assert {r["captioner"] for r in records.values()} == {"half"}
    assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 4
    assert json.loads((tmp_path / "run.json").read_text())["kind"] == "sweep"


def test_the_rows_of_the_paper_s_second_table(embedded, tmp_path):
    class Says:
        name = "says"

        def __call__(self, images):
            return ["a plain gray background"] * len(images)

    def do(plan, todo, threads):
        return (Painter(plan, embedded, Says())(unit) for unit in todo)

    plan = replace(PLAN, arms=tuple(arms(["plain", "dnp", "ae", "ae+dnp"], [], HOW)))
    records = sweep(plan, [5], tmp_path, do=do).records
    assert {path.split("/")[1] for path in records} == {"plain", "dns", "dnp", "ae", "ae+dnp"}
    for place, prompt in enumerate(PLAN.prompts):
        row = {arm: records[f"images/{arm}/000{place}-00005.png"] for arm in ("plain", "dnp", "ae", "ae+dnp")}
        assert len({record["sha256"] for record in row.values()}) == 4
        assert row["ae"]["negative_prompt"] == "" and row["ae+dnp"]["negative_prompt"] == "a plain gray background"
        hook = AttendAndExcite().on(embedded, [prompt.text])
        paint(embedded, "CFG(7.5)", {"prompt": prompt.text}, 5, plan.arms[2].sampling, hook=hook_of(hook))
        assert row["ae"]["evaluations"] == row["plain"]["evaluations"] + hook.evaluations[0]
        assert row["ae+dnp"]["evaluations"] > row["dnp"]["evaluations"]
    settings = json.loads((tmp_path / "run.json").read_text())["arms"]
    assert [arm.get("attend", False) for arm in settings] == [False, False, True, True]


def test_plans_of_the_same_model_load_it_once(embedded, monkeypatch):
    loads = []
    monkeypatch.setattr(worker, "StableDiffusion", lambda *a, **o: loads.append(a) or embedded)
    worker._loaded.cache_clear()
    other = replace(PLAN, arms=tuple(arms(["plain"], [], HOW)))
    for plan in (other, replace(other, prompts=PLAN.prompts[:1]), replace(other, dtype="float32")):
        worker.do(plan, plan_unit(plan), 1)
    worker._loaded.cache_clear()
    assert loads == [("embedded", None, None), ("embedded", None, "float32")]


def plan_unit(plan):
    from dnp.experiments.plan import units

    return units(plan, [0])[0]
