r"""One progress bar a walk, on stderr, only if asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

Progress = bool | str | Callable[[int, int | None], object]
r"""No bar (`False`), a bar (`True`), a bar with a label, or a function of the steps done and all steps
(`None` where nobody can know)."""


@contextmanager
def ticker(progress: Progress, total: int | None) -> Iterator[Callable[[], object]]:
    r"""Yields a function to call at every step; the bar closes with the context, whatever happens in it."""

    if callable(progress):
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            progress(done, total)

        yield tick
    else:
        label = progress if isinstance(progress, str) else None
        with tqdm(total=total, desc=label, disable=progress is False, unit="step") as bar:
            yield bar.update
