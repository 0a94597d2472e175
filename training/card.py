"""The embedded model's card: what it is, what it was trained on, how good it is, and what it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write(folder: Path, found: dict[str, Any], budget: Any) -> None:
    """Write the card as `README.md` into the model's folder."""
    (folder / "README.md").write_text("")
