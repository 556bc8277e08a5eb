# SPDX-License-Identifier: BSD-2-Clause
"""Predicts many jobs at once, on all cores or on a Dask cluster; the results are in order.

Every prediction is a function of its job and machine alone, so that who computes it changes
nothing.
"""

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from hw.tools.cluster import Cluster
from hw.tools.errors import ToolError

from .machine import Machine
from .predict import Prediction, predict
from .workload import Job

Study = tuple[Job, Machine]

FOLDERS = "sim/perf", "golden/accelerator", "hw/accelerator"
FILES = "sim/cycles.py", "sim/accelerator.py"
"""Where the sources are that decide a prediction."""

PAYS = 6.0
"""Seconds of work from which on processes are started: each takes about two to begin."""


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def predictions(studies: Sequence[Study], *, jobs: int | None = None, address: str | None = None,
                progress: Callable[[int, int], None] = lambda done, total: None
                ) -> list[Prediction]:
    """Predicts jobs on machines.

    Parameters
    ----------
    studies : sequence of (Job, Machine)
    jobs : int, optional
        Processes at a time. By default, as many as there are cores, if that is quicker.
    address : str, optional
        Of a Dask scheduler, whose workers then do it.
    progress : callable
        Called with the studies done and their number.

    Returns
    -------
    list of Prediction
        In the order of the studies.

    Raises
    ------
    ValueError
        If a machine cannot run its job, or ``jobs`` is below 1.
    ToolError
        If the cluster cannot be reached, or has other sources than this machine.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {jobs}")
    total = len(studies)
    if address is not None:
        with _cluster(address) as cluster:
            return [*_counted(_on_cluster(cluster, studies), total, progress)]
    if jobs is None:
        return [*_counted(_as_it_pays(studies), total, progress)]
    if jobs == 1 or total < 2:
        return [*_counted((predict(*study) for study in studies), total, progress)]
    return [*_counted(_in_processes(studies, jobs), total, progress)]


def _counted(found: Iterator[Prediction], total: int, progress: Callable[[int, int], None]
             ) -> Iterator[Prediction]:
    for done, one in enumerate(found):
        progress(done, total)
        yield one
    progress(total, total)


def _as_it_pays(studies: Sequence[Study]) -> Iterator[Prediction]:
    """One after the other, until what is left seems to be worth processes."""
    start = time.monotonic()
    for done, study in enumerate(studies):
        left = len(studies) - done
        if left > 1 and done and (time.monotonic() - start) / done * left > PAYS and cores() > 1:
            yield from _in_processes(studies[done:], cores())
            return
        yield predict(*study)


def _in_processes(studies: Sequence[Study], jobs: int) -> Iterator[Prediction]:
    # Not by fork: a command has threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(studies)), context) as pool:
        yield from _in_order(pool, [pool.submit(predict, *study) for study in studies])


def _on_cluster(cluster: Cluster, studies: Sequence[Study]) -> Iterator[Prediction]:
    with ThreadPoolExecutor(max(1, len(studies))) as pool:
        try:
            yield from _in_order(pool, [
                pool.submit(cluster.run, predict_there, study, sources()) for study in studies])
        except BaseException:
            cluster.stop()
            raise


def _in_order(pool: ProcessPoolExecutor | ThreadPoolExecutor, waiting: "list[Future[Prediction]]"
              ) -> Iterator[Prediction]:
    try:
        for future in waiting:
            yield future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


@contextmanager
def _cluster(address: str) -> Iterator[Cluster]:
    cluster = Cluster(address, "--dask")
    try:
        yield cluster
    finally:
        cluster.close()


def predict_there(study: Study, expected: str) -> Prediction:
    """Predicts on a worker, if it has the sources that the caller has.

    Raises
    ------
    ToolError
        If it has others: its figures would be others, too.
    """
    if sources() != expected:
        raise ToolError("a worker of --dask has other sources of m2xfp-rtl than this machine")
    return predict(*study)


@cache
def sources() -> str:
    """A digest of the sources that decide a prediction."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    paths = [path for folder in FOLDERS for path in (root / folder).rglob("*.*")
             if path.suffix in (".py", ".toml")]
    for path in sorted([*paths, *(root / name for name in FILES)]):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
