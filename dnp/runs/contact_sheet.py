"""The contact sheet: a row of pictures for each seed, with what made each one under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_MARGIN, _CELL, _TEXT, _INK, _FAINT = 16, 256, 15, (20, 20, 20), (110, 110, 110)


@dataclass(frozen=True)
class Cell:
    """A picture, a heading above it and a text below it."""

    image: Image.Image
    heading: str
    text: str


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def sheet(title: str, rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """All cells on white. Small pictures are enlarged by a whole factor, pixels as they are; large ones shrink."""
    font, small = ImageFont.load_default(_TEXT), ImageFont.load_default(_TEXT - 2)
    pitch = _CELL + _MARGIN
    width = max(len(row) for row in rows) * pitch + _MARGIN
    heads = _lines(title, font, width - 2 * _MARGIN)
    texts = [[_lines(cell.text, small, _CELL) for cell in row] for row in rows]
    line = _TEXT + 4
    heights = [_CELL + line * (2 + max(map(len, row))) for row in texts]
    page = Image.new("RGB", (width, 2 * _MARGIN + line * len(heads) + sum(heights)), "white")
    pen = ImageDraw.Draw(page)
    for i, text in enumerate(heads):
        pen.text((_MARGIN, _MARGIN + i * line), text, _INK, font)
    top = _MARGIN + line * len(heads) + _MARGIN // 2
    for row, row_texts, height in zip(rows, texts, heights, strict=True):
        for column, (cell, lines) in enumerate(zip(row, row_texts, strict=True)):
            left = _MARGIN + column * pitch
            pen.text((left, top), cell.heading, _FAINT, small)
            page.paste(_fit(cell.image), (left, top + line))
            for i, text in enumerate(lines):
                pen.text((left, top + line + _CELL + 4 + i * line), text, _INK, small)
        top += height
    return page


def _fit(image: Image.Image) -> Image.Image:
    side = max(image.size)
    if side <= _CELL // 2:
        image = image.resize([n * (_CELL // side) for n in image.size], Image.Resampling.NEAREST)
    square = Image.new("RGB", (_CELL, _CELL), "white")
    image = image.copy()
    image.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
    square.paste(image, ((_CELL - image.width) // 2, (_CELL - image.height) // 2))
    return square
