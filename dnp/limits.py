"""Sizes that nobody can mean: what is larger is refused at once, not after a day or when memory ends."""

from __future__ import annotations

from dnp.errors import DNPError

MOST_SEEDS = 100_000
MOST_STEPS = 10_000
MOST_AT_ONCE = 4_096  # pictures of a batch, or processes
LONGEST_PROMPT = 10_000  # characters


def check_prompt(text: str) -> str:
    """The prompt itself.

    Raises:
        DNPError: it is empty, or longer than any that a person writes.
    """
    if not text.strip():
        raise DNPError("the prompt is empty: say what the picture should show")
    if len(text) > LONGEST_PROMPT:
        raise DNPError(f"the prompt {text[:20]!r}… has {len(text):,} characters: the most are {LONGEST_PROMPT:,}")
    return text


def check_steps(steps: int) -> int:
    """The number of steps itself.

    Raises:
        DNPError: it is not from 1 to `MOST_STEPS`.
    """
    if not 1 <= steps <= MOST_STEPS:
        raise DNPError(f"the number of steps is {steps:,}: give one from 1 to {MOST_STEPS:,}")
    return steps
