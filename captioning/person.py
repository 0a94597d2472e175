r"""A person who captions images at the terminal."""

import os
import sys
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO
from unicodedata import category

from PIL import Image

from captioning.captioner import CaptionError
from captioning.usable import MAX_WORDS


class Person:
    r"""Asks somebody at the terminal to describe each image, as the paper's participants did.

    Prints the image's path and opens it if there is a screen. Asks again, saying why, until the caption
    has words and is shorter than 60 of them; it is used as it was written. Lines can be piped in as well.

    References:
        | Improving image synthesis with diffusion-negative sampling (Desai & Vasconcelos, 2024), section 4.3
        | https://arxiv.org/abs/2411.05473

    Args:
        source: Where the captions are read from, one a line. By default the standard input.
        sink: Where the questions go. By default the standard error, which leaves the standard output to
            results.
        opener: What shows an image, given the address of its file. By default the desktop's viewer for such
            files if there is a screen, else nothing.
    """

    name = "person"
    verbatim = True

    def __init__(
        self,
        source: TextIO | None = None,
        sink: TextIO | None = None,
        opener: Callable[[str], object] | None = None,
    ) -> None:
        self.source = source or sys.stdin
        self.sink = sink or sys.stderr
        self.opener = opener or (webbrowser.open if _has_screen() else None)

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        r"""Asks for one caption per image, in order.

        Raises:
            CaptionError: The input ended, or is not text, before every image had its caption.
        """

        with TemporaryDirectory(prefix="captions-") as folder:
            return [
                self._ask(_path(image, Path(folder) / f"{i}.png"), f"{i} of {len(images)}")
                for i, image in enumerate(images, start=1)
            ]

    def _ask(self, path: Path, which: str) -> str:
        self._say(f"Image {which}: {path}\n")
        if self.opener is not None:
            try:
                self.opener(path.as_uri())
            except (OSError, webbrowser.Error) as error:  # the path above is enough to look at it
                self._say(f"(could not be opened: {error})\n")

        while True:
            self._say(f"Describe it in fewer than {MAX_WORDS + 1} words: ")
            try:
                line = self.source.readline()
            except UnicodeDecodeError as error:
                raise CaptionError(f"the caption of {path} is not {error.encoding} text") from error
            if not line:
                raise CaptionError(f"the input ended before image {which} had its caption: give one a line")

            words = line.split()
            if len(words) > MAX_WORDS:
                self._say(f"That is {len(words)} words, too many. ")
            elif any(category(c) in ("Cs", "Cc") and not c.isspace() for c in line):
                self._say("That has characters that cannot be shown. ")
            elif not any(c.isalnum() for c in line):
                self._say("That is empty. ")
            else:
                return line.strip()

    def _say(self, text: str) -> None:
        self.sink.write(text)
        self.sink.flush()


def _has_screen() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _path(image: Image.Image, spare: Path) -> Path:
    # PIL gives images that it read from a file that file's name; one made by a program is saved for the
    # occasion.
    own = getattr(image, "filename", "")
    if own and Path(own).is_file():
        return Path(own).absolute()
    image.convert("RGB").save(spare)
    return spare
