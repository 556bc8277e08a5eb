# SPDX-License-Identifier: BSD-2-Clause
"""Sweeps on a Dask cluster of two processes."""

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hw import synth
from hw.report import sweep
from hw.tools import cluster
from hw.tools.cluster import Cluster
from hw.tools.errors import ToolError
from tests.support.dask import Service

distributed = pytest.importorskip("distributed", reason="needs the package distributed")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Address of a scheduler with two workers that gives up when one has died."""
    folder = tmp_path_factory.mktemp("cluster")
    with Service(folder, "scheduler", "--no-dashboard", "--host", "127.0.0.1", "--port", "0",
                 "--no-show") as scheduler:
        found = scheduler.line("Scheduler at:").split()[-1]
        with Service(folder, "worker", found, "--nworkers", "2", "--nthreads", "1",
                     "--no-dashboard") as worker:
            worker.line("Registered to:")
            yield found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.long
def test_same_figures_as_here(address, folder, capsys, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("measured here")

    arguments = ["top1", "--sweep", "lanes=2,4"]
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "_measure", refuse)
        assert synth.main([*arguments, "--csv", "there.csv", "--scheduler", address]) == 0
        there = capsys.readouterr().out
        # What came from the workers is kept here.
        assert synth.main([*arguments, "--csv", "again.csv"]) == 0
        assert capsys.readouterr().out == there
    assert synth.main([*arguments, "--csv", "here.csv", "--fresh"]) == 0
    assert capsys.readouterr().out == there


@pytest.mark.long
def test_failures_are_reported(address, folder, monkeypatch):
    machines = Cluster(address)
    try:
        assert machines.run(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            machines.run(divmod, 1, 0)
        with pytest.raises(ToolError, match="^every worker that tried it died$"):
            machines.run(os._exit, 3)
        # The worker has been started anew, or there is the other one.
        assert machines.run(divmod, 7, 2) == (3, 1)
        with pytest.raises(ToolError, match="^the worker's version of this project, its "):
            machines.run(sweep._measure_there, sweep.Point("top1", ()), "nangate45", "", "",
                         False, "key")
        machines.stop()
        with pytest.raises(ToolError, match="^stopped$"):
            machines.run(time.sleep, 3)
    finally:
        machines.close()


@pytest.mark.long
def test_workers_or_scheduler_are_gone(folder, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "REACH", 3)
    with Service(folder, "scheduler", "--no-dashboard", "--host", "127.0.0.1", "--port", "0",
                 "--no-show") as scheduler:
        found = scheduler.line("Scheduler at:").split()[-1]
        assert synth.main(["top1", "--sweep", "lanes=2", "--scheduler", found]) == 1
        assert capsys.readouterr().err == f"error: --scheduler {found} has no worker after 3 s\n"
        with Service(folder, "worker", found, "--nthreads", "1", "--no-dashboard") as worker:
            worker.line("Registered to:")
            machines = Cluster(found)
        with monkeypatch.context() as patch:
            patch.setattr(cluster, "PATIENCE", 1)
            with pytest.raises(ToolError, match="^the cluster has had no worker for 1 s$"):
                machines.run(divmod, 7, 2)
        pool = ThreadPoolExecutor()
        waiting = [pool.submit(machines.run, divmod, 7, number) for number in (2, 3)]
        time.sleep(1)
    try:
        for run in waiting:
            with pytest.raises(ToolError, match="^the scheduler is gone$"):
                run.result()
        with pytest.raises(ToolError, match="^the scheduler is gone$"):
            machines.run(divmod, 7, 2)
    finally:
        pool.shutdown()
        machines.close()


def test_scheduler_that_does_not_answer(folder, capsys, monkeypatch):
    """Nobody waits for a port where nobody listens."""
    monkeypatch.setattr(cluster, "REACH", 1000)
    address = "tcp://127.0.0.1:1"
    assert synth.main(["top1", "--sweep", "lanes=2", "--scheduler", address]) == 1
    assert capsys.readouterr() == (
        "", f"error: --scheduler {address} cannot be reached: Connection refused\n")


@pytest.mark.parametrize("address", ["no://where:1", "", "host", "tcp://host", "tcp://host:x",
                                     "tcp://:8786", "tcp://host:99999"])
def test_what_is_no_address(address, folder, capsys):
    assert synth.main(["top1", "--sweep", "lanes=2", "--scheduler", address]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: --scheduler must ") and repr(address) in err


def test_scheduler_that_says_nothing(folder, capsys, monkeypatch):
    """Somebody else listens there."""
    monkeypatch.setattr(cluster, "REACH", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        assert synth.main(["top1", "--sweep", "lanes=2", "--scheduler", address]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err == f"error: --scheduler {address} cannot be reached: timed out\n"
