"""What the command lines of hardware and simulation have in common."""

from importlib import util

from golden.command import Parser

__all__ = ["Parser", "check_matplotlib", "check_plot"]


def check_plot(path):
    """Refuses a ``--plot`` that could not be drawn."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"--plot must end in .png or .svg, not {path.name}")
    if not path.parent.is_dir():
        raise ValueError(f"--plot must lie in a folder that exists, not {path.parent}")
    check_matplotlib("--plot")


def check_matplotlib(option):
    """Refuses an option that draws where matplotlib is missing."""
    if not util.find_spec("matplotlib"):
        raise ValueError(f"{option} needs matplotlib: pip install 'm2xfp-rtl[plot]'")
