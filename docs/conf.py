# SPDX-License-Identifier: BSD-2-Clause
"""Configuration of the site: ``sphinx-build -W docs build/site``."""

import os
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE / "_ext")]
# Usage lines break at the same width everywhere.
os.environ["COLUMNS"] = "80"

import inventories  # noqa: E402

project = "m2xfp-rtl"
author = "the m2xfp-rtl authors"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = [
    "myst_parser",
    "site_directives",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_ext", "_inventories", "_static"]
templates_path = []

# Markdown. Headings can be referred to; a link to another page is a plain path.
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Docstrings are in numpydoc's form, with a section of this project's own for ports.
napoleon_google_docstring = False
napoleon_custom_sections = [("Members", "params_style")]
napoleon_use_param = False
napoleon_use_rtype = False
autodoc_default_options = {"no-value": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
default_role = "py:obj"
smartquotes = False
add_module_names = False

# Every reference must be found, but for what docstrings name in passing: a name in backticks is a
# link where this site describes it, and plain code where it does not.
nitpicky = True
# Types of signatures must be found where they belong to a package that the site describes.
DESCRIBED = r"golden\.(units|codec|formats|accelerator)\.|hw\.(units|lib|accelerator|bus|verilog)\."
nitpick_ignore_regex = [("py:(class|exc)", rf"(?!{DESCRIBED}).*"), ("py:obj", ".*")]
# Words of a type such as "uint8 array, shape (n, 4)" are taken for names.
suppress_warnings = ["ref.python"]
intersphinx_mapping = inventories.mapping(HERE / "_inventories", ROOT / "build" / "inventories")
intersphinx_disabled_reftypes = ["std:*"]

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"m2xfp-rtl {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_last_updated_fmt = None
