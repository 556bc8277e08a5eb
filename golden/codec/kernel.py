# SPDX-License-Identifier: BSD-2-Clause
"""The compiled part of the codec: kernel.c, compiled once for each machine and kept."""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path

from ..interrupts import PLACES, temporary_folder


def folder() -> Path:
    """The cache folder: ``$M2XFP_CACHE_DIR``, or m2xfp-rtl in the user's cache folder."""
    if chosen := os.environ.get("M2XFP_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "m2xfp-rtl"


PLACES.append(folder)


def load() -> ctypes.CDLL | None:
    """Loads the compiled kernel, and compiles it first if need be.

    Without the kernel NumPy computes the same.

    Returns
    -------
    ctypes.CDLL or None
        None if no C compiler works, or if the environment variable ``M2XFP_NUMPY`` is not empty.
    """
    return None if os.environ.get("M2XFP_NUMPY") else _load()


def compiler(variable: str = "CC", names: tuple[str, ...] = ("cc", "gcc", "clang")
             ) -> list[str] | None:
    """Finds a compiler.

    Parameters
    ----------
    variable : str
        Environment variable that may hold a command.
    names : tuple of str
        Programs to look for if it does not.

    Returns
    -------
    list of str or None
        The command's words, or None if there is no compiler.
    """
    for command in (os.environ.get(variable, ""), *names):
        # A text with an open quote is not a command.
        try:
            words = shlex.split(command)
        except ValueError:
            continue
        if words and shutil.which(words[0]):
            return words
    return None


# Exact IEEE arithmetic: nothing is contracted or reordered.
_FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fPIC", "-shared"]
_NATIVE = ["-march=native"]


@cache
def _load():
    command = compiler()
    if command is None:
        return None
    source = resources.files(__package__).joinpath("kernel.c").read_bytes()
    for options in (_NATIVE, []):
        words = [*command, *_FLAGS, *options]
        # The compiler's predefined macros tell its version, the system and, with -march=native,
        # this machine's instructions.
        defined = _run([*command, *options, "-dM", "-E", "-x", "c", os.devnull])
        if defined is None:
            continue
        digest = hashlib.sha256(b"\0".join([" ".join(words).encode(), source, defined]))
        path = folder() / f"kernel-{digest.hexdigest()[:32]}.so"
        try:
            if path.exists() or _build(words, source, path):
                return _declared(path)
        except (OSError, AttributeError):
            # The folder cannot be written, or the file is not such a library: once more.
            with suppress(OSError):
                path.unlink(missing_ok=True)
                if _build(words, source, path):
                    return _declared(path)
    return None


def _build(command, source, path):
    """Compiles the library; False if that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(path.parent) as scratch:
        (scratch / "kernel.c").write_bytes(source)
        target = scratch / path.name
        if _run([*command, str(target.with_name("kernel.c")), "-o", str(target)]) is None:
            return False
        # At once, as others may load or build it meanwhile.
        target.replace(path)
    return True


def _run(command):
    """Returns the output of a command, or None if it fails."""
    process = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return None if process.returncode else process.stdout


def _declared(path):
    """Loads the library and declares the types of its functions."""
    library = ctypes.CDLL(str(path))
    pointer, size, number, bits = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int,
                                   ctypes.c_uint32)
    sizes, planes = [pointer, size, number, number, bits, bits], [pointer] * 3
    library.encode_activations.argtypes = [*sizes, *planes]
    library.encode_weights.argtypes = [*sizes, number, *planes]
    library.encode_special.argtypes = [pointer, size, number, number, number, *planes]
    library.decode_groups.argtypes = [number, *planes, size, number, number, pointer]
    library.encode_scaled.argtypes = [pointer, size, number, pointer, number, bits, bits, number,
                                      *planes]
    library.decode_scaled.argtypes = [*planes, size, number, number, pointer, pointer, number,
                                      number, ctypes.c_float, number, pointer]
    real = ctypes.c_double
    library.encode_float_scaled.argtypes = [pointer, size, real, real, pointer, pointer, number,
                                            *planes]
    library.decode_float_scaled.argtypes = [pointer, pointer, size, *[pointer] * 5]
    library.largest_finite.argtypes = [pointer, size]
    for function in (library.encode_activations, library.encode_weights, library.encode_special,
                     library.decode_groups, library.encode_scaled, library.decode_scaled,
                     library.encode_float_scaled, library.decode_float_scaled):
        function.restype = None
    library.largest_finite.restype = bits
    library.compare_values.argtypes = [pointer, pointer, size, pointer]
    library.compare_values.restype = size
    return library
