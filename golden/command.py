"""What all command lines have in common."""

import argparse
from importlib import util


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message):
        self.exit(2, f"error: {message}; see --help\n")


def check_plot(path, option="--plot"):
    """Refuses a file of an option that draws, if it could not be drawn."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"{option} must end in .png or .svg, not {path.name}")
    if not path.parent.is_dir():
        raise ValueError(f"{option} must lie in a folder that exists, not {path.parent}")
    check_matplotlib(option)


def check_matplotlib(option):
    """Refuses an option that draws where matplotlib is missing."""
    if not util.find_spec("matplotlib"):
        raise ValueError(f"{option} needs matplotlib: pip install 'm2xfp-rtl[plot]'")
