# SPDX-License-Identifier: BSD-2-Clause
"""Whatever happens to the cache, it gives what was published last, or nothing."""

import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from hw.tools import cache

KEYS = st.sampled_from(["a", "b"])


class Cache(RuleBasedStateMachine):
    """Publishes, damages, forgets; a process may have died in its middle."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.published = {}

    def path(self, key):
        return self.folder / "cache" / key / "text"

    @rule(key=KEYS, text=st.text("xyz", max_size=3))
    def publish(self, key, text):
        """What is there and intact stays."""
        before = cache.read(self.path(key))
        cache.publish(self.path(key), lambda folder: (folder / "text").write_text(text))
        if before is None:
            self.published[key] = text
        assert cache.read(self.path(key)) == self.published[key]

    @rule(key=KEYS, text=st.text("xyz", max_size=3), where=st.sampled_from(
        ["work", "sha256", "damaged", "ready"]))
    def die(self, key, text, where):
        """Nothing, or all, of an entry is there afterwards."""
        def end(*arguments):
            raise KeyboardInterrupt

        before = cache.read(self.path(key))
        target = {"work": "golden.cache.os.fsync", "sha256": "hw.tools.cache.checksum",
                  "damaged": "pathlib.Path.rename", "ready": "shutil.move"}[where]
        if before is None:
            with mock.patch(target, end), pytest.raises((KeyboardInterrupt, OSError)):
                cache.publish(self.path(key), lambda folder: (folder / "text").write_text(text))
            assert cache.read(self.path(key)) is None

    @rule(key=KEYS, file=st.sampled_from(["text", "sha256"]), content=st.binary(max_size=2))
    def damage(self, key, file, content):
        """The digest tells, unless what is there is what was."""
        path = self.path(key).with_name(file)
        if path.exists():
            path.write_bytes(content)

    @rule(key=KEYS, file=st.sampled_from(["text", "sha256", ""]))
    def remove(self, key, file):
        """A file, or the entry."""
        if file:
            self.path(key).with_name(file).unlink(missing_ok=True)
        else:
            cache.forget(self.path(key), set())

    @rule(mode=st.sampled_from([0o777, 0o770]))
    def open_to_others(self, mode):
        """Nothing is taken then."""
        folder = self.folder / "cache"
        if folder.exists() and os.name == "posix":
            folder.chmod(mode)
            assert not any(cache.intact(self.path(key)) for key in "ab")
            folder.chmod(0o700)

    @invariant()
    def right(self):
        """What is read was published last."""
        for key in "ab":
            assert cache.read(self.path(key)) in (None, self.published.get(key))

    def teardown(self):
        """Removes it all."""
        shutil.rmtree(self.folder)


@pytest.mark.parametrize("count", [3, pytest.param(100, marks=pytest.mark.long)])
def test_sequences(count):
    run_state_machine_as_test(Cache, settings=settings(
        max_examples=count, stateful_step_count=12, deadline=None, derandomize=True))
