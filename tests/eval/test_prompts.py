"""The prompt sets."""

import pytest

from eval.prompts import PROMPT_SETS, attend_and_excite, entities, prompt_set
from eval.world import parse


def categories(prompts):
    return list(dict.fromkeys(prompt.category for prompt in prompts))


def test_attend_and_excite_has_its_276_prompts():
    prompts = attend_and_excite()
    counts = {name: sum(p.category == name for p in prompts) for name in categories(prompts)}
    assert counts == {"animal-animal": 66, "animal-object": 144, "object-object": 66}
    texts = [p.text for p in prompts]
    assert len(set(texts)) == 276 and texts[0] == "a cat and a dog"
    assert sum(" with " in text for text in texts) == 36 and "a cat with a bow" in texts
    assert any(text.startswith("a elephant and ") for text in texts)  # articles as they are
    assert all(p.entities == entities(p.text) and len(p.entities) == 2 for p in prompts)


def test_draws_are_fixed_and_held_out_prompts_are_others():
    drawn = prompt_set("attend-and-excite", 50)
    assert drawn == prompt_set("attend-and-excite", 50) and len(drawn) == 150
    others = prompt_set("attend-and-excite", 16, held_out=True)
    assert len(others) == 48 and not {p.text for p in drawn} & {p.text for p in others}
    assert categories(others) == categories(drawn) and all(len(parse(p.text).things) == 2 for p in others)


def test_counts_of_our_own_sets():
    assert {name: len(prompt_set(name)) for name in PROMPT_SETS} == {
        "attend-and-excite": 276,
        "world": 276,
        "humans": 45,
        "hands": 25,
    }


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("# mine\na cat  and a dog\n\na tree\na tree\n")
    prompts = prompt_set(str(path))
    assert [(p.text, p.entities) for p in prompts] == [("a cat and a dog", ("a cat", "a dog")), ("a tree", ("a tree",))]
    with pytest.raises(ValueError, match="holds no prompts out"):
        prompt_set(str(path), held_out=True)
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="no prompts in"):
        prompt_set(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        prompt_set(str(path))
    with pytest.raises(ValueError, match="neither a text file nor one of attend-and-excite"):
        prompt_set("nowhere")
