import io
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest
from PIL import Image

from captioning import CaptionError, Person
from captioning import person as room

PICTURE = Image.new("RGB", (4, 3), "red")


def ask(answers: str, images: list[Image.Image], opener: object = lambda uri: True) -> tuple[list[str], str]:
    sink = io.StringIO()
    captions = Person(io.StringIO(answers), sink, opener)(images)  # type: ignore[arg-type]
    return captions, sink.getvalue()


def test_one_line_an_image_in_order() -> None:
    captions, said = ask("a red wall \na dog\n", [PICTURE, PICTURE])
    assert captions == ["a red wall", "a dog"]
    assert "Image 1 of 2: " in said and "Image 2 of 2: " in said
    assert said.count("fewer than 60 words") == 2
    assert ask("", [])[0] == []


def test_asks_again_and_says_why() -> None:
    captions, said = ask(f"\n ...\na \udcff dog\na \x1b dog\n{'word ' * 60}\n{'word ' * 59}\n", [PICTURE])
    assert captions == [" ".join(["word"] * 59)]
    assert said.count("That is empty.") == 2
    assert said.count("That has characters that cannot be shown.") == 2
    assert said.count("That is 60 words, too many.") == 1


def test_the_end_of_input_is_an_error() -> None:
    with pytest.raises(CaptionError, match="ended before image 2 of 2"):
        ask("a dog\n", [PICTURE, PICTURE])


def test_input_that_is_no_text_is_an_error() -> None:
    source = io.TextIOWrapper(io.BytesIO("une fenêtre\n".encode("latin-1")), encoding="utf-8")
    with pytest.raises(CaptionError, match="not utf-8 text"):
        Person(source, io.StringIO(), lambda uri: True)([PICTURE])


def test_shows_the_file_of_an_image_that_has_one(tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    PICTURE.save(path)
    opened: list[str] = []
    with Image.open(path) as image:
        _, said = ask("a red wall\n", [image], opened.append)
    assert f"Image 1 of 1: {path}\n" in said
    assert opened == [path.as_uri()]


def test_an_image_without_a_file_has_one_while_it_is_asked_about() -> None:
    seen: list[Path] = []

    def look(uri: str) -> None:
        seen.append(Path(url2pathname(urlparse(uri).path)))
        with Image.open(seen[-1]) as image:
            assert image.tobytes() == PICTURE.tobytes()

    _, said = ask("a red wall\n", [PICTURE], look)
    assert str(seen[0]) in said
    assert not seen[0].exists()  # nothing is left behind


def test_a_viewer_that_fails_is_no_reason_to_stop() -> None:
    def broken(uri: str) -> None:
        raise OSError("no viewer")

    captions, said = ask("a red wall\n", [PICTURE], broken)
    assert captions == ["a red wall"] and "no viewer" in said


@pytest.mark.parametrize(("display", "opens"), [(":0", True), ("", False)])
def test_opens_only_where_there_is_a_screen(monkeypatch: pytest.MonkeyPatch, display: str, opens: bool) -> None:
    opened: list[str] = []
    monkeypatch.setattr(room.sys, "platform", "linux")
    monkeypatch.setattr(room.webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)

    Person(io.StringIO("a red wall\n"), io.StringIO())([PICTURE])
    assert bool(opened) == opens


def test_reads_the_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(room.sys, "stdin", io.StringIO("a red wall\n"))
    assert Person(opener=lambda uri: True)([PICTURE]) == ["a red wall"]
    assert capsys.readouterr().out == ""  # which is left to results
