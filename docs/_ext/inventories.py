# SPDX-License-Identifier: BSD-2-Clause
"""Inventories of other projects' documentation, from text files: a build needs no network.

`sphinx.ext.intersphinx` reads compressed inventories, which it fetches unless they are local. Those
of Amaranth, NumPy and Python are large, and this site refers to a few dozen names. A line of
``docs/_inventories/PROJECT.txt`` has a name, its role (``py:class``) and the address of its
description, relative to the root of that project's pages, which is in the first line.
"""

import zlib
from pathlib import Path


def mapping(texts, folder):
    """Writes the inventories and gives the value of ``intersphinx_mapping``.

    Parameters
    ----------
    texts : Path
        Folder of the text files.
    folder : Path
        Where to write ``PROJECT.inv``; made when absent.

    Returns
    -------
    dict of str to tuple of str
        Root address and inventory of each project.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for text in sorted(Path(texts).glob("*.txt")):
        root, *lines = text.read_text(encoding="utf-8").splitlines()
        path = folder / f"{text.stem}.inv"
        path.write_bytes(encode(text.stem, lines))
        found[text.stem] = (root, str(path))
    return found


def encode(project, lines):
    """The bytes of an inventory of version 2.

    Parameters
    ----------
    project : str
    lines : iterable of str
        Name, role and address of an object, with spaces between.

    Returns
    -------
    bytes
    """
    head = (f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
            "# The remainder of this file is compressed using zlib.\n")
    objects = []
    for line in lines:
        name, role, address = line.split()
        objects.append(f"{name} {role} 1 {address} -\n")
    return head.encode() + zlib.compress("".join(objects).encode())
