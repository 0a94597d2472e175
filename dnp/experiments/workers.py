"""Who does the units of a sweep: this process, more of them, or a Ray cluster; all give the same bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from dnp.errors import DNPError
from dnp.experiments import worker
from dnp.experiments.plan import Line, Place, Plan, Unit

Do = Callable[[Sequence[Unit]], Iterator[list[Line]]]


@contextmanager
def workers(plan: Plan, where: Place) -> Iterator[Do]:
    """A function that does units, in any order, and gives the lines of each; its workers load their models once.

    Raises:
        DNPError: a worker died, Ray is not installed or does not answer.
    """
    if where.ray:
        with _ray(plan, where) as do:
            yield do
    elif where.workers == 1:
        yield lambda todo: (worker.do(plan, unit, where.each) for unit in todo)
    else:
        with ProcessPoolExecutor(where.workers, get_context("spawn")) as pool:
            try:
                yield lambda todo: _finished([pool.submit(worker.do, plan, unit, where.each) for unit in todo])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


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
def _ray(plan: Plan, where: Place) -> Iterator[Do]:
    try:
        import ray
    except ImportError:
        raise DNPError("--ray needs Ray: pip install 'dnp[ray]'") from None
    options: dict[str, Any] = {"num_cpus": where.workers} if where.ray == "local" else {"address": where.ray}
    try:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise DNPError(f"Ray does not answer at {where.ray!r}: {str(error).splitlines()[0]}") from None
    gpus = 1 if plan.device and plan.device.startswith("cuda") else 0
    # A worker that dies is replaced and its unit done again
    remote = ray.remote(num_cpus=where.each or 1, num_gpus=gpus, max_retries=10)(worker.do)
    shared = ray.put(plan)

    def do(todo: Sequence[Unit]) -> Iterator[list[Line]]:
        waiting = [remote.remote(shared, unit, where.each) for unit in todo]
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
