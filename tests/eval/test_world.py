import random
from itertools import combinations

import pytest
import torch
from PIL import Image

from dnp.models.locate import EMBEDDED
from eval.metrics.judge import BODIES, Judge, JudgeNet
from eval.prompts import prompt_set
from eval.world import (
    ANIMALS,
    NOUNS,
    OBJECTS,
    UNSEEN,
    WORDS,
    Scene,
    Thing,
    describe,
    did_you_mean,
    nearest,
    parse,
    unknown,
    unseen,
)
from training.drawings import stand_ins
from training.render import draw, random_caption, random_layout

DRAWINGS = stand_ins()


def test_captions_say_what_they_are_parsed_to():
    rng = random.Random(1)
    for _ in range(300):
        told = random_caption(random_layout(rng, DRAWINGS).scene, rng)
        again = parse(describe(told))
        assert again.same_as(told) and describe(again) == describe(told)
        assert set(describe(told).split()) <= set(WORDS)
    assert parse("") == Scene() and describe(Scene()) == ""
    assert parse("An elephant and an orange bowl.") == parse("a elephant and a orange bowl")


def test_all_of_the_benchmark_is_in_the_language():
    prompts = prompt_set("attend-and-excite")
    assert len(prompts) == 276 and all(describe(parse(prompt.text)) == prompt.text for prompt in prompts)
    pairs = [frozenset(thing.noun for thing in parse(prompt.text).things) for prompt in prompts]
    assert set(pairs) == {frozenset(pair) for pair in combinations(NOUNS, 2)}
    assert all(parse(prompt.text).worn == (" with " in prompt.text) for prompt in prompts)


def test_settings_are_chosen_on_other_prompts_of_the_same_words():
    results, choices = prompt_set("attend-and-excite"), prompt_set("world")
    assert not {p.text for p in results} & {p.text for p in choices}
    assert prompt_set("attend-and-excite", held_out=True) == choices
    for a, b in zip(results, choices, strict=True):
        assert {t.noun for t in parse(a.text).things} == {t.noun for t in parse(b.text).things}
        assert set(b.text.split()) <= set(WORDS)


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("a red zebra", "did you mean horse"),
        ("a kitten on a beach", '"kitten": did you mean cat'),
        ("cat", "cat"),
        ("a red cat", "animals have their own colours"),
        ("a car with a bow", "an animal with a thing"),
        ("a cat on a table", "a cat on a table"),
    ],
)
def test_what_is_no_caption_is_named(caption, named):
    with pytest.raises(ValueError, match=named):
        parse(caption)


def test_unknown_words_and_their_nearest():
    assert unknown("a kitten, a grey dog and a xylophone") == ["kitten", "grey", "xylophone"]
    assert [nearest(w) for w in ("kitten", "grey", "cats", "puppies", "baloon", "xylophone")] == [
        "cat",
        "gray",
        "cat",
        None,
        "balloon",
        None,
    ]
    assert did_you_mean("a cat") == ""
    assert did_you_mean("a kitten and a qqq") == '"kitten": did you mean cat?; "qqq" is not in its words'


def test_right_wrong_and_neglected():
    scene = Scene((Thing("cat"), Thing("balloon", "blue")), "beach")
    assert scene.holds(Thing("balloon", "blue")) and scene.holds(Thing("balloon")) and scene.holds(Thing("cat"))
    assert not scene.holds(Thing("balloon", "red")) and not scene.neglects(Thing("balloon", "red"))
    assert scene.neglects(Thing("dog"))
    assert scene.same_as(Scene(scene.things[::-1], "beach")) and not scene.same_as(Scene(scene.things, "sea"))
    assert not scene.same_as(Scene(scene.things, "beach", worn=True))


def test_a_fifth_of_the_pairs_never_occurs_in_training():
    assert len(UNSEEN) == 51 and unseen("glasses", "lion") and unseen("lion", "glasses")
    rng = random.Random(2)
    seen = set()
    for _ in range(4000):
        scene = random_layout(rng, DRAWINGS).scene
        names = [thing.noun for thing in scene.things]
        if len(names) == 2:
            seen.add(frozenset(names))
        assert not scene.worn or (names[0] in ANIMALS and names[1] in OBJECTS)
        assert all((thing.colour is None) == (thing.noun in ANIMALS) for thing in scene.things)
        assert all(thing.colour != scene.place for thing in scene.things)
    assert not seen & UNSEEN and len(seen) > 200


def test_drawings_depend_on_their_seed_alone():
    first, again, other = (draw(random_layout(rng, DRAWINGS), rng, DRAWINGS) for rng in map(random.Random, (5, 5, 6)))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert first.size == (64, 64)


@pytest.mark.parametrize("name", ["judge", "judge2"])
def test_the_judges_read_single_colours_and_any_size(name):
    judge = Judge(EMBEDDED / name)
    blue = Image.new("RGB", (64, 64), (40, 90, 214))
    assert judge([blue]) == [Scene((), "blue")]
    assert judge([blue.resize((256, 256))]) == judge([blue]) and judge([]) == []
    rows = judge.distribution([blue, Image.effect_noise((64, 64), 60)])
    torch.testing.assert_close(rows.sum(1), torch.ones(2))


@pytest.mark.parametrize("architecture", list(BODIES))
def test_a_judge_reads_what_its_maps_say(architecture):
    """Things are where their noun's cell is highest, with the colour of that cell, from left to right."""
    net = JudgeNet(architecture)
    nouns, colours = torch.full((1, 24, 8, 8), -5.0), torch.zeros(1, 11, 8, 8)
    nouns[0, NOUNS.index("crown"), 2, 1] = 3
    nouns[0, NOUNS.index("cat"), 4, 0] = 3
    colours[0, 4, 2, 1] = 1  # blue
    place = torch.zeros(1, 19)
    place[0, 2] = 1  # beach
    net.forward = lambda x: (nouns, colours, place, torch.ones(1))
    things = (Thing("cat"), Thing("crown", "blue"))
    assert Judge(net=net).read(torch.zeros(1, 3, 64, 64)) == [Scene(things, "beach", worn=True)]


def test_a_folder_without_a_judge_or_with_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"judge\.safetensors"):
        Judge(tmp_path)
    (tmp_path / "judge.safetensors").write_bytes(b"no weights")
    with pytest.raises(FileNotFoundError, match=r"judge\.json"):
        Judge(tmp_path)
    (tmp_path / "judge.json").write_text('{"architecture": "residual"}')
    with pytest.raises(ValueError, match="cannot be loaded"):
        Judge(tmp_path)
