"""The drawn world's pencil: scenes made up at random and drawn, at 64 pixels, as anti-aliased pictures."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from eval.world import COLOURS, PATTERNS, SHAPES, Scene, Thing

SIZE = 64
_FINE = 4  # drawn at four times the size, then averaged: smooth edges


@dataclass(frozen=True)
class Layout:
    """Where a scene's things stand: their centre and radius in pixels, in the scene's order."""

    scene: Scene
    places: tuple[tuple[float, float, float], ...]


def random_layout(rng: random.Random) -> Layout:
    """A scene with two things (75 %), one (20 %) or none, of different shapes, none in the background's colour."""
    ground = rng.choice(list(COLOURS))
    count = rng.choices((2, 1, 0), (75, 20, 5))[0]
    colours = [c for c in COLOURS if c != ground]
    things = [Thing(shape, rng.choice(colours)) for shape in rng.sample(SHAPES, count)]
    while True:
        places = []
        for _ in things:
            radius = rng.uniform(9, 14)
            places.append(
                (
                    rng.uniform(radius + 1, SIZE - radius - 1),
                    rng.uniform(radius + 1, SIZE - radius - 1),
                    radius,
                )
            )
        if len(places) < 2 or math.dist(places[0][:2], places[1][:2]) > places[0][2] + places[1][2] + 2:
            break
    order = sorted(range(count), key=lambda i: places[i][0])  # left to right, as `Scene` has it
    scene = Scene(tuple(things[i] for i in order), ground, rng.choice(PATTERNS))
    return Layout(scene, tuple(places[i] for i in order))


def _background(scene: Scene, rng: random.Random) -> Image.Image:
    base = np.array(COLOURS[scene.colour or "white"], np.float32)
    tone = base * 0.72 if base.sum() > 150 else base + 60  # a darker tone of it; black has only a lighter one
    y, x = np.mgrid[0 : SIZE * _FINE, 0 : SIZE * _FINE].astype(np.float32) / _FINE
    dx, dy = rng.uniform(0, 28), rng.uniform(0, 28)
    if scene.pattern == "striped":
        mask = (x + y + dx) % 20 < 10
    elif scene.pattern == "dotted":
        mask = np.hypot((x + dx) % 14 - 7, (y + dy) % 14 - 7) < 3.4
    elif scene.pattern == "checkered":
        mask = ((x + dx) % 24 < 12) ^ ((y + dy) % 24 < 12)
    else:
        mask = np.zeros_like(x, bool)
    return Image.fromarray(np.where(mask[..., None], tone, base).astype(np.uint8))


def _outline(shape: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    """The corners of a shape with centre (x, y) and radius r."""
    if shape == "triangle":
        corners = [(0, -1.05), (1.05, 0.85), (-1.05, 0.85)]
    elif shape == "square":
        corners = [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
    elif shape == "star":
        corners = [
            (
                (1.1 if i % 2 == 0 else 0.45) * math.sin(i * math.pi / 5),
                -(1.1 if i % 2 == 0 else 0.45) * math.cos(i * math.pi / 5),
            )
            for i in range(10)
        ]
    elif shape == "cross":
        a, b = 0.34, 1.0
        corners = [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
    elif shape == "heart":
        angles = [i * math.tau / 48 for i in range(48)]
        corners = [
            (
                math.sin(t) ** 3,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15.5,
            )
            for t in angles
        ]
    else:  # circle
        corners = [(math.cos(i * math.tau / 64), math.sin(i * math.tau / 64)) for i in range(64)]
    return [(x + cx * r, y + cy * r) for cx, cy in corners]


def draw(layout: Layout, rng: random.Random) -> Image.Image:
    """The picture of a layout, RGB, 64 × 64; `rng` shifts the pattern."""
    image = _background(layout.scene, rng)
    pencil = ImageDraw.Draw(image)
    for thing, (x, y, r) in zip(layout.scene.things, layout.places, strict=True):
        corners = _outline(thing.shape, x * _FINE, y * _FINE, r * _FINE)
        pencil.polygon(corners, fill=COLOURS[thing.colour or "black"])
    return image.reduce(_FINE)


def random_caption(scene: Scene, rng: random.Random) -> Scene:
    """The scene as a person might tell it: parts left out, things in any order."""
    things = [Thing(t.shape, t.colour if rng.random() < 0.75 else None) for t in scene.things]
    rng.shuffle(things)
    if len(things) == 2 and rng.random() < 0.15:
        things.pop()
    colour = pattern = None
    if not things or rng.random() < 0.5:
        colour = scene.colour if rng.random() < 0.85 else None
        pattern = scene.pattern if rng.random() < (0.85 if scene.pattern != "plain" else 0.4) or not colour else None
    return Scene(tuple(things), colour, pattern)
