# SPDX-License-Identifier: BSD-2-Clause
"""The reference of a command as Markdown, from its parser.

It is what ``--help`` prints, for the command and for all subcommands of the same parser.
"""

import argparse
import importlib
import inspect
import re
from unittest import mock


class _Made(BaseException):
    """Carries a parser out of the command that made it."""


def parser(module, *arguments):
    """The parser that a command makes, without running the command.

    Parameters
    ----------
    module : str
        Module with a ``main``; of a package, with a ``__main__``.
    *arguments : str
        The command's subcommand, where that has a parser of its own.

    Returns
    -------
    argparse.ArgumentParser
    """
    def stop(self, *_):
        raise _Made(self)

    found = importlib.import_module(module)
    if hasattr(found, "__path__"):
        found = importlib.import_module(f"{module}.__main__")
    try:
        with mock.patch.object(argparse.ArgumentParser, "parse_args", stop), \
                mock.patch.object(argparse.ArgumentParser, "parse_known_args", stop):
            takes = inspect.signature(found.main).parameters
            found.main(*[list(arguments)] if takes else [])
    except _Made as made:
        return made.args[0]
    raise ValueError(f"{module} must make a parser")


def markdown(parser, level=3):
    """What a parser knows, as Markdown; subcommands follow with headings one level below.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    level : int
        Of the heading.

    Returns
    -------
    str
    """
    # Further lines are indented as far as the first word of the command.
    usage = [line[len("usage: "):] for line in parser.format_usage().rstrip().splitlines()]
    lines = [f"{'#' * level} `{parser.prog}`", ""]
    if parser.description:
        lines += [_text(parser.description), ""]
    lines += ["```text", *usage, "```", ""]
    below = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help for choice in action._choices_actions}
            own = [name for name, sub in action.choices.items() if len(sub._actions) > 1]
            for name, sub in action.choices.items():
                said = _text(helps.get(name) or "")
                lines += [f"`{name}`", f": {said or 'see below'}", ""]
                if name in own:
                    if not sub.description:
                        sub.description = helps.get(name)
                    below.append(markdown(sub, level + 1))
        elif not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
            lines += [f"`{_term(action)}`",
                      f": {_text((action.help or '') % _values(parser, action)) or '-'}", ""]
    if parser.epilog:
        lines += [_text(parser.epilog), ""]
    return "\n".join([*lines, *below])


def _values(parser, action):
    return vars(action) | {"prog": parser.prog}


def _term(action):
    """An option with its spellings and its value's name."""
    metavar = action.metavar
    if metavar is None and action.choices:
        metavar = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return f"{metavar or action.dest}{' ...' if action.nargs in ('*', '+') else ''}"
    value = "" if action.nargs == 0 else f" {metavar or action.dest.upper()}"
    return ", ".join(action.option_strings) + value


def _text(text):
    """Help as Markdown: options and literals are code."""
    text = re.sub(r"\s+", " ", text.strip()).replace("``", "`")
    text = re.sub(r"(?<!`)python -m [\w.]*\w", r"`\g<0>`", text)
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else
                   re.sub(r"(?<![\w-])(--?[a-z][\w-]*)", r"`\1`",
                          re.sub(r"([*_<\[])", r"\\\1", part)) for part in parts)
