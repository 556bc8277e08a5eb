# SPDX-License-Identifier: BSD-2-Clause
"""The order of the storeys: a room imports only from the storeys below it."""

import pytest

from tests.support.imports import ROOT, imports

STOREYS = {
    "hw": (("tools",), ("lib",), ("units",), ("accelerator",), ("bus",), ("registry",),
           ("verilog",), ("flow",), ("kit",), ("report", "boards", "proofs"),
           ("generate", "synth", "prove"),
           ("__main__",)),
    "golden": (("interrupts",), ("cache", "output"), ("command",), ("codec",), ("units",),
               ("accelerator", "formats"),
               ("reference", "stimuli", "checkpoint"), ("models", "torch"), ("__main__",)),
}
COMPONENTS = ("hw.lib", "hw.units", "hw.accelerator", "hw.bus")


def room(parts):
    return ".".join(parts[:2])


def arrows():
    """File, its room, and a room that it imports from."""
    for package in ("golden", "hw", "sim"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            for module in sorted(imports(path)):
                yield path, room(parts), room(module.split("."))


ARROWS = [(path, here, there) for path, here, there in arrows() if "." in there and here != there]


@pytest.mark.parametrize("package", STOREYS)
def test_arrows_point_down(package):
    floors = {f"{package}.{name}": floor for floor, names in enumerate(STOREYS[package])
              for name in names}
    rooms = {room(path.relative_to(ROOT).with_suffix("").parts)
             for path in (ROOT / package).rglob("*.py")}
    assert rooms == {*floors, f"{package}.__init__"}
    inside = [arrow for arrow in ARROWS if {arrow[1], arrow[2]} <= {*floors}]
    assert len({arrow[1:] for arrow in inside}) >= 10
    wrong = [arrow for arrow in inside if floors[arrow[2]] >= floors[arrow[1]]]
    assert wrong == []


def test_golden_knows_no_hardware():
    assert [a for a in ARROWS if a[1].startswith("golden") and not a[2].startswith("golden")] == []
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "golden").rglob("*.py")]
    assert len(texts) > 30 and not any("amaranth" in text for text in texts)


def test_components_know_no_reference():
    assert [a for a in ARROWS if a[1] in COMPONENTS and a[2].split(".")[0] != "hw"] == []


def test_hardware_imports_simulation_only_in_the_main_job():
    above = {a[1] for a in ARROWS if a[1].startswith("hw") and a[2].startswith("sim")}
    assert above == {"hw.__main__"}
