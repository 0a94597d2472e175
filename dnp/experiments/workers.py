"""Who does the units of a sweep: this process, more of them, or a Ray cluster; all give the same bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from dnp.errors import DNPError
from dnp.runs.leash import leash

if TYPE_CHECKING:
    from dnp.experiments.plan import Place, Plan, Unit
    from dnp.runs.record import Line

Work = Callable[["Plan", "Unit", int], list["Line"]]
Do = Callable[["Plan", Sequence["Unit"], int], Iterator[list["Line"]]]
"""(plan, units, threads) → the lines of each unit, in any order."""


@contextmanager
def workers(where: Place, work: Work | None = None) -> Iterator[Do]:
    """A function that does units. Its workers load a model once, for as many plans as there are.

    Args:
        work: Does one unit, in a worker: `dnp.experiments.worker.do`.

    Raises:
        DNPError: A worker died, or Ray is not installed or does not answer.
    """
    if work is None:
        from dnp.experiments import worker

        work = worker.do
    one: Work = work
    if where.ray:
        with _ray(where.workers, where.ray, one) as do:
            yield do
    elif where.workers == 1:
        yield lambda plan, todo, threads: (one(plan, unit, threads) for unit in todo)
    else:
        context = get_context("spawn")
        theirs, ours = context.Pipe(duplex=False)
        with ProcessPoolExecutor(where.workers, context, leash, (theirs,)) as pool:
            try:
                yield lambda plan, todo, threads: _finished([pool.submit(one, plan, unit, threads) for unit in todo])
            finally:
                ours.close()  # at which the workers end; what they are at is done again another time


def _finished(futures: Sequence[Future[list[Line]]]) -> Iterator[list[Line]]:
    try:
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise DNPError(
            "a worker process died, perhaps for want of memory: the same command goes on, "
            "with fewer --workers or a smaller --batch if it happens again"
        ) from None


@contextmanager
def _ray(count: int, address: str, work: Work) -> Iterator[Do]:
    try:
        import ray
    except ImportError:
        raise DNPError("--ray needs Ray: pip install 'dnp[ray]'") from None
    options: dict[str, Any] = {"num_cpus": count} if address == "local" else {"address": address}
    try:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise DNPError(f"Ray does not answer at {address!r}: {str(error).splitlines()[0]}") from None

    def do(plan: Plan, todo: Sequence[Unit], threads: int) -> Iterator[list[Line]]:
        gpus = 1 if plan.device and plan.device.startswith("cuda") else 0
        # A worker that dies is replaced and its unit done again
        cpus = 1 if address == "local" else threads  # of this machine `count` work at a time, whatever its cores
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=10)(work)
        shared = ray.put(plan)
        waiting = [remote.remote(shared, unit, threads) for unit in todo]
        while waiting:
            ready, waiting = ray.wait(waiting)
            try:
                yield from ray.get(ready)
            except ray.exceptions.RayTaskError as error:  # with the worker's traceback in its text
                raise error.cause from None

    try:
        yield do
    finally:
        ray.shutdown()
