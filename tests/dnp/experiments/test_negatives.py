"""What of a caption is a negative prompt."""

import pytest

from dnp.experiments.negatives import background, without


@pytest.mark.parametrize(
    ("caption", "prompt", "left"),
    [
        ("a red balloon on a pink background", "a red balloon and a blue bowl", "a pink background"),
        ("a dog and a cat in the snow", "a cat with a bow", "a dog in the snow"),
        ("A Cat, sleeping", "the cat", "A sleeping"),
        ("a red balloon and a apple", "a red apple", "a balloon"),
        ("a red balloon on a background", "a red balloon on a green background", ""),
        ("cats on a mat", "a cat", "cats on a mat"),
    ],
)
def test_a_caption_without_the_prompts_words(caption, prompt, left):
    assert without(caption, prompt) == left


def test_the_background_of_a_caption():
    assert background("a red balloon and a apple on a pink background") == "on a pink background"
    assert background("on a white background") == "on a white background"
    assert background("a dog on a beach") == "on a beach"
    assert background("a red balloon") == background("a zebra on a beach") == ""
