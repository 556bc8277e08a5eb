# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""What a run leaves in ``docs/evidence``, so that the sign-off list can tell what is still true.

Each file names its command, seed, date and versions, and the SHA-256 of the Verilog of each design
that ran. The Verilog does not depend on commits: a change of a comment in Python changes nothing.
As emitting all designs takes minutes, a file also has the SHA-256 of the sources that the Verilog
is made from. Where those are the present ones, nothing has to be emitted.
"""

import datetime
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hw import registry
from hw.flow import emitted
from hw.tools.files import write
from hw.verilog.emit import verilog, versions


@functools.cache
def sources() -> str:
    """SHA-256 of the sources that Verilog is made from."""
    text = "\0".join(emitted.sources(emitted.files(*emitted.DESIGN)))
    return hashlib.sha256(text.encode()).hexdigest()


def head(kind: str, *, command: str, seed: int) -> dict[str, Any]:
    """What every file begins with; all types are those of JSON.

    Parameters
    ----------
    kind : str
        "coverage", "cosim", "soak", "mutants" or "proofs".
    command : str
        The command, as it can be given again.
    seed : int
    """
    return {"kind": kind, "command": command, "seed": seed,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "versions": versions(), "sources": sources()}


def digest(component: Any, name: str) -> str:
    """SHA-256 of a component's Verilog without the header, which names versions.

    Parameters
    ----------
    component : wiring.Component
    name : str
        Of its top module.
    """
    return hashlib.sha256(emitted.without_header(verilog(component, name)).encode()).hexdigest()


def unit_digest(name: str, settings: Sequence[str] = ()) -> str:
    """`digest` of a unit or assembly of the registry with these settings."""
    return digest(registry.build(name, settings, units=registry.offered()), name)


def keep(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Writes entries into a file; they replace those of the same unit and settings.

    Parameters
    ----------
    path : Path
        A file that does not exist, or one that this wrote.
    entries : iterable of dict
        Each has "unit" and "settings".

    Raises
    ------
    ValueError
        If the file has something else.
    """
    kept: dict[tuple[str, ...], dict[str, Any]] = {}
    found = []
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            found = [{**entry, "settings": [*entry["settings"]]} for entry in found]
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"--json must be a new file, or one that this command wrote, "
                             f"not {path}") from None
    for entry in [*found, *entries]:
        kept[entry["unit"], *entry["settings"]] = entry
    write(path, json.dumps([kept[key] for key in sorted(kept)], indent=1) + "\n")
