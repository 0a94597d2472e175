"""How a model is best sampled, as its `dnp.json` says."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dnp.errors import DNPError
from dnp.models.files import read_json


@dataclass(frozen=True)
class Defaults:
    """How a model is best sampled. A directory may say so in a file `dnp.json`, as the embedded model's does.

    The paper does not state its settings. The values here are Attend-and-Excite's for Stable Diffusion 1.4 (50 steps,
    scale 7.5), a natural guess, with the paper's negative prompt of three evaluations (eq. 4, w = s). The
    diffusion-negative picture takes half the steps, which cost no adherence on the embedded model (its card).
    Attention to words is looked at where the latents' side is divided by `attention` (16x16 for pictures of 512x512).
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
    world: str | None = None
    attention: int = 4

    def but(self, **options: Any) -> Defaults:
        """With those of the options that are not None. Where only `steps` is one of them, `dns_steps` are no more."""
        given = {key: value for key, value in options.items() if value is not None}
        if "steps" in given:
            given.setdefault("dns_steps", min(self.dns_steps, given["steps"]))
        return replace(self, **given)

    @classmethod
    def of(cls, folder: Path) -> Defaults:
        """The defaults in `folder/dnp.json`; these here if there is no such file.

        Raises:
            DNPError: The file is no JSON object, has a key that means nothing here, a value of another type, or names
                an endpoint: what comes with a model must not decide where the user's key goes.
        """
        path = folder / "dnp.json"
        if not path.is_file():
            return cls()
        given = read_json(path)
        if unknown := sorted(set(given) - {field.name for field in fields(cls)}):
            raise DNPError(f"{path}: {unknown[0]!r} is none of {', '.join(f.name for f in fields(cls))}")
        kinds: dict[str, Any] = {"float": (int, float), "int": (int,), "str": (str,), "tuple[str, ...]": (list,)}
        kinds["str | None"] = (str, type(None))
        for field in fields(cls):
            value: Any = given.get(field.name)
            fits = isinstance(value, kinds[str(field.type)]) and not isinstance(value, bool)
            fits = fits and (field.type != "int" or value > 0) and (field.name != "words" or _texts(value))
            if field.name in given and not fits:
                raise DNPError(f"{path}: {field.name} is {value!r}, not of the kind {field.type}")
        if ":" in str(given.get("captioner", "")):
            raise DNPError(
                f"{path}: the captioner {given['captioner']!r} is no directory or hub name; an endpoint comes from "
                "--captioner only: take it out of the file"
            )
        return cls(**given | {"words": tuple(given.get("words", ()))})


def _texts(value: Any) -> bool:
    return all(isinstance(word, str) for word in value)
