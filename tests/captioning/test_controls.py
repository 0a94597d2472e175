from collections.abc import Callable

import pytest
from PIL import Image

from captioning import UNIVERSAL, Captioner, CaptionError, Fixed, RandomCaption, Universal, usable

CAPTIONS = [f"caption {i}" for i in range(50)]


@pytest.mark.parametrize("captioner", [Fixed("a dog"), Universal(), RandomCaption(CAPTIONS)])
def test_controls_are_captioners(captioner: Captioner, images: list[Image.Image]) -> None:
    assert isinstance(captioner, Captioner) and captioner.name
    assert len(captioner(images)) == len(images)
    assert captioner([]) == []


def test_fixed_and_universal_say_the_same_of_every_image(images: list[Image.Image]) -> None:
    assert set(Fixed("a dog")(images)) == {"a dog"}
    assert set(Universal()(images)) == {", ".join(UNIVERSAL)}
    assert Universal(["a gray background"])(images[:1]) == ["a gray background"]
    assert usable(Universal()(images)[0]).used == ", ".join(UNIVERSAL)  # none of it is cut


def test_random_depends_on_the_image_and_the_seed_alone(images: list[Image.Image]) -> None:
    captioner = RandomCaption(CAPTIONS, seed=1)
    captions = captioner(images)

    assert set(captions) <= set(CAPTIONS) and len(set(captions)) > 1
    assert captioner(images[::-1]) == captions[::-1]
    assert [captioner([image.copy()])[0] for image in images] == captions
    assert RandomCaption(CAPTIONS, seed=2)(images) != captions


def test_random_draws_evenly() -> None:
    pictures = [Image.new("RGB", (1, 1), (i % 256, i // 256, 0)) for i in range(1000)]
    drawn = RandomCaption(["heads", "tails"])(pictures)
    assert 430 < drawn.count("heads") < 570  # 500 and more than four standard deviations of 16 either side


def test_names_tell_lists_and_seeds_apart() -> None:
    makers: list[Captioner] = [
        Universal(),
        Universal(["ugly"]),
        Universal(["blurry"]),
        RandomCaption(CAPTIONS),
        RandomCaption(CAPTIONS, seed=1),
        RandomCaption(CAPTIONS[:-1] + ["another"]),
        Fixed("ugly"),
    ]
    assert len({maker.name for maker in makers}) == len(makers)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fixed("  "), "needs a text"),
        (lambda: Universal([]), "at least one"),
        (lambda: RandomCaption(["a dog", ""]), "none of them empty"),
        (lambda: RandomCaption("a dog"), "not the one text 'a dog'"),
    ],
)
def test_nothing_to_say_is_an_error(make: Callable[[], Captioner], message: str) -> None:
    with pytest.raises(CaptionError, match=message):
        make()
