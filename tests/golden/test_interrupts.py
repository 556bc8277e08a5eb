# SPDX-License-Identifier: BSD-2-Clause
"""What a signal does to a command, and to all that the command started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from golden import interrupts

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals")


def started(words, tmp_path):
    """A process that heeds signals, whatever those who run the tests ignore."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen([sys.executable, *words], cwd=tmp_path, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, ignored)


def program(*lines):
    """Words that run a command with this body, which prints "ready" when it is to be stopped."""
    return ["-c", "\n".join([
        "import subprocess, sys, threading, time",
        "from golden import command, interrupts",
        "@command.run", "def main(arguments=None):",
        *(f"    {line}" for line in lines), "sys.exit(main())"])]


READY = "print('ready', flush=True)"


@pytest.mark.parametrize(("name", "status", "text"), [
    ("SIGINT", 130, "interrupted\n"), ("SIGTERM", 143, "terminated\n"),
    ("SIGHUP", 129, "hung up\n"),
])
def test_signals(name, status, text, tmp_path):
    process = started(program(READY, "time.sleep(60)"), tmp_path)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    assert process.communicate(timeout=30) == ("", text)
    assert process.returncode == status


def test_all_that_was_started_ends(tmp_path):
    """The main thread does not unwind, and a child and its child heed no signal."""
    child = ("import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
             "print(subprocess.Popen(sys.argv[1:] or ['sleep', '60']).pid, flush=True);"
             "time.sleep(60)")
    process = started(program(
        "with interrupts.temporary_folder() as folder:",
        "    (folder / 'half').touch()",
        "    threading.Thread(target=time.sleep, args=[60]).start()",
        f"    child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)",
        "    print(child.pid, int(child.stdout.readline()), flush=True)",
        "    while True:",
        "        try:",
        "            time.sleep(60)",
        "        except KeyboardInterrupt:",
        "            pass"), tmp_path)
    below = process.stdout.readline().split()
    assert len(below) == 2 and len([*tmp_path.glob("m2xfp.*/half")]) == 1
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "interrupted\n")
    assert process.returncode == 130
    assert [*tmp_path.iterdir()] == []
    limit = time.monotonic() + 10
    while running := {str(number) for number, _ in interrupts._processes()} & {*below}:
        assert time.monotonic() < limit, running
        time.sleep(0.01)


def test_error_of_what_was_stopped_is_not_told(tmp_path):
    """Whatever fails because of a signal is one; threads and exceptions add no lines."""
    process = started(program(
        "def thread():",
        "    time.sleep(0.1)",
        "    raise OSError('a consequence')",
        "threading.Thread(target=thread).start()",
        "try:",
        f"    {READY}",
        "    time.sleep(60)",
        "finally:",
        "    time.sleep(0.2)",
        "    raise ValueError('a consequence')"), tmp_path)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "interrupted\n")
    assert process.returncode == 130


def test_text_of_an_interrupted_command(tmp_path):
    # On a machine that is busy it may take longer to unwind.
    process = started(program("interrupts.GRACE = 20", "try:", f"    {READY}",
                              "    time.sleep(60)", "except KeyboardInterrupt:",
                              "    raise command.Interrupted('3 of 4 are kept')"), tmp_path)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30) == ("", "3 of 4 are kept\n")
    assert process.returncode == 143


def test_during_imports(tmp_path):
    """A module that stands for all that a command imports."""
    (tmp_path / "numpy.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    process = started(["-m", "golden", "check"], tmp_path)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "interrupted\n")
    assert process.returncode == 130


def test_an_import_guards_no_other_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import signal, sys, golden.interrupts\n"
         "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, sys.excepthook is "
         "sys.__excepthook__, signal.set_wakeup_fd(-1))"],
        cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True True -1\n"


COMMANDS = {
    "hw": ("hw", "-o", "."),
    "generate": ("hw.generate", "accelerator", "--prove", "-o", "."),
    "synth": ("hw.synth", "accelerator", "quantization_engine", "--json", "a.json"),
    "sweep": ("hw.synth", "weight_encoder", "--sweep", "encoding=sg-em,sg-threshold"),
    "report": ("hw.synth", "--report", "a.html"),
    "lockstep": ("sim", "lockstep", "--engine", "amaranth"),
    "verilator": ("sim", "gemm", "--m", "64", "--k", "576", "--n", "1536"),
    "cxxrtl": ("sim", "cosim", "mac_array", "--engine", "cxxrtl"),
    "vcd": ("sim", "layer", "--vcd", "a.vcd"),
    "benchmark": ("benchmarks.simulation",),
}


@pytest.mark.long
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command, name, tmp_path, monkeypatch):
    """Each with an empty cache, so that it is in the middle of its work after some seconds."""
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    process = started(["-m", *COMMANDS[command]], tmp_path)
    for _ in range(80):
        time.sleep(0.1)
        if process.poll() is not None:
            pytest.fail(f"{command} ended: {process.communicate()}")
    below = interrupts._below(process.pid)
    process.send_signal(getattr(signal, name))
    _, error = process.communicate(timeout=5)
    number = getattr(signal, name)
    assert process.returncode == 128 + number
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith(("interrupted", "terminated"))
    assert not below & {child for child, _ in interrupts._processes()}
    assert [*tmp_path.rglob("m2xfp.*"), *tmp_path.rglob(".*.*")] == []


@pytest.mark.skipif(interrupts.fcntl is None, reason="locks of POSIX")
def test_folders_go_when_what_was_killed_is_gone(monkeypatch):
    """A killed process runs on for a moment, and may write a file in that."""
    order = []
    # How often it is still seen behind SIGKILL.
    seen = iter([True, True, True, False])

    def stop(number, others=frozenset()):
        order.append(number)
        return {12345}

    def processes():
        runs = signal.SIGKILL not in order or next(seen)
        if not runs:
            order.append("gone")
        return [(12345, 1)] if runs else []

    def end(status):
        raise SystemExit(status)

    monkeypatch.setattr(interrupts, "_stop", stop)
    monkeypatch.setattr(interrupts, "_processes", processes)
    monkeypatch.setattr(interrupts, "_remove_folders", lambda: order.append("folders"))
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit):
        interrupts.end(130)
    assert order == [signal.SIGTERM, signal.SIGKILL, "gone", "folders"]


def test_what_killed_processes_left_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f"m2xfp.{dead.pid}.abc", f"m2xfp.{dead.pid}.locked", f"m2xfp.{os.getpid()}.abc",
                 "m2xfp.x.abc", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / f"m2xfp.{dead.pid}.link").symlink_to(tmp_path / "other")
    lock = os.open(tmp_path / f"m2xfp.{dead.pid}.locked", os.O_RDONLY)
    interrupts.fcntl.flock(lock, interrupts.fcntl.LOCK_EX)
    before = {path.name for path in tmp_path.iterdir()}
    with interrupts.temporary_folder(tmp_path) as folder:
        assert before - {path.name for path in tmp_path.iterdir()} == {f"m2xfp.{dead.pid}.abc"}
        with pytest.raises(OSError):
            interrupts._remove_unless_locked(folder)
    assert (tmp_path / "other" / "file").exists()
    os.close(lock)
