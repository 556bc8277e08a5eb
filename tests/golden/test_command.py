# SPDX-License-Identifier: BSD-2-Clause
"""What commands report, and their exit statuses."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from golden import __main__ as commands
from golden.checkpoint.safetensors import BadFile
from golden.command import (
    Failure,
    Interrupted,
    Parser,
    check_output,
    check_plot,
    naming,
    run,
)

ROOT = Path(__file__).parents[2]


class Special(Failure):
    """One that a command derives."""


@pytest.mark.parametrize(("error", "status", "text"), [
    (Failure("it does not fit"), 1, "error: it does not fit"),
    (Special("two\nlines"), 1, "error: two lines"),
    (BadFile("x is damaged"), 1, "error: x is damaged"),
    (FileNotFoundError(errno.ENOENT, "No such file", "x"), 1, "error: x: No such file"),
    (OSError(errno.ENOSPC, "No space left"), 1, "error: No space left"),
    (OSError("without a number"), 1, "error: without a number"),
    (MemoryError("Unable to allocate 7.28 TiB"), 1,
     "error: not enough memory: Unable to allocate 7.28 TiB"),
    (MemoryError(), 1, "error: not enough memory"),
    (ValueError("--count must be at least 1, not 0"), 2,
     "error: --count must be at least 1, not 0"),
    (Interrupted("stopped; 3 are kept"), 130, "stopped; 3 are kept"),
    (KeyboardInterrupt(), 130, "interrupted"),
])
def test_errors(error, status, text, capsys):
    @run
    def main(arguments=None):
        raise error

    assert main() == status
    assert capsys.readouterr() == ("", f"{text}\n")


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1), (7, 7)])
def test_statuses(returned, status, capsys):
    seen = []

    @run
    def main(arguments=None):
        seen.append(arguments)
        return returned

    assert main() == main(["a", "b"]) == status
    assert seen == [None, ["a", "b"]]
    assert capsys.readouterr() == ("", "")


def test_defects_keep_their_traceback():
    @run
    def main(arguments=None):
        raise TypeError("a defect")

    with pytest.raises(TypeError, match="a defect"):
        main()


def test_wrong_options(capsys):
    @run
    def main(arguments=None):
        Parser(prog="x").parse_args(arguments)

    with pytest.raises(SystemExit) as stop:
        main(["--no-such"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: unrecognized arguments: --no-such; see --help\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes that close")
@pytest.mark.parametrize(("ending", "lines", "error"), [
    ("return 0", 1, b""), ("return 0", 100_000, b""), ("raise SystemExit(0)", 1, b""),
    ("raise ValueError('x')", 1, b"error: x\n"),
])
def test_closed_pipe(ending, lines, error):
    """Nobody reads: neither while it prints nor as it exits may Python complain."""
    program = ("import sys\nfrom golden.command import run\n@run\ndef main(arguments=None):\n"
               "    sys.stdin.read()\n"
               f"    for i in range({lines}):\n        print(i)\n"
               f"    {ending}\n"
               "sys.exit(main())")
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=buffered,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == error
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize(("body", "status", "error"), [
    ("print(1)", 1, "error: standard output: No space left on device\n"),
    ("print(1); return 1", 1, "error: standard output: No space left on device\n"),
    ("print(1); raise Failure('x')", 1, "error: x\n"),
    ("print('x' * 100_000)", 1, "error: No space left on device\n"),
    ("print(1); raise SystemExit(0)", 1, "error: standard output: No space left on device\n"),
    ("pass", 0, ""),
])
def test_full_device(body, status, error):
    """It shows while the command prints, or when Python writes what it has kept."""
    program = ("import sys\nfrom golden.command import Failure, run\n@run\n"
               f"def main(arguments=None):\n    {body}\nsys.exit(main())")
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=buffered, stdout=full,
                              stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (status, error)


@pytest.mark.parametrize("missing", ["stdout", "stderr"])
def test_missing_streams(missing, monkeypatch):
    """Python has None in place of a stream that was closed before it started."""
    monkeypatch.setattr(sys, missing, None)

    @run
    def main(arguments=None):
        print("x")
        raise ValueError("y")

    assert main() == 2


def test_naming():
    with pytest.raises(OSError, match="full") as info, naming(Path("x")):
        raise OSError(errno.ENOSPC, "full")
    assert info.value.filename == "x"
    with pytest.raises(FileNotFoundError) as info, naming(Path("x")):
        Path("/no/such/file").read_bytes()
    assert info.value.filename == "/no/such/file"


@pytest.mark.parametrize(("path", "text"), [
    ("a.txt", "--draw must end in .png or .svg, not a.txt"),
    ("/no/such/a.png", "--draw must lie in a folder that exists, not /no/such"),
])
def test_check_plot(path, text):
    with pytest.raises(ValueError) as info:
        check_plot(Path(path), "--draw")
    assert str(info.value) == text


def test_check_output(tmp_path):
    """Nothing changes where it is tried."""
    old = tmp_path / "old"
    old.write_text("old")
    for path in (old, tmp_path / "new"):
        check_output(path, "--json")
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and old.read_text() == "old"


@pytest.mark.skipif(os.name != "posix", reason="needs devices")
@pytest.mark.parametrize(("name", "text"), [
    ("link", "--json must be a regular file, not the symbolic link link"),
    ("dangling", "--json must be a regular file, not the symbolic link dangling"),
    ("pipe", "--json must be a regular file, not the FIFO pipe"),
    ("/dev/null", "--json must be a regular file, not the device /dev/null"),
    (".", "--json must be a regular file, not the folder ."),
    ("", "--json must be a regular file, not the folder ."),
    ("no/x", "--json must lie in a folder that exists, not no"),
    ("a\0b", r"--json must be the name of a file, not 'a\x00b'"),
])
def test_outputs_that_are_refused(name, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("link").symlink_to("file")
    Path("dangling").symlink_to("nothing")
    os.mkfifo("pipe")
    with pytest.raises(ValueError) as info:
        check_output(Path(name), "--json")
    assert str(info.value) == text


def test_output_that_cannot_be_made(tmp_path):
    with pytest.raises(Failure, match="^cannot write --json .*: File name too long$"):
        check_output(tmp_path / ("x" * 300), "--json")
    with pytest.raises(Failure, match="^cannot write --json .*: File name too long$"):
        # As long as it may be; what is written first has a longer name.
        check_output(tmp_path / ("x" * 255), "--json")


def test_option_that_ends_its_value(capsys):
    """For argparse the value is an empty list."""
    parser = Parser()
    parser.add_argument("--count", type=int)
    with pytest.raises(SystemExit):
        parser.parse_args(["--count=--"])
    assert capsys.readouterr().err == (
        "error: argument --count: expected a value, not '--'; see --help\n")


# The golden model's commands.


def test_help_lists_all_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        commands.main(["--help"])
    assert stop.value.code == 0
    listed = capsys.readouterr().out.split("\ncommands:\n")[1].split("\n\n")[0]
    assert [line.split(None, 1) for line in listed.splitlines()] == [
        [name, text] for name, (_, text) in commands.COMMANDS.items()]


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_help_of_a_command(name, capsys):
    with pytest.raises(SystemExit) as stop:
        commands.main([name, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m golden {name} [-h]")


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_wrong_options_of_a_command(name, capsys):
    with pytest.raises(SystemExit) as stop:
        commands.main([name, "--no-such-option"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize(("words", "text"), [
    ([], "error: the following arguments are required: COMMAND; see --help"),
    (["chekc"], "error: argument COMMAND: invalid choice: 'chekc' (choose from "),
])
def test_unknown_commands(words, text, capsys):
    with pytest.raises(SystemExit) as stop:
        commands.main(words)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(text)


def test_commands_are_imported_when_they_run():
    rooms = "checkpoint", "formats.check", "formats.listing", "models"
    program = ("import sys, golden.__main__\n"
               f"print([name for name in {rooms} if f'golden.{{name}}' in sys.modules])")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True,
                          text=True, check=True)
    assert done.stdout == "[]\n"
