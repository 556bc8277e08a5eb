# SPDX-License-Identifier: BSD-2-Clause
"""One cache folder for all workers of a session: builds and what Yosys made are shared."""

import argparse
import functools
import gc
import json
from pathlib import Path

import pytest

from hw.tools import cache, yosys
from sim.engines import build as engines
from tests.support import builds

# Designs are many small objects that live as long as their test: looking for garbage among them
# less often takes a twentieth of the session's time away.
gc.set_threshold(100_000, 20, 20)


def pytest_addoption(parser):
    parser.addoption("--part", metavar="N/M", type=_part, default=(1, 1),
                     help="only the N-th part of M, of each test's cases in turn")


def _part(text):
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"must be N/M with N from 1 to M, not {text!r}")
    return int(number), int(parts)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """After the choice by marks: every M-th test, so that neighbours are in different parts."""
    number, parts = config.getoption("part")
    others = [item for position, item in enumerate(items) if position % parts != number - 1]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = items[number - 1::parts]


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_session(tmp_path_factory, worker_id):
    """What takes long is made once, in a folder that all workers share and that goes with them.

    Simulations are compiled without optimization: for runs as short as the tests', building takes
    longer. They are one C++ file, so that headers are read once; `builds.PORTIONS` is what divides
    them elsewhere. What Yosys made of the same script and files is not made again, unless a test
    has a cache folder of its own.
    """
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("M2XFP_CACHE_DIR",
                     str((base if worker_id == "master" else base.parent) / "compiled"))
        patch.setattr(engines, "_FAST", "-O0")
        assert builds.PORTIONS is engines._portions
        patch.setattr(engines, "_portions", lambda folder, files: [[*files]])
        patch.setattr(yosys, "run", _once(yosys.run))
        # It starts Yosys, and a session calls many commands.
        patch.setattr(yosys, "_prepare", functools.cache(yosys._prepare))
        yield


def _once(run):
    """`hw.tools.yosys.run` that keeps what it gave, by content; errors are not kept."""
    def kept(script, *, inputs, outputs=(), **options):
        outputs = [*outputs]
        texts = [content.read_text() if isinstance(content, Path) else content
                 for content in inputs.values()]
        # Beside the folder, as tests count what is in it.
        path = Path(f"{cache.folder()}.yosys") / cache.digest(
            "yosys", script, json.dumps([*inputs]), json.dumps(outputs), *texts) / "run.json"

        def build(folder):
            made = run(script, inputs=inputs, outputs=outputs, **options)
            (folder / path.name).write_text(json.dumps(made))

        if (text := cache.read(path)) is None:
            # Once for all workers, which would else make its machine code at the same time.
            yosys.prepare()
            cache.publish(path, build)
            text = path.read_text()
        log, files = json.loads(text)
        return log, files

    return kept
