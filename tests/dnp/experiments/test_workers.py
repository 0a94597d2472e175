"""Workers: the same bytes from all, and none that outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for processes that are spawned, too
from test_sweep import lines, pictures, plan_of  # noqa: E402

from dnp.experiments import worker  # noqa: E402
from dnp.experiments.plan import Place  # noqa: E402
from dnp.experiments.sweep import sweep  # noqa: E402
from dnp.experiments.workers import workers  # noqa: E402

HERE = Path(__file__).parent
SECONDS = 120  # of a busy machine, for what takes two on an idle one


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers") / "whole"
    sweep(plan_of(), [0, 1], folder)
    return folder


def noted(plan, unit, threads):
    """A unit, by a worker that says its number."""
    (Path(os.environ["DNP_TEST_WORKERS"]) / str(os.getpid())).touch()
    return worker.do(plan, unit, threads)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def started(code, folder):
    """A process of its own group, as one of a terminal; its workers note their numbers in the folder."""
    paths = os.pathsep.join([str(HERE), *sys.path])
    env = os.environ | {"PYTHONPATH": paths, "DNP_TEST_WORKERS": str(folder)}
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env=env, start_new_session=True)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into Linux' /proc")
@pytest.mark.parametrize("signals", [["SIGKILL"], ["SIGTERM"], ["SIGINT", "SIGINT"]], ids="-".join)
def test_workers_end_with_their_parent(tmp_path, signals):
    code = f"""
import signal
from types import SimpleNamespace
from asleep import asleep
from dnp.experiments.workers import workers
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a test in the background would inherit ignored
    with workers(SimpleNamespace(workers=2, ray=None), asleep) as do:
        list(do({str(tmp_path)!r}, range(4), 1))
"""
    process = started(code, tmp_path)
    wait(lambda: len(list(tmp_path.iterdir())) == 2)
    for name in signals:
        kill = os.killpg if name == "SIGINT" else os.kill  # Ctrl-C reaches all processes of a terminal
        kill(process.pid, getattr(signal, name))
        time.sleep(0.2)
        if process.poll() is not None:
            break
    wait(lambda: process.poll() is not None and not any(alive(path.name) for path in tmp_path.iterdir()))
    said = process.stderr.read().decode()
    assert "SpawnProcess" not in said  # the workers die in silence


def test_a_sweep_of_two_workers_that_is_killed_goes_on(whole, tmp_path):
    out, noted_in = tmp_path / "out", tmp_path / "workers"
    noted_in.mkdir()
    code = f"""
from pathlib import Path
from test_workers import *
if __name__ == "__main__":
    with workers(Place(workers=2), noted) as do:
        sweep(plan_of(), range(40), Path({str(out)!r}), do=do)
"""
    process = started(code, noted_in)
    wait(lambda: (out / "manifest.jsonl").exists() and len(list(noted_in.iterdir())) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait(lambda: not any(alive(path.name) for path in noted_in.iterdir()))
    assert len(pictures(out)) < 40 * 12  # or it was done before it could be killed
    sweep(plan_of(), [0, 1], out)  # the lock and the settings are no hindrance
    found = pictures(out)
    assert {name: found[name] for name in pictures(whole)} == pictures(whole)
    made = {line["path"]: line for line in lines(out)}
    assert [made[line["path"]] for line in lines(whole)] == lines(whole)


def test_ray_gives_the_same_bytes_and_does_the_work_of_a_worker_that_died_again(whole, tmp_path):
    marker = str(tmp_path / "died")

    def dies_once(plan, unit, threads):
        if not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return worker.do(plan, unit, threads)

    with workers(Place(workers=2, ray="local"), dies_once) as do:
        sweep(plan_of(), [0, 1], tmp_path / "out", do=do)
    assert Path(marker).exists()
    assert pictures(tmp_path / "out") == pictures(whole) and lines(tmp_path / "out") == lines(whole)
