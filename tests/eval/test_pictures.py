"""Pictures of others: as whoever made them meant them, or named and left out."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from eval.pictures import PictureError, decode, pictures, read_bytes

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def encoded(image, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def pixels(data):
    return np.asarray(decode(data, "a.png"))


def test_sixteen_bits_are_scaled():
    sixteen = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert sixteen.mode == "I;16"
    np.testing.assert_array_equal(pixels(encoded(sixteen)), np.repeat(RAMP[..., None], 3, 2))
    np.testing.assert_array_equal(pixels(encoded(sixteen, "TIFF")), np.repeat(RAMP[..., None], 3, 2))


def test_a_palette_is_looked_up():
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8))
    shown = colours.quantize(16)
    np.testing.assert_array_equal(pixels(encoded(shown)), np.asarray(shown.convert("RGB")))


def test_what_is_transparent_lies_on_white():
    image = Image.new("RGBA", (2, 1), (200, 0, 100, 255))
    image.putpixel((1, 0), (200, 0, 100, 51))
    assert pixels(encoded(image)).tolist() == [[[200, 0, 100], [244, 204, 224]]]  # a fifth of it, the rest white
    palette = Image.new("P", (1, 1))
    palette.putpalette([10, 20, 30])
    assert pixels(encoded(palette, transparency=0)).tolist() == [[[255, 255, 255]]]
    assert pixels(encoded(Image.new("LA", (1, 1), (0, 0)))).tolist() == [[[255, 255, 255]]]


def test_exif_turns_the_picture():
    upright = Image.fromarray(np.stack([RAMP[:8]] * 3, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: to be turned by 90 degrees
    found = pixels(encoded(upright, "PNG", exif=exif))
    np.testing.assert_array_equal(found, np.rot90(np.asarray(upright), -1))


def test_grey_and_cmyk():
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(RAMP)))[..., 0], RAMP)
    assert (
        np.abs(
            pixels(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))[0, 0] - [255.0, 0, 0]
        ).max()
        < 4
    )


def bomb():
    """A PNG of a few bytes that says it has 4 gigapixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 65536, 65536, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bomb(), "a.png says that it has more than 89,478,485 pixels"),
        (b"no picture", "a.png is no readable picture"),
        (encoded(Image.new("RGB", (64, 64)))[:-60], "a.png is no readable picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) run\n", "a.png is no readable picture"),
        (
            encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"),
            "a.png has values that are neither of 8 nor of 16",
        ),
        (encoded(Image.fromarray(np.full((2, 2), 70_000, np.int32)), "TIFF"), "a.png has values that are neither"),
    ],
)
def test_what_cannot_be_used_is_named(data, says):
    with pytest.raises(PictureError, match=says):
        decode(data, "a.png")


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "link.png", "folder/../../secret.png", "a\0b"])
def test_a_path_never_leaves_its_folder(tmp_path, path):
    folder = tmp_path / "run"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(encoded(Image.new("RGB", (2, 2))))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(PictureError, match="leads out of"):
        read_bytes(folder, path)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(PictureError, match="is no regular file"):
            read_bytes(tmp_path, name)
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(PictureError, match=r"has 1,073,741,825 bytes"):
        read_bytes(tmp_path, "huge.png")


def test_the_rest_goes_on(tmp_path):
    good = encoded(Image.new("RGB", (2, 2), (1, 2, 3)))
    for name, data in (("a.png", good), ("b.png", bomb()), ("c.png", good)):
        (tmp_path / name).write_bytes(data)
    records = [{"path": name} for name in ("a.png", "b.png", "../x.png", "c.png", "d.png")]
    records.append({"path": "c.png", "sha256": "0"})
    problems = []
    found = list(pictures(tmp_path, records, problems))
    assert [(record["path"], image.getpixel((0, 0))) for record, image in found] == [
        ("a.png", (1, 2, 3)),
        ("c.png", (1, 2, 3)),
    ]
    assert len(problems) == 4
    for problem, says in zip(
        problems, ("b.png says that", "../x.png leads out", "d.png is missing", "c.png is not"), strict=True
    ):
        assert says in problem
