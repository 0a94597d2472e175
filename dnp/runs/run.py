"""A folder of pictures and what made each: PNGs with their record inside, `run.json`, `manifest.jsonl`, `sheet.png`.

Files are written whole or not at all; a seed is done when its lines are in the manifest, so a run that was stopped
goes on where it was.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from dnp.errors import DNPError
from dnp.recipe import Result
from dnp.runs.contact_sheet import Cell, sheet
from dnp.speed.memory import peak_memory
from eval.manifest import pictures, read_manifest, write_whole

_SHEET_ROWS = 16
_BEFORE = ("choose", "scales.json")  # what a sweep finds out before it begins
_COMPUTING = ("dnp", "torch", "k-diffusion", "diffusers", "transformers")


@cache
def versions() -> dict[str, str]:
    """Of the packages that make a picture what it is."""
    found = {}
    for name in _COMPUTING:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def png(image: Image.Image, record: dict[str, Any] | None = None) -> bytes:
    """A PNG that carries its record: all of it as JSON in "dnp", its gist in "parameters", where viewers look."""
    info = PngImagePlugin.PngInfo()
    if record:
        info.add_itxt("parameters", _parameters(record))
        info.add_itxt("dnp", json.dumps(record, ensure_ascii=False, sort_keys=True))
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=info)
    return data.getvalue()


def _parameters(record: dict[str, Any]) -> str:
    lines = [record["prompt"]]
    if record["negative_prompt"]:
        lines.append(f"Negative prompt: {record['negative_prompt']}")
    scale = "" if record["scale"] is None else f"CFG scale: {record['scale']:g}, "
    lines.append(
        f"Steps: {record['steps']}, Sampler: {record['sampler']}, Schedule type: {record['schedule']}, {scale}"
        f"Seed: {record['seed']}, "
        f"Size: {record['width']}x{record['height']}, Model: {record['model']}, "
        f'Guidance: "{record["guidance"]}", Version: dnp {record["versions"]["dnp"]}'
    )
    return "\n".join(lines)


def read_record(path: Path) -> dict[str, Any]:
    """The record inside a PNG.

    Raises:
        DNPError: no picture, or one that carries none.
    """
    try:
        with Image.open(path) as image:
            return json.loads(image.info["dnp"])
    except (OSError, ValueError):
        raise DNPError(f"{path} is no readable picture") from None
    except KeyError:
        raise DNPError(f"{path} carries no record: dnp did not write it, or a program removed it") from None


def claim(path: Path, settings: dict[str, Any]) -> None:
    """Make sure that `path` can take a run with these settings: a folder that is empty, or holds that very run.

    Raises:
        DNPError: it cannot be written, or holds a run with other settings, or files that are no run's.
    """
    run = path / "run.json"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(None, "permission denied")
        held = json.loads(run.read_text(encoding="utf-8")) if run.exists() else None
        others = any(found.name not in _BEFORE for found in path.iterdir())
    except OSError as error:
        raise DNPError(
            f"the folder {str(path)!r} cannot be written ({error.strerror}): give another with --out"
        ) from None
    except ValueError:
        raise DNPError(f"{run} is no JSON: give another folder with --out") from None
    if held is None and others:
        raise DNPError(f"the folder {str(path)!r} holds other files: give an empty or a new one with --out")
    for key in {**(held or {}), **settings}:
        if held and held.get(key) != settings.get(key):
            raise DNPError(
                f"the folder {str(path)!r} holds another run ({key} is {_short(held.get(key))} there, "
                f"{_short(settings.get(key))} here): give another with --out"
            )


def write_settings(path: Path, settings: dict[str, Any]) -> None:
    """`run.json`, once."""
    if not (path / "run.json").exists():
        write_whole(path / "run.json", (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode())


def _short(value: Any) -> str:
    return text if len(text := repr(value)) <= 80 else text[:77] + "..."


def _steps(result: Result) -> list[dict[str, Any]]:
    return [{"step": step, "caption": c.raw, "negative_prompt": c.used} for step, c in result.on_the_way.items()]


class RunFolder:
    """Where one run's results go.

    Args:
        path: made where it is not there.
        settings: everything that makes the pictures what they are, but for the seeds.

    Raises:
        DNPError: it cannot be written, or holds a run with other settings, or files that are no run's.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        claim(path, settings)
        self.records = read_manifest(path)

    def done(self) -> set[int]:
        """The seeds whose pictures are all there."""
        last = "plain" if self.settings["negative"] == "none" else "dnp"
        seeds = {record["seed"] for record in self.records if record["arm"] == last}
        lost = {record["seed"] for record in self.records if not (self.path / record["path"]).is_file()}
        return seeds - lost

    def begun(self, prompt: str, seed: int) -> Result:
        """What is there of a seed that lacks its last picture: its captioner failed."""
        result = Result(prompt, seed)
        made = [record for record in self.records if record["seed"] == seed and record["arm"] != "dnp"]
        for record, image in pictures(self.path, made, problems=[]):  # what is lost or changed is made again
            arm = record["arm"]
            result.images[arm] = image
            result.evaluations[arm], result.seconds[arm] = record["evaluations"], record["seconds"]
        return result

    def add(self, results: Iterable[Result]) -> None:
        """Write the pictures of some results, as far as they got, then their lines; the settings before the first."""
        write_settings(self.path, self.settings)
        for result in results:
            self.records = [record for record in self.records if record["seed"] != result.seed]
            for arm, image in result.images.items():
                record = self._record(result, arm)
                data = png(image, record)
                write_whole(self.path / record["path"], data)
                self.records.append(
                    record
                    | {"sha256": hashlib.sha256(data).hexdigest(), "seconds": round(result.seconds[arm], 3)}
                    | {"peak_mib": peak_memory()}
                )
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in self.records)
            write_whole(self.path / "manifest.jsonl", lines.encode())

    def _record(self, result: Result, arm: str) -> dict[str, Any]:
        s, image = self.settings, result.images[arm]
        with_negative = arm == "dnp" and result.caption
        return {
            "path": f"{result.seed:05d}-{arm}.png",
            "prompt": result.prompt,
            "seed": result.seed,
            "arm": arm,
            "guidance": s[{"plain": "plain", "dns": "dns", "dnp": "guidance"}[arm]],
            "negative_prompt": result.caption.used if with_negative and result.caption else "",
            "caption": result.caption.raw if result.caption and arm != "plain" else "",
            "captioner": s["captioner"],
            **({"captions_on_the_way": _steps(result)} if arm == "dnp" and result.on_the_way else {}),
            "model": s["model"],
            "sampler": s["sampler"],
            "schedule": s["schedule"],
            "steps": s["dns_steps" if arm == "dns" else "steps"],
            "scale": None if arm == "dns" else s["scale"],  # the formula of DNS has its own
            "evaluations": result.evaluations[arm],
            "width": image.width,
            "height": image.height,
            "dtype": s["dtype"],
            **({"model_options": s["model_options"]} if "model_options" in s else {}),
            "versions": versions(),
        }

    def write_sheet(self) -> Path:
        """The contact sheet of the first seeds, made of the files."""
        first = sorted(self.done())[:_SHEET_ROWS]
        records = [record for record in self.records if record["seed"] in first]
        rows: dict[int, list[Cell]] = {}
        says = {
            "plain": lambda r: r["prompt"],
            "dns": lambda r: f"“{r['caption']}”",
            "dnp": lambda r: f"negative prompt “{r['negative_prompt']}”",
        }
        heads = {"plain": "plain guidance", "dns": "diffusion-negative", "dnp": "with the negative prompt"}
        for record in sorted(records, key=lambda r: (r["seed"], list(says).index(r["arm"]))):
            with Image.open(self.path / record["path"]) as image:
                cell = Cell(
                    image.convert("RGB"),
                    f"{heads[record['arm']]}, seed {record['seed']}",
                    says[record["arm"]](record),
                )
            rows.setdefault(record["seed"], []).append(cell)
        path = self.path / "sheet.png"
        write_whole(path, png(sheet(self.settings["prompt"], list(rows.values()))))
        return path
