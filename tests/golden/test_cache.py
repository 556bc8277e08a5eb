# SPDX-License-Identifier: BSD-2-Clause
"""Nothing is run that another user may have put into the cache folder."""

import os
import stat

import numpy as np
import pytest

from golden import cache, quantize_activations
from golden.codec import blocked, kernel

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes and owners of POSIX")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache folder that does not exist yet."""
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "above" / "cache"))
    kernel._load.cache_clear()
    yield tmp_path / "above" / "cache"
    kernel._load.cache_clear()


def test_folder_is_made_for_its_owner_alone(place):
    before = os.umask(0)
    try:
        cache.make_private(place)
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    cache.make_private(place)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722, 0o720, 0o702, 0o1777])
def test_folder_of_many(place, mode):
    place.mkdir(parents=True)
    place.chmod(mode)
    with pytest.raises(PermissionError, match=rf"others may write there \(mode {mode:04o}, "
                                              "allowed is 0700"):
        cache.make_private(place)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o500])
def test_folder_that_others_may_read(place, mode):
    place.mkdir(parents=True)
    place.chmod(mode)
    cache.make_private(place)


def test_folder_and_file_of_another_user(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("x")
    cache.check_private(tmp_path)
    cache.checksum(file)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    with pytest.raises(PermissionError, match="it belongs to user"):
        cache.check_private(tmp_path)
    with pytest.raises(PermissionError, match="it belongs to another user"):
        cache.checksum(file)


def test_link_is_not_followed(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert len(cache.checksum(tmp_path / "file")) == 64
    with pytest.raises(OSError):
        cache.checksum(tmp_path / "link")


@pytest.mark.skipif(kernel.compiler() is None, reason="needs a C compiler")
def test_codec_takes_nothing_from_a_folder_of_many(place, monkeypatch):
    place.mkdir(parents=True)
    place.chmod(0o777)
    x = np.ones((1, blocked.COMPILED_FROM), np.float32)
    monkeypatch.setattr(kernel, "_declared", lambda path: pytest.fail(f"{path} was loaded"))
    with pytest.warns(UserWarning, match="compiled codec is not used: .*mode 0777, allowed is "
                                         "0700.*M2XFP_CACHE_DIR sets another folder"):
        record = quantize_activations(x)
    assert not [*place.iterdir()]
    monkeypatch.setenv("M2XFP_NUMPY", "1")
    assert np.array_equal(record.elements, quantize_activations(x).elements)
