import random

import pytest
from PIL import Image

from dnp.models.locate import EMBEDDED
from eval.judge import Judge
from eval.prompts import world_prompts
from eval.world import WORDS, Scene, Thing, describe, parse
from training.render import draw, random_caption, random_layout


def test_captions_say_what_they_are_parsed_to():
    rng = random.Random(1)
    for _ in range(300):
        told = random_caption(random_layout(rng).scene, rng)
        assert parse(describe(told)) == told
        assert set(describe(told).split()) <= set(WORDS)
    assert parse("") == Scene() and describe(Scene()) == ""


@pytest.mark.parametrize(
    ("caption", "named"),
    [("a red zebra", "a red zebra"), ("a circle on a dotted sea", "a dotted sea"), ("circle", "circle")],
)
def test_what_is_no_caption_is_named(caption, named):
    with pytest.raises(ValueError, match=named):
        parse(caption)


def test_right_wrong_and_neglected():
    scene = Scene((Thing("circle", "red"), Thing("star", "blue")), "pink", "dotted")
    assert scene.holds(Thing("circle", "red")) and scene.holds(Thing("star"))
    assert not scene.holds(Thing("star", "red")) and not scene.neglects(Thing("star", "red"))  # a wrong attribute
    assert scene.neglects(Thing("heart"))
    assert scene.same_as(Scene(scene.things[::-1], "pink", "dotted")) and scene != Scene()


def test_held_out_prompts_are_in_no_evaluation():
    evaluated, held_out = world_prompts(50), world_prompts(50, held_out=True)
    assert len(set(evaluated)) == len(set(held_out)) == 50 and not set(evaluated) & set(held_out)
    assert not set(world_prompts(2700)) & set(world_prompts(2700, held_out=True))
    assert all(len(parse(prompt).things) == 2 for prompt in evaluated)


def test_the_judge_reads_drawn_pictures():
    """95 % of whole scenes, of pictures that it was not trained on."""
    rng = random.Random("judge")
    layouts = [random_layout(rng) for _ in range(200)]
    images = [draw(layout, rng) for layout in layouts]
    judge = Judge(EMBEDDED / "judge")
    seen = judge(images)
    assert sum(a.same_as(b.scene) for a, b in zip(seen, layouts, strict=True)) >= 190
    assert judge([images[3].resize((256, 256), Image.Resampling.NEAREST)]) == [seen[3]]
    assert judge(images[:7]) == seen[:7] and judge([]) == []


def test_a_blank_picture_has_no_things():
    plain = Image.new("RGB", (64, 64), (40, 85, 215))
    assert Judge(EMBEDDED / "judge")([plain]) == [Scene((), "blue", "plain")]


def test_a_folder_without_a_judge(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"judge\.safetensors"):
        Judge(tmp_path)


def test_drawings_depend_on_their_seed_alone():
    first, again, other = (draw(random_layout(rng), rng) for rng in map(random.Random, (5, 5, 6)))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert first.size == (64, 64)
