"""What the command lines of hardware and simulation have in common."""

from golden.command import Parser, check_matplotlib, check_plot

__all__ = ["Parser", "check_matplotlib", "check_plot"]
