"""Contrast and saturation in closed form."""

import pytest
from PIL import Image

from eval.metrics.appearance import Appearance
from eval.prompts import Prompt


def test_contrast_and_saturation_in_closed_form():
    half = Image.new("RGB", (8, 8), (255, 255, 255))
    half.paste((0, 0, 0), (0, 0, 4, 8))
    found = Appearance()([half, Image.new("RGB", (8, 8), (200, 0, 0))], [Prompt("a"), Prompt("b")])
    assert found["contrast"] == pytest.approx([0.5, 0]) and found["saturation"] == pytest.approx([0, 1])
