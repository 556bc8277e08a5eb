# SPDX-License-Identifier: BSD-2-Clause
"""Parsers of the commands, for ``autoprogram``: each command makes its own inside ``main``."""

import argparse
import importlib
from unittest import mock


class _Made(BaseException):
    """Carries a parser out of the command that made it."""


def parser(module, *arguments):
    """The parser that a command makes, without running the command.

    Parameters
    ----------
    module : str
        Module with a ``main``.
    *arguments : str
        The command's subcommand, where that has a parser of its own.

    Returns
    -------
    argparse.ArgumentParser
    """
    def stop(self, *_):
        raise _Made(self)

    try:
        with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
            importlib.import_module(module).main(list(arguments))
    except _Made as made:
        return made.args[0]
    raise ValueError(f"{module} must make a parser")
