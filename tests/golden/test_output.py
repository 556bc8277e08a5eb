# SPDX-License-Identifier: BSD-2-Clause
"""Where commands may write, and what a stopped or killed process leaves."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest

from golden import command, output
from golden.checkpoint.planes import check_target_folder
from golden.output import check_output, new_folder, replacing
from hw.tools.files import write
from sim.engines.amaranth import _simulate


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


PLACES = {
    "link": lambda path: path.symlink_to("elsewhere"),
    "folder": lambda path: path.mkdir(),
    "fifo": os.mkfifo,
    "socket": make_socket,
}
KINDS = {"link": "symbolic link", "folder": "folder", "fifo": "FIFO", "socket": "socket"}


@pytest.fixture(params=PLACES)
def place(request, tmp_path, monkeypatch):
    """Something that is not a regular file, and what errors call it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / request.param
    PLACES[request.param](path)
    return path, KINDS[request.param]


def write_replacing(path):
    with replacing(path):
        pass


@pytest.mark.parametrize("writer", [
    check_output, write_replacing, lambda path: write(path, "text"),
    lambda path: _simulate(None, None, False, path)])
def test_only_regular_files_are_replaced(place, writer):
    path, kind = place
    before = os.lstat(path)
    with pytest.raises(ValueError, match=f"must be a regular file, not the {kind} .*{path.name}$"):
        writer(path)
    assert os.lstat(path).st_ino == before.st_ino
    assert os.listdir(path.parent) == [path.name]


def test_devices():
    with pytest.raises(ValueError, match="^--json must be a regular file, not the device /dev/nu"):
        check_output(os.devnull, "--json")


@pytest.mark.parametrize("words", [
    ["golden", "calibrate", "smollm2", "-o"], ["golden", "smollm2", "-o"],
    ["golden", "accuracy", "--json"], ["hw", "--vcd"],
    ["hw.synth", "top1", "--json"], ["hw.synth", "--report"],
    ["hw.synth", "top1", "--sweep", "lanes=4,8", "--csv"],
    ["sim", "cosim", "top1", "--vcd"], ["benchmarks.codec", "--json"],
])
def test_every_command_refuses(words, tmp_path, capsys, monkeypatch):
    """Before it works."""
    monkeypatch.chdir(tmp_path)
    package, *rest = words
    module = import_module(package if "." in package else f"{package}.__main__")
    os.mkfifo("fifo")
    assert module.main([*rest, "fifo"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "must be a regular file, not the FIFO fifo" in err


def test_something_appears_meanwhile(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(ValueError, match="not the folder"), replacing(path) as (file,):
        file.write(b"new")
        path.mkdir()
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(FileExistsError), new_folder(tmp_path / "b") as folder:
        (folder / "file").touch()
        (tmp_path / "b").touch()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.skipif(output.fcntl is None, reason="no locks")
def test_folder_removed_before_it_is_locked(tmp_path, monkeypatch):
    plain, opened = os.open, []

    def removing(path, *flags):
        opened.append(path)
        if len(opened) == 1:
            os.rmdir(path)
        return plain(path, *flags)

    monkeypatch.setattr(output.os, "open", removing)
    with new_folder(tmp_path / "b") as folder:
        (folder / "file").touch()
    assert len({*opened[:2]}) == 2 and os.listdir(tmp_path / "b") == ["file"]


def test_nothing_is_left_of_others_beside_a_folder_that_is_there(tmp_path):
    killed = tmp_path / f".b.{'0' * 12}.tmp"
    with new_folder(tmp_path / "b"):
        killed.mkdir()
    assert os.listdir(tmp_path) == ["b"]
    killed.mkdir()
    with pytest.raises(ValueError, match="which exists"):
        check_target_folder(tmp_path / "b")
    assert os.listdir(tmp_path) == ["b"]


WRITER = """
import sys, time
from golden.output import new_folder, replacing
file, folder = sys.argv[1:]
try:
    with replacing(file) as (f,), new_folder(folder) as d:
        (d / "content").touch()
        print("ready", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that writes a file `a` and a folder `b` until it is stopped."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "a", tmp_path / "b"],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    assert len(os.listdir(tmp_path)) == 2
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals_leave_no_trace(writer, tmp_path, name):
    writer.send_signal(getattr(signal, name))
    assert writer.wait(10) == 130
    assert os.listdir(tmp_path) == []


def test_what_was_killed_is_removed(writer, tmp_path):
    left = set(os.listdir(tmp_path))
    others = {".a.0123456789ab", ".a.nohex6789abc.tmp", ".c.0123456789ab.tmp"}
    for name in others:
        (tmp_path / name).touch()

    def write_both():
        with replacing(tmp_path / "a"), new_folder(tmp_path / "b"):
            pass
        written = set(os.listdir(tmp_path))
        (tmp_path / "b").rmdir()
        return written

    # Not while another process writes them.
    assert write_both() == left | others | {"a", "b"}
    writer.kill()
    writer.wait()
    assert write_both() == others | {"a", "b"}


def test_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    with replacing(tmp_path / "a"):
        pass
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before
    # One that is ignored stays so.
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with replacing(tmp_path / "a"):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


def test_last_file_vouches_for_the_others(tmp_path, monkeypatch):
    """Killed between two renames, a process leaves no description of others' contents."""
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text("old")
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (
        seen.append((tmp_path / "c").exists()), replace(*names)))
    with output.replacing(*paths) as files:
        for file in files:
            file.write(b"new")
    assert seen == [False] * 3
    assert [path.read_text() for path in paths] == ["new"] * 3


@pytest.mark.skipif(output.fcntl is None, reason="locks of POSIX")
def test_two_do_not_mix_their_files(tmp_path, monkeypatch):
    paths = [tmp_path / "a", tmp_path / "b"]
    barrier = threading.Barrier(2)
    begun = threading.Event()
    replace = os.replace

    def slow(*names):
        first = Path(names[0]).read_bytes() == b"1"
        if not first:
            begun.wait(0.1)
        replace(*names)
        if first:
            begun.set()
            time.sleep(0.1)

    monkeypatch.setattr(os, "replace", slow)

    def write(text):
        with output.replacing(*paths) as files:
            for file in files:
                file.write(text)
            barrier.wait()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(write, text) for text in (b"1", b"2")]:
            done.result()
    assert paths[0].read_text() == paths[1].read_text()


def test_trying_an_output_makes_nothing_of_its_name(tmp_path, monkeypatch):
    """Another process may put its own there at that moment, and this one may be killed."""
    opened = []
    plain = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: (
        opened.append(path.name), plain(path, *a, **k))[1])
    command.check_output(tmp_path / "a.json", "--json")
    assert len(opened) == 1 and opened[0].startswith(".a.json.")
    assert not [*tmp_path.iterdir()]


def test_links_that_were_planted_are_not_followed(tmp_path, monkeypatch):
    """Nobody can guess the names of temporary files; here somebody did."""
    (tmp_path / "victim").write_text("old")
    monkeypatch.setattr(output.secrets, "token_hex", lambda count: "0" * 12)
    monkeypatch.setattr(output, "remove_left", lambda path: None)
    (tmp_path / f".a.{'0' * 12}.tmp").symlink_to("victim")
    with pytest.raises(FileExistsError), output.replacing(tmp_path / "a"):
        pytest.fail("it was opened")
    with pytest.raises(FileExistsError), output.new_folder(tmp_path / "a"):
        pytest.fail("it was made")
    with pytest.raises(command.Failure, match="^cannot write -o .*: File exists$"):
        command.check_output(tmp_path / "a", "-o")
    assert (tmp_path / "victim").read_text() == "old"
