# SPDX-License-Identifier: BSD-2-Clause
"""The error that every tool of the flow raises and every command prints in one line."""

from golden.command import Failure


class ToolError(Failure):
    """A tool is missing, or refused its input; the text is one line for the user."""
