# SPDX-License-Identifier: BSD-2-Clause
"""Schedulers and workers of Dask as processes."""

import os
import subprocess
import sys
import time

from tests.support.imports import ROOT


class Service:
    """A Dask command as a process."""

    def __init__(self, folder, *arguments):
        self._log = folder / f"{arguments[0]}.log"
        self._file = self._log.open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=self._file, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT),
                 "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"})

    def __enter__(self):
        return self

    def line(self, text):
        """First line of its log with a text."""
        for _ in range(600):
            for line in self._log.read_text().splitlines():
                if text in line:
                    return line
            time.sleep(0.1)
        raise TimeoutError(self._log.read_text())

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._file.close()
