# SPDX-License-Identifier: BSD-2-Clause
"""Libraries as foundries and universities ship them, unmodified: area as Yosys, delay as OpenSTA.

Those of Debian's packages qflow-tech-osu018, -osu035 and -osu050 are found by themselves. Others
are tried where M2XFP_TEST_LIBRARIES names them: paths with colons between them, and commas between
the files of one library.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from hw import registry
from hw.flow import mapping, power, timing
from hw.flow.activity import activity
from hw.flow.liberty import find_library
from hw.tools import yosys
from tests.hw.flow.test_timing import FROM_TO
from tests.support.netlists import opensta

DEBIAN = [f"/usr/share/qflow/tech/{folder}/{name}_stdcells.lib" for folder, name in (
    ("osu018", "osu018"), ("osu035", "osu035"), ("osu050", "osu05"))]
LIBRARIES = [path for path in DEBIAN if Path(path).exists()] + [
    path for path in os.environ.get("M2XFP_TEST_LIBRARIES", "").split(":") if path]
UNITS = {"top1": ["in-out"], "group_accumulator": [*FROM_TO]}


@pytest.mark.long
@pytest.mark.skipif(not LIBRARIES, reason="no library but the default one is here")
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", LIBRARIES, ids=lambda name: Path(name).name)
def test_figures_are_those_of_yosys_and_opensta(name, unit, tmp_path):
    library = find_library(name)
    assert library.left_out == {}
    small, timed = mapping.netlists(unit, registry.build(unit, ()), library)
    # Yosys reads the files themselves.
    area = mapping.count_cells(small, library)[1]
    files = {f"cells{i}.lib": source.text for i, source in enumerate(library.sources)}
    log, _ = yosys.run(
        f"read_json unit.json\nstat {' '.join(f'-liberty {file}' for file in files)}\n",
        inputs={"unit.json": json.dumps({"modules": {unit: small}}), **files})
    assert area == pytest.approx(float(re.search(r"Chip area .*: (\S+)", log)[1]), rel=1e-6)

    found = timing.examine(timed, library)
    assert sorted(found.paths) == sorted(UNITS[unit])
    figures = power.estimate(timed, library, activity(unit))
    assert figures["checked"] > 0
    assert 0 < figures["leakage_uw"] < figures["total_uw"]
    if shutil.which("sta") is None or len(library.sources) > 1:
        return
    commands = "".join(f"puts <{kind}>\nreport_checks -digits 6 -path_delay max {FROM_TO[kind]}\n"
                       for kind in found.paths)
    log = opensta(unit, timed, library, commands, tmp_path)
    theirs = [-float(re.search(r"(\S+)\s+slack", part)[1]) * library.header.ns
              for part in re.split(r"<\S+>\n", log)[1:]]
    assert [path.delay_ns for path in found.paths.values()] == pytest.approx(theirs, rel=1e-3)
