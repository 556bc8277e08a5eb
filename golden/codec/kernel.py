# SPDX-License-Identifier: BSD-2-Clause
"""The compiled part of the codec: kernel.c, compiled once for each machine and kept."""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import warnings
from contextlib import suppress
from functools import cache
from importlib import resources

from ..cache import check_private, checksum, flush, folder, make_private
from ..interrupts import temporary_folder


def load() -> ctypes.CDLL | None:
    """Loads the compiled kernel, and compiles it first if need be.

    Without the kernel NumPy computes the same.

    Returns
    -------
    ctypes.CDLL or None
        None if no C compiler works, if the environment variable ``M2XFP_NUMPY`` is not empty, or,
        with a warning, if others may write into the cache folder.
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
    try:
        if folder().exists():
            check_private(folder())
    except OSError as error:
        warnings.warn(f"the compiled codec is not used: cache folder {folder()}: "
                      f"{error.strerror}; M2XFP_CACHE_DIR sets another folder", stacklevel=4)
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
        name = f"kernel-{digest.hexdigest()[:32]}"
        # The folder cannot be written, or the file is not such a library: then the next options.
        with suppress(OSError, AttributeError):
            path = _kept(name) or _build(words, source, name)
            if path:
                return _declared(path)
    return None


def _kept(name):
    """The library in the cache folder whose content has the digest in its name, or None."""
    for path in folder().glob(f"{name}-*.so"):
        # A library that was cut off would end the process that loads it.
        if path.name == f"{name}-{checksum(path)}.so":
            return path
        path.unlink(missing_ok=True)
    return None


def _build(command, source, name):
    """Compiles the library into the cache folder; returns its path, or None if that fails."""
    make_private(folder())
    with temporary_folder(folder()) as scratch:
        (scratch / "kernel.c").write_bytes(source)
        target = scratch / "kernel.so"
        if _run([*command, str(scratch / "kernel.c"), "-o", str(target)]) is None:
            return None
        flush(target)
        path = folder() / f"{name}-{checksum(target)}.so"
        # At once, as others may load or build it meanwhile.
        target.replace(path)
    return path


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
