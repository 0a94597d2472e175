"""The folder of a run: one process at a time, and everything whole."""

import json
import os
import subprocess
import sys

import pytest

from dnp import DNPError
from dnp.runs.run import Run

SETTINGS = {"size": (32, 48), "model": "embedded"}


def line(name, **more):
    return {"path": f"images/{name}.png", "prompt": name, "seed": 0, "arm": "x", "category": "", **more}, name.encode()


def manifest(folder):
    return [json.loads(text) for text in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def names(folder):
    return [record["prompt"] for record in manifest(folder)]


def test_it_is_gone_on_with(tmp_path):
    with Run(tmp_path / "new" / "run", SETTINGS) as run:
        assert [path.name for path in run.path.iterdir()] == [".lock"]
        run.add([line("b"), line("ä")])
        run.add([line("a")])
    assert names(run.path) == ["b", "ä", "a"] and (run.path / "images" / "ä.png").read_bytes() == "ä".encode()
    assert json.loads((run.path / "run.json").read_text()) == {"size": [32, 48], "model": "embedded"}
    with Run(run.path, SETTINGS) as again:
        assert again.records == run.records and again.lost == {}
        again.tidy(lambda record: record["prompt"])
        assert names(run.path) == ["a", "b", "ä"]
        before = (run.path / "manifest.jsonl").stat()
        again.tidy(lambda record: record["prompt"])  # nothing to do
    after = (run.path / "manifest.jsonl").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_torn_lines_and_lost_pictures_are_made_again(tmp_path):
    with Run(tmp_path, SETTINGS) as run:
        run.add([line("a"), line("b"), line("c")])
    (tmp_path / "manifest.jsonl").write_bytes((tmp_path / "manifest.jsonl").read_bytes()[:-5])
    (tmp_path / "images" / "a.png").unlink()
    with Run(tmp_path, SETTINGS) as run:
        assert list(run.records) == ["images/b.png"] and list(run.lost) == ["images/a.png"]
        run.add([line("c")])
        assert names(tmp_path) == ["a", "b", "c"]  # what is lost is not forgotten
        run.add([line("a", seed=1), line("b", seed=1)])
        assert sorted(names(tmp_path)) == ["a", "b", "c"] and run.lost == {}
        assert {r["prompt"]: r["seed"] for r in manifest(tmp_path)} == {"a": 1, "b": 1, "c": 0}


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (SETTINGS | {"model": "x"}, "model is 'embedded' there, 'x' here"),
        ({"size": (32, 48)}, "model is 'embedded' there, None here"),
        (SETTINGS | {"steps": 3}, "steps is None there, 3 here"),
    ],
)
def test_other_settings_are_refused(tmp_path, other, says):
    with Run(tmp_path, SETTINGS) as run:
        run.add([line("a")])
    with pytest.raises(DNPError, match=says):
        Run(tmp_path, other)
    Run(tmp_path, SETTINGS).close()  # it was let go


def test_what_a_new_run_begins_with_is_kept(tmp_path):
    with Run(tmp_path, SETTINGS, {"threads": 2}) as run:
        run.add([line("a")])
    with Run(tmp_path, SETTINGS, {"threads": 8}) as run:
        assert run.settings["threads"] == 2
    Run(tmp_path, SETTINGS | {"threads": 2}, {"threads": 8}).close()
    with pytest.raises(DNPError, match="threads is 2 there, 3 here"):
        Run(tmp_path, SETTINGS | {"threads": 3}, {"threads": 8})


def test_folders_that_are_not_for_it(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DNPError, match="holds other files"):
        Run(tmp_path, SETTINGS)
    assert os.listdir(tmp_path) == ["notes.txt"]
    with pytest.raises(DNPError, match="cannot be written .File exists."):
        Run(tmp_path / "notes.txt", SETTINGS)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    with pytest.raises(DNPError, match="run.json is no JSON"):
        Run(tmp_path / "broken", SETTINGS)


def test_two_runs_in_one_folder(tmp_path):
    code = f"""
from pathlib import Path
from dnp.runs.run import Run
run = Run(Path({str(tmp_path)!r}), {{}})
print("claimed", flush=True)
input()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "claimed\n"
    for _ in range(2):  # the first does not take away who holds it
        with pytest.raises(DNPError, match=f"is at work in the folder .*process {process.pid} on .*, since 2"):
            Run(tmp_path, {})
    process.kill()
    process.wait()
    with Run(tmp_path, {}):  # a lock ends with its process
        with pytest.raises(DNPError, match=f"process {os.getpid()} on"):
            Run(tmp_path, {})
    Run(tmp_path, {}).close()
