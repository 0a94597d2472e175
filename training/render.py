"""The pictures of the world: scenes made up at random and drawn, at 64 pixels, from drawings of the nouns."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from eval.world import ANIMALS, COLOURS, OBJECTS, PLACES, SCENES, WEARABLE, Scene, Thing, unseen
from training.drawings import Drawings

SIZE = 64

# Where an animal wears a thing, as shares of its drawing's side: the middle of its forehead, and of its eyes. Faces
# need no entry; the numbers of whole bodies are those of the drawings in which the animal looks to the left.
_HEAD = {"bird": (0.24, 0.1), "horse": (0.24, 0.14), "elephant": (0.3, 0.14), "turtle": (0.18, 0.3)}
_EYES = {
    "bird": (0.24, 0.24),
    "horse": (0.2, 0.24),
    "elephant": (0.22, 0.34),
    "turtle": (0.15, 0.36),
    "frog": (0.5, 0.22),
}
_FACE_HEAD, _FACE_EYES = (0.5, 0.1), (0.5, 0.42)


@dataclass(frozen=True)
class Layout:
    """Where a scene's things stand, in the scene's order: the number of the drawing, its centre and side in pixels."""

    scene: Scene
    places: tuple[tuple[int, float, float, float], ...]


def random_layout(rng: random.Random, drawings: Drawings) -> Layout:
    """A scene of two things (78 %; a quarter of those with something wearable are worn), one (18 %) or none.

    Two stand side by side. Pairs that are `unseen` are never drawn, nor a thing in the colour of a plain background.
    """
    place = rng.choice(list(SCENES)) if rng.random() < 0.7 else rng.choice(list(COLOURS))
    count = rng.choices((2, 1, 0), (78, 18, 4))[0]
    kind = rng.random()
    worn = count == 2 and kind < 0.16
    while True:
        if worn:
            nouns = [rng.choice(ANIMALS), rng.choice(WEARABLE)]
        elif count == 2:
            pools = (ANIMALS, ANIMALS) if kind < 0.4 else (ANIMALS, OBJECTS) if kind < 0.68 else (OBJECTS, OBJECTS)
            nouns = [rng.choice(pool) for pool in pools]
            rng.shuffle(nouns)
        else:
            nouns = [rng.choice(ANIMALS if kind < 0.4 else OBJECTS)][:count]
        if len(nouns) < 2 or (nouns[0] != nouns[1] and not unseen(*nouns)):
            break
    colours = [colour for colour in COLOURS if colour != place]
    things = tuple(Thing(noun, rng.choice(colours) if noun in OBJECTS else None) for noun in nouns)
    numbers = [rng.randrange(len(drawings[noun])) for noun in nouns]
    if worn:
        return _worn(Scene(things, place, True), numbers, rng)
    if count == 2:
        y = rng.uniform(0.48, 0.64)
        sides = [rng.uniform(28, 32) for _ in nouns]
        xs = [rng.uniform(0.25, 0.27) * SIZE, rng.uniform(0.73, 0.75) * SIZE]
        ys = [(y + rng.uniform(-0.07, 0.07)) * SIZE for _ in nouns]
    else:
        sides = [rng.uniform(36, 46) for _ in nouns]
        xs = [rng.uniform(0.4, 0.6) * SIZE for _ in nouns]
        ys = [rng.uniform(0.46, 0.62) * SIZE for _ in nouns]
    return Layout(Scene(things, place), tuple(zip(numbers, xs, ys, sides, strict=True)))


def _worn(scene: Scene, numbers: list[int], rng: random.Random) -> Layout:
    animal, thing = scene.things
    side = rng.uniform(38, 44)
    x, y = rng.uniform(0.42, 0.58) * SIZE, rng.uniform(0.58, 0.64) * SIZE
    whole = animal.noun in _HEAD
    size = side * (0.46 if whole else 0.56) * (1.15 if thing.noun == "glasses" else 1)
    if thing.noun == "glasses":
        dx, dy = _EYES.get(animal.noun, _FACE_EYES)
        dy_pixels = 0.0
    else:
        dx, dy = _HEAD.get(animal.noun, _FACE_HEAD)
        dy_pixels = -0.3 * size  # most of a crown or a bow stands above the forehead
    wx, wy = x + (dx - 0.5) * side, y + (dy - 0.5) * side + dy_pixels
    wx, wy = (min(max(value, size / 2), SIZE - size / 2) for value in (wx, wy))
    return Layout(scene, ((numbers[0], x, y, side), (numbers[1], wx, wy, size)))


def _tinted(drawing: np.ndarray, colour: str) -> np.ndarray:
    """The drawing with its lights and shades, all in one colour."""
    rgb, alpha = drawing[..., :3].astype(np.float32), drawing[..., 3:]
    light = rgb @ np.array([0.3, 0.59, 0.11], np.float32) / 255
    low, high = np.percentile(light[alpha[..., 0] > 128], [5, 95])
    flat = high - low < 0.02  # a drawing in one colour has neither lights nor shades
    light = (np.full_like(light, 0.7) if flat else np.clip((light - low) / (high - low + 1e-3), 0, 1))[..., None]
    base = np.array(COLOURS[colour], np.float32)
    if colour == "white":
        out = base * (0.68 + 0.32 * light)
    elif colour == "black":
        out = base + 75 * light
    else:  # shades below, a little white above
        shade, shine = np.minimum(light / 0.7, 1), np.maximum(light - 0.7, 0) / 0.3
        out = base * (0.45 + 0.55 * shade) + (255 - base) * 0.4 * shine
    return np.concatenate([np.clip(out, 0, 255).astype(np.uint8), alpha], -1)


_CACHE: dict[tuple[int, str, int, str | None], Image.Image] = {}


def _figure(drawings: Drawings, thing: Thing, number: int) -> Image.Image:
    key = (id(drawings), thing.noun, number, thing.colour)
    if key not in _CACHE:
        drawing = drawings[thing.noun][number]
        _CACHE[key] = Image.fromarray(_tinted(drawing, thing.colour) if thing.colour else drawing)
    return _CACHE[key]


def draw(layout: Layout, rng: random.Random, drawings: Drawings) -> Image.Image:
    """The picture of a layout, RGB, 64 × 64; `rng` varies the place."""
    image = _place(layout.scene.place or "white", rng)
    for thing, (number, x, y, side) in zip(layout.scene.things, layout.places, strict=True):
        size = round(side)
        figure = _figure(drawings, thing, number).resize((size, size), Image.Resampling.LANCZOS)
        image.paste(figure, (round(x - size / 2), round(y - size / 2)), figure)
    return image


def random_caption(scene: Scene, rng: random.Random) -> Scene:
    """The scene as a person might tell it: parts left out, things mostly from left to right."""
    things = [Thing(t.noun, t.colour if rng.random() < (0.5 if scene.worn else 0.9) else None) for t in scene.things]
    if rng.random() < 0.1:
        things.reverse()
    if len(things) == 2 and rng.random() < 0.08:
        things.pop(rng.randrange(2))
    place = scene.place if not things or rng.random() < 0.4 else None
    return Scene(tuple(things), place, scene.worn and len(things) == 2)


_RGB = tuple[int, int, int]


def _near(colour: _RGB, rng: random.Random, spread: int = 10) -> _RGB:
    return tuple(min(max(value + rng.randint(-spread, spread), 0), 255) for value in colour)  # type: ignore[return-value]


@cache
def _ramp(height: int) -> np.ndarray:
    return np.linspace(0, 1, max(height, 1), dtype=np.float32)[:, None, None]


def _fade(pixels: np.ndarray, top: int, bottom: int, first: _RGB, last: _RGB) -> None:
    """A vertical fade from one colour to another between two rows."""
    a, b = np.array(first, np.float32), np.array(last, np.float32)
    pixels[top:bottom] = (a + (b - a) * _ramp(bottom - top)).astype(np.uint8)


def _place(place: str, rng: random.Random) -> Image.Image:
    if place in COLOURS:
        return Image.new("RGB", (SIZE, SIZE), _near(COLOURS[place], rng, 5))
    if place not in PLACES:
        raise ValueError(f"{place!r} is none of {', '.join(PLACES)}")
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    h = int(SIZE * rng.uniform(0.42, 0.58))
    if place == "grass":
        _fade(pixels, 0, h, _near((120, 180, 235), rng), _near((200, 228, 245), rng))
        _fade(pixels, h, SIZE, _near((110, 180, 80), rng), _near((70, 140, 50), rng))
    elif place == "snow":
        _fade(pixels, 0, h, _near((165, 180, 202), rng), _near((205, 214, 228), rng))
        _fade(pixels, h, SIZE, (252, 252, 254), _near((226, 234, 244), rng, 5))
    elif place == "beach":
        k = int(h * 0.55)
        _fade(pixels, 0, k, _near((130, 200, 240), rng), _near((190, 225, 245), rng))
        _fade(pixels, k, h, _near((30, 130, 190), rng), _near((80, 180, 210), rng))
        _fade(pixels, h, SIZE, _near((240, 214, 160), rng), _near((222, 190, 130), rng))
    elif place == "night":
        _fade(pixels, 0, SIZE, _near((10, 12, 40), rng, 5), _near((34, 38, 88), rng, 6))
    elif place == "street":
        _fade(pixels, 0, h, _near((165, 190, 215), rng), _near((190, 205, 220), rng))
        pixels[h:] = _near((85, 85, 92), rng, 6)
    elif place == "room":
        pixels[:h] = _near(rng.choice([(225, 205, 180), (205, 215, 205), (218, 202, 216)]), rng, 6)
        pixels[h:] = _near((160, 110, 70), rng, 8)
    elif place == "sea":
        k = int(SIZE * 0.3)
        _fade(pixels, 0, k, _near((170, 215, 245), rng), _near((205, 230, 245), rng))
        _fade(pixels, k, SIZE, _near((30, 110, 180), rng), _near((10, 60, 120), rng))
    elif place == "sunset":
        _fade(pixels, 0, h, _near((120, 60, 130), rng), _near((250, 150, 80), rng))
        _fade(pixels, h, SIZE, _near((95, 55, 65), rng), _near((50, 30, 45), rng))
    image = Image.fromarray(pixels)
    pencil = ImageDraw.Draw(image)
    if place == "night":
        for _ in range(12):
            pencil.point((rng.randrange(SIZE), rng.randrange(SIZE // 2)), fill=(240, 240, 205))
        x = rng.randint(4, SIZE - 12)
        pencil.ellipse((x, 3, x + 8, 11), fill=(245, 240, 200))
    elif place == "street":
        x = -rng.randint(0, 8)
        while x < SIZE:
            width, top = rng.randint(13, 18), rng.randint(4, h - 14)
            pencil.rectangle((x, top, x + width - 2, h - 1), fill=_near((150, 120, 110), rng, 16))
            for left in range(x + 2, x + width - 4, 5):
                for row in range(top + 3, h - 5, 7):
                    pencil.rectangle((left, row, left + 2, row + 3), fill=(235, 225, 160))
            x += width
        for left in range(rng.randint(0, 8), SIZE, 16):
            pencil.rectangle((left, (h + SIZE) // 2, left + 7, (h + SIZE) // 2 + 1), fill=(230, 230, 230))
    elif place == "room":
        for y in range(h, SIZE, 7):
            pencil.line((0, y, SIZE, y), fill=(128, 86, 52))
        x = rng.randint(4, SIZE - 20)
        pencil.rectangle((x, 4, x + 15, 17), fill=(150, 200, 235), outline=(250, 250, 250))
    elif place == "sea":
        for _ in range(9):
            x, y = rng.randrange(SIZE), rng.randrange(int(SIZE * 0.34), SIZE)
            pencil.line((x, y, x + 6, y), fill=(130, 180, 220))
    elif place == "sunset":
        x = rng.randint(20, 44)
        pencil.ellipse((x - 7, h - 10, x + 7, h + 4), fill=(255, 220, 120))
        pencil.rectangle((0, h, SIZE, h + 5), fill=image.getpixel((0, h + 1)))
    return image
