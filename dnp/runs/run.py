"""The folder of a run: claimed by one process at a time, gone on with after any stop, its files written whole.

It holds `run.json`, the settings, written before the first picture; the pictures; and `manifest.jsonl`, whose lines
are written after the pictures that they name. So a picture is done when its line is there.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from dnp.errors import DNPError
from dnp.runs.record import WHERE_GIVEN, Line
from eval.manifest import read_manifest, write_whole

Own = TypeVar("Own", bound="Run")
_BEFORE = ("choose", "scales.json")  # what a sweep finds out before it begins


class Run:
    """A folder that only this process works in, until `close` or the end of a `with`.

    Args:
        path: Made if it is not there.
        settings: Everything that makes the pictures what they are, except the seeds: a run may be given more of them.
        fresh: Settings that a new run begins with, and one that goes on has in its folder.

    Attributes:
        settings: Those of the run, `fresh` ones included.
        records: Path → line of the manifest, of the pictures that are there.
        lost: The same of those that are not.

    Raises:
        DNPError: It cannot be written, another process works in it, it holds a run with other settings or other files.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], fresh: Mapping[str, Any] | None = None) -> None:
        self.path = path
        ours: dict[str, Any] = json.loads(json.dumps(settings))  # as it is read from a file
        fresh = fresh or {}
        self._claim()
        try:
            held = self._held(ours, fresh.keys() - ours.keys())
            self.settings: dict[str, Any] = {**fresh, **(held or ours)}
            self._repair()
            lines = {record["path"]: record for record in read_manifest(path)}
        except BaseException:
            self.close()
            raise
        self.records = {name: record for name, record in lines.items() if (path / name).is_file()}
        self.lost = {name: record for name, record in lines.items() if name not in self.records}

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes in."""
        self._lock.release()

    def _claim(self) -> None:
        # A lock of the operating system, which ends with its process, however that ends
        lock, folder = self.path / ".lock", repr(str(self.path))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = [found.name for found in self.path.iterdir()]
            if "run.json" not in names and any(name not in _BEFORE and name[0] != "." for name in names):
                raise DNPError(f"the folder {folder} holds other files: give an empty or a new one with --out")
            self._lock = FileLock(lock, thread_local=False)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise DNPError(
                f"another run is at work in the folder {folder} ({_holder(lock)}): wait for its end, "
                "or give another with --out"
            ) from None
        except OSError as error:
            raise DNPError(
                f"the folder {folder} cannot be written ({error.strerror}): give another with --out"
            ) from None
        with suppress(OSError):  # where a locked file cannot be written, nobody is told who holds it
            since = datetime.now().astimezone().isoformat(" ", "seconds")
            lock.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {since}\n", encoding="utf-8")

    def _held(self, settings: dict[str, Any], free: Set[str]) -> dict[str, Any] | None:
        """The settings in the folder, if there is a run in it: this very run, whatever it has for the free ones."""
        file = self.path / "run.json"
        try:
            held: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        except ValueError:
            raise DNPError(f"{file} is no JSON: give another folder with --out") from None
        for key in {**held, **settings} if held else ():
            if held and key not in free and held.get(key) != settings.get(key):
                raise DNPError(
                    f"the folder {str(self.path)!r} holds another run ({key} is {_short(held.get(key))} there, "
                    f"{_short(settings.get(key))} here): give another with --out"
                )
        return held

    def _repair(self) -> None:
        """Drop a line that was cut off in the middle."""
        manifest = self.path / "manifest.jsonl"
        if manifest.exists() and not (data := manifest.read_bytes()).endswith(b"\n"):
            whole, _, _ = data.rpartition(b"\n")
            write_whole(manifest, whole + b"\n" if whole else b"")

    def add(self, lines: Sequence[Line]) -> None:
        """The pictures, then their lines; the settings before the first."""
        if not (self.path / "run.json").exists():
            text = json.dumps(self.settings, indent=2, ensure_ascii=False) + "\n"
            write_whole(self.path / "run.json", text.encode())
        again = False
        for record, data in lines:
            path = self.path / record["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
            again |= record["path"] in self.records or record["path"] in self.lost
            self.lost.pop(record["path"], None)
            self.records[record["path"]] = record
        if again:
            self.tidy()
        else:
            with open(self.path / "manifest.jsonl", "ab") as file:
                file.write(_text([record for record, _ in lines]))

    def tidy(self, key: Callable[[dict[str, Any]], Any] | None = None) -> None:
        """The manifest with each picture once, and in the order of a key."""
        records = [*self.records.values(), *self.lost.values()]
        data = _text(sorted(records, key=key) if key else records)
        manifest = self.path / "manifest.jsonl"
        if records and (not manifest.exists() or manifest.read_bytes() != data):
            write_whole(manifest, data)


def _text(records: Sequence[dict[str, Any]]) -> bytes:
    # Reading a manifest fills in what a line may leave out
    kept = [{key: value for key, value in record.items() if value or key not in WHERE_GIVEN} for record in records]
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept).encode()


def _holder(lock: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return lock.read_text(encoding="utf-8").strip() or "no more is known of it"
    return "no more is known of it"


def _short(value: Any) -> str:
    return text if len(text := repr(value)) <= 80 else text[:77] + "..."
