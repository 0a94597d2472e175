"""How a model is best sampled, as its `dnp.json` says."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dnp.errors import DNPError


@dataclass(frozen=True)
class Defaults:
    """How a model is best sampled. A directory may say so in a file `dnp.json`, as the embedded model's does.

    The paper does not state its settings. The values here are Attend-and-Excite's for Stable Diffusion 1.4 (50 steps,
    scale 7.5), a natural guess, with the paper's negative prompt of three evaluations (eq. 4, w = s). The
    diffusion-negative picture takes half the steps, which cost no adherence on the embedded model (its card).
    """

    scale: float = 7.5
    strength: float = 7.5
    guidance: str = "NegPrompt(s, strength=w)"
    dns: str = "DNS(7.5)"
    sampler: str = "dpmpp_2m"
    schedule: str = "karras"
    steps: int = 50
    dns_steps: int = 25
    captioner: str = "Salesforce/blip2-opt-2.7b"
    universal: str | None = None
    words: tuple[str, ...] = ()

    def but(self, **options: Any) -> Defaults:
        """With those of the options that are not None."""
        return replace(self, **{key: value for key, value in options.items() if value is not None})

    @classmethod
    def of(cls, folder: Path) -> Defaults:
        """The defaults in `folder/dnp.json`, these here where there is none.

        Raises:
            DNPError: the file is no JSON object, or has a key that means nothing here.
        """
        path = folder / "dnp.json"
        if not path.is_file():
            return cls()
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DNPError(f"{path} is not valid JSON: {error}") from None
        if not isinstance(given, dict):
            raise DNPError(f'{path} is no JSON object, as {{"scale": 7.5}} is one')
        if unknown := sorted(set(given) - {field.name for field in fields(cls)}):
            raise DNPError(f"{path}: {unknown[0]!r} is none of {', '.join(f.name for f in fields(cls))}")
        kinds: dict[str, Any] = {"float": (int, float), "int": int, "str": str, "tuple[str, ...]": list}
        kinds["str | None"] = (str, type(None))
        for field in fields(cls):
            if field.name in given and not isinstance(given[field.name], kinds[str(field.type)]):
                raise DNPError(f"{path}: {field.name} is {given[field.name]!r}, not of the kind {field.type}")
        return cls(**given | {"words": tuple(given.get("words", ()))})
