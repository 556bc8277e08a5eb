# SPDX-License-Identifier: BSD-2-Clause
"""Who predicts changes nothing: one process, several, or a Dask cluster."""

import ast
import json
import re

import pytest

import sim.__main__ as command
from hw.tools.errors import ToolError
from sim.perf import Job, find_machine, find_models, predict, spread
from tests.support.imports import ROOT

SWEEP = ["perf", "--model", "smollm2-135m", "mistral-7b", "--phase", "decode", "--sweep",
         "batch=64,1,8"]


def studies():
    machine = find_machine("decode")
    return [(Job(model=model, phase="decode", batch=batch), machine)
            for batch in (5, 1, 3) for model in find_models(["llama3-8b", "smollm2-135m"])]


@pytest.mark.parametrize("jobs", [1, 2])
def test_order_and_figures_are_those_of_one_core(jobs):
    seen = []
    found = spread.predictions(studies(), jobs=jobs, progress=lambda *done: seen.append(done))
    assert found == [predict(*study) for study in studies()]
    assert seen == [(done, 6) for done in range(7)]


def test_processes_start_only_if_they_pay(monkeypatch):
    started = []

    def count(rest, jobs):
        started.append((len(rest), jobs))
        return (predict(*study) for study in rest)

    monkeypatch.setattr(spread, "_in_processes", count)
    monkeypatch.setattr(spread, "cores", lambda: 4)
    expected = [predict(*study) for study in studies()]
    assert spread.predictions(studies()) == expected and started == []
    monkeypatch.setattr(spread, "PAYS", 0.0)
    assert spread.predictions(studies()) == expected and started == [(5, 4)]
    monkeypatch.setattr(spread, "cores", lambda: 1)
    assert spread.predictions(studies()) == expected and started == [(5, 4)]


@pytest.mark.long
def test_errors_come_from_processes_as_they_are():
    [model] = find_models(["falcon-7b"])
    machine = find_machine("paper", {"chips": {"count": 2}})
    with pytest.raises(ValueError, match="chips.count must divide the 71 heads of falcon-7b"):
        spread.predictions(2 * [(Job(model=model), machine)], jobs=2)


@pytest.mark.long
def test_command_prints_the_same(tmp_path, capsys):
    outputs = []
    for number in ("1", "2"):
        path = tmp_path / f"{number}.json"
        assert command.main([*SWEEP, "--jobs", number, "--json", str(path)]) == 0
        outputs.append((capsys.readouterr().out, json.loads(path.read_text())))
    assert outputs[0] == outputs[1]
    assert [one["batch"] for one in outputs[0][1]] == [64, 64, 1, 1, 8, 8]


@pytest.mark.long
def test_dask_gives_the_same(tmp_path, capsys, monkeypatch):
    pytest.importorskip("distributed", reason="needs the package distributed")
    from tests.support.dask import Service

    assert command.main(SWEEP) == 0
    here = capsys.readouterr().out
    with Service(tmp_path, "scheduler", "--no-dashboard", "--host", "127.0.0.1", "--port", "0",
                 "--no-show") as scheduler:
        address = scheduler.line("Scheduler at:").split()[-1]
        with Service(tmp_path, "worker", address, "--nworkers", "1", "--nthreads", "1",
                     "--no-dashboard") as worker:
            worker.line("Registered to:")
            with monkeypatch.context() as patch:
                patch.setattr(spread, "predict", None)
                assert command.main([*SWEEP, "--dask", address]) == 0
            assert capsys.readouterr().out == here
            monkeypatch.setattr(spread, "sources", lambda: "others")
            assert command.main([*SWEEP, "--dask", address]) == 1
            assert capsys.readouterr().err == ("error: a worker of --dask has other sources of "
                                               "m2xfp-rtl than this machine\n")


def test_worker_with_other_sources_predicts_nothing():
    with pytest.raises(ToolError, match="other sources"):
        spread.predict_there(studies()[0], "others")
    assert spread.predict_there(studies()[0], spread.sources()) == predict(*studies()[0])


def test_sources_are_all_that_decide():
    """Whatever module of this project a prediction loads is in the digest, or fixed tables."""
    covered = {path for folder in spread.FOLDERS for path in (ROOT / folder).rglob("*.py")}
    covered |= {ROOT / name for name in spread.FILES}
    assert covered >= {*(ROOT / "sim/perf").glob("*.py"), ROOT / "sim/cycles.py"}
    for name in ("predict", "workload", "models", "machine", "settings"):
        for node in ast.walk(ast.parse((ROOT / f"sim/perf/{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0 and (
                    node.module.split(".")[0] in ("golden", "hw")):
                path = ROOT / (node.module.replace(".", "/") + ".py")
                assert path in covered, node.module


@pytest.mark.parametrize("arguments, text", [
    (["--jobs", "2"], "--jobs needs --sweep or --report"),
    (["--dask", "tcp://host:1"], "--dask needs --sweep or --report"),
    (["--sweep", "batch=1", "--jobs", "0"], "--jobs must be at least 1, not 0"),
    (["--sweep", "batch=1", "--jobs", "2", "--dask", "tcp://host:1"],
     "--jobs must be left out with --dask"),
    (["--sweep", "batch=1", "--dask", "nonsense://"], "--dask must be of the form tcp://host:8786"),
    (["--sweep", "chips.count=2", "--model", "falcon-7b", "--jobs", "2"],
     "chips.count must divide the 71 heads of falcon-7b, not 2"),
])
def test_errors_are_one_line(arguments, text, capsys):
    pytest.importorskip("distributed", reason="needs the package distributed")
    assert command.main(["perf", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and re.search(text, printed.err)


def test_needs_distributed(capsys, monkeypatch):
    monkeypatch.setattr("hw.tools.cluster.util.find_spec", lambda name: None)
    assert command.main([*SWEEP, "--dask", "tcp://host:1"]) == 2
    assert capsys.readouterr().err == ("error: --dask needs distributed: "
                                       "pip install 'm2xfp-rtl[cluster]'\n")
