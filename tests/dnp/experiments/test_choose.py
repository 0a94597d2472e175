"""Scales are chosen on prompts that nothing is evaluated on."""

import pytest

from dnp.experiments.choose import split


def test_prompts_to_choose_on_are_not_evaluated_even_where_all_were_asked_for():
    asked, held_out = split("attend-and-excite", held_out=10)
    assert len(held_out) == 30 and len(asked) == 276 and not {*asked} & {*held_out}
    asked, held_out = split("world", held_out=10)
    assert len(held_out) == 30 and len(asked) == 276 - 30 and not {*asked} & {*held_out}


def test_none_are_held_out_unless_asked_for():
    asked, held_out = split("attend-and-excite", 50)
    assert len(asked) == 150 and held_out == []


def test_a_set_without_any_to_hold_out():
    with pytest.raises(ValueError, match="holds no prompts out"):
        split("humans", held_out=10)
