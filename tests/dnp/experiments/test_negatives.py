"""What of a caption is a negative prompt."""

import pytest

from dnp.experiments.negatives import background, without


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
