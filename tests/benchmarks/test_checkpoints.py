# SPDX-License-Identifier: BSD-2-Clause
"""The benchmark of `golden convert`, on a small checkpoint; no timing is tested."""

import itertools

import pytest

from benchmarks import checkpoints
from golden.checkpoint import Model


@pytest.fixture
def small(monkeypatch):
    make = checkpoints.make
    monkeypatch.setattr(checkpoints, "SHAPES", {"up": (32, 64), "down": (64, 32)})
    monkeypatch.setattr(checkpoints, "make", lambda path, mib: make(path, mib / 2**13))


def test_checkpoint(small, tmp_path):
    size = checkpoints.make(tmp_path / "in", 80)
    with Model(tmp_path / "in") as model:
        assert [(t.dtype, t.shape) for t in model.tensors.values()] == [
            ("BF16", (32, 64)), ("BF16", (64, 32)), ("BF16", (32, 64))]
        assert size == sum(t.stop - t.start for t in model.tensors.values()) >= 80 * 2**7


def test_figures(tmp_path, monkeypatch):
    """Those of the warm-up are left out."""
    times = itertools.count()
    monkeypatch.setattr(checkpoints, "_run", lambda *_: {"cpu": 2.0, "wall": float(next(times))})
    monkeypatch.setattr(checkpoints, "_digests", lambda _: "")
    results, planes = checkpoints.measure({"a": (tmp_path, []), "b": (tmp_path, [])}, tmp_path, 2)
    assert results == {"a": [{"cpu": 2, "wall": 2}, {"cpu": 2, "wall": 4}],
                       "b": [{"cpu": 2, "wall": 3}, {"cpu": 2, "wall": 5}]}
    assert planes == {"a": "", "b": ""}
    last = checkpoints.table(2**30, results).splitlines()[-1]
    assert last.split() == ["b", "2.00", "4.00", "0.75"]


@pytest.mark.long
def test_command(small, tmp_path, capsys):
    assert checkpoints.main(["--runs", "1", "--folder", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "one thread" in out and err == ""
    assert not any(tmp_path.iterdir())


def test_other_planes_are_an_error(small, tmp_path, monkeypatch, capsys):
    digests = itertools.count()
    monkeypatch.setattr(checkpoints, "_run", lambda *_: {"cpu": 2.0, "wall": 1.0})
    monkeypatch.setattr(checkpoints, "_digests", lambda _: str(next(digests)))
    assert checkpoints.main(["--runs", "1", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: the planes differ\n"


def test_failures_are_one_line(small, tmp_path, monkeypatch, capsys):
    (tmp_path / "golden").mkdir()
    # Without it the installed package comes first.
    (tmp_path / "golden" / "__init__.py").touch()
    (tmp_path / "golden" / "__main__.py").write_text("raise SystemExit('it went wrong')")
    real = checkpoints._run
    monkeypatch.setattr(checkpoints, "_digests", lambda _: "")
    monkeypatch.setattr(checkpoints, "_run", lambda project, *rest: (
        real(project, *rest) if project == tmp_path else {"cpu": 2.0, "wall": 1.0}))
    assert checkpoints.main(["--other", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"error: golden convert of {tmp_path} failed: it went wrong\n")


@pytest.mark.parametrize(("arguments", "text"), [
    (["--size", "1"], "--size must be at least 64, not 1"),
    (["--runs", "0"], "--runs must be at least 1, not 0"),
    (["--threads", "1"], "--threads must be at least 2, not 1"),
    (["--other", "none"], "--other must hold the package golden, not none"),
])
def test_wrong_options(arguments, text, capsys):
    with pytest.raises(SystemExit, match="2"):
        checkpoints.main(arguments)
    assert text in capsys.readouterr().err
