# SPDX-License-Identifier: BSD-2-Clause
"""The versions that the published figures were made with, and whether they are installed.

The package accepts a range of versions of its tools, so that it can be installed beside others. The
emitted Verilog, and every area and delay, depend on the exact ones, which the extra `figures` pins.
"""

import re
import tomllib
from importlib import metadata
from pathlib import Path

_PIN = re.compile(r"([\w.-]+)==([\w.]+)")

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"
"""Exists only in a checkout."""


def pins() -> dict[str, str]:
    """The tools that decide the figures, with their versions.

    Returns
    -------
    dict of str to str
        Version by name of the package, from the extra `figures` of this project.

    Raises
    ------
    ValueError
        If the extra holds anything but exact pins and other extras of this project.
    """
    if _PROJECT.is_file():
        project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
        texts = project["optional-dependencies"]["figures"]
    else:
        texts = [text.partition(";")[0] for text in metadata.requires("m2xfp-rtl") or ()
                 if re.search(r"""extra\s*==\s*["']figures["']""", text)]
    # The extra also names another one, which gives the ranges.
    texts = [text.strip() for text in texts if not text.startswith("m2xfp-rtl[")]
    found = [_PIN.fullmatch(text) for text in texts]
    if not all(found) or not found:
        raise ValueError(f"The extra figures must be a list of exact pins, not {texts}")
    return {match[1]: match[2] for match in found if match}


def differences() -> list[str]:
    """Finds the installed tools whose versions differ from those of the published figures.

    Returns
    -------
    list of str
        For each such tool "NAME VERSION in place of PIN", sorted by name; empty if all are equal.
    """
    return [f"{name} {_installed(name)} in place of {version}"
            for name, version in sorted(pins().items()) if _installed(name) != version]


def _installed(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"
