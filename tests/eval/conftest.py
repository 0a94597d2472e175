"""Drawn pictures of known scenes (of stand-ins: no network), which several metrics are tested on."""

import pytest
from PIL import Image

from eval.prompts import Prompt, entities
from eval.world import Scene, describe
from training.data import pictures as drawn
from training.drawings import stand_ins


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    found = drawn(tmp_path_factory.mktemp("world"), 12, stand_ins, seed=5)
    images = [Image.fromarray(pixels) for pixels in found.pixels]
    prompts = [describe(Scene(layout.scene.things)) or "a red apple" for layout in found.layouts]
    return images, [Prompt(text, entities(text)) for text in prompts]
