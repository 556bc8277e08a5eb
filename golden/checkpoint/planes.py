# SPDX-License-Identifier: BSD-2-Clause
"""Planes of weights in files: writing, checking and restoring them."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..codec.arrays import Float32Array
from ..codec.quantized import Quantized, check_quantized
from ..output import check_output, replacing
from ..units.decoder import dequantize
from . import sources
from .layout import FORMATS, KEY, layout, plane_shape, read_manifest
from .safetensors import BITS, BadFile, Reader, Writer
from .sources import DTYPES, Weight


def write(target: str | os.PathLike[str],
          weights: Mapping[str, tuple[Float32Array, Quantized]],
          copied: Mapping[str, Float32Array], *, note: str = "") -> dict[str, Any]:
    """Writes quantized weights in the layout of `golden.checkpoint.convert.convert`.

    Parameters
    ----------
    target : path-like
        Safetensors file. It and the manifest beside it are replaced at the end.
    weights : mapping of str to (float32 array, Quantized)
        By name, the values and their codes in Sg-EM, in groups of 32 and subgroups of 8.
    copied : mapping of str to float32 array
        All other tensors.
    note : str
        A remark on the weights for the manifest.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    BadFile
        If two tensors would have the same name.
    OSError
        If a file cannot be written.
    ValueError
        If a weight is not of encoding "sg-em", or if a file cannot be written at ``target``.
    """
    target = Path(target)
    check_output(target)
    for name, (_, q) in weights.items():
        check_quantized(q, name, "weight", "sg-em")
    described = [Weight(name=name, shape=values.shape, dtype="F32", parts=(name,), note=note)
                 for name, (values, _) in weights.items()]
    kept = {name: ("F32", values.shape) for name, values in copied.items()}
    tensors, manifest = layout(target, described, kept, "m2xfp", "floor", True)
    with replacing(target, target.with_name(f"{target.name}.json")) as (file, text), tqdm(
            total=sum(values.size for values, _ in weights.values()), unit="el", unit_scale=True,
            leave=False, disable=None) as bar:
        writer = Writer(file, tensors, {KEY: json.dumps(manifest)})
        for weight in described:
            put_weight(writer, weight, manifest, [(0, *weights[weight.name])], bar)
        for name, values in copied.items():
            data = np.ascontiguousarray(values, "<f4").tobytes()
            writer.put(name, data)
            manifest["copied"][name] = hashlib.sha256(data).hexdigest()
        writer.finish({KEY: json.dumps(manifest)})
        text.write(json.dumps(manifest, indent=2).encode() + b"\n")
    return manifest


def check_target(source: str | os.PathLike[str], target: Path) -> None:
    """Raises ValueError unless a file can be written that is not the source."""
    check_output(target)
    if target.exists() and os.path.samefile(source, target):
        raise ValueError(f"OUT must be another file than IN, not {target}")


def put_weight(writer: Writer, weight: Weight, manifest: dict[str, Any],
               blocks: Iterable[tuple[int, Float32Array, Quantized]], bar: "tqdm[Any]") -> None:
    """Writes a weight's planes and describes them in the manifest.

    Parameters
    ----------
    writer : Writer
    weight : Weight
    manifest : dict
        Its entry of the weight gets digests and the error.
    blocks : iterable of (int, float32 array, Quantized)
        First row, values and codes of some rows.
    bar : tqdm
        Shows the progress in elements.
    """
    entry = manifest["tensors"][weight.name]
    digests = {plane: hashlib.sha256() for plane in entry["planes"]}
    of_values = hashlib.sha256()
    error = square = 0.0
    lossless = True
    for start, values, q in blocks:
        for plane, data in zip(FORMATS["m2xfp"], q.pack(), strict=True):
            if plane in digests:
                digests[plane].update(data)
                writer.put(f"{weight.name}.{plane}", data,
                           start * plane_shape(weight.shape, plane)[-1])
        read = dequantize(q)
        of_values.update(read.astype("<f4", copy=False).tobytes())
        lossless &= bool(_equal(values, read).all())
        with np.errstate(invalid="ignore"):
            difference = read.astype(np.float64) - values
        # Where both are NaN or the same infinity, there is no error.
        difference[_equal(values, read)] = 0
        error += float(np.square(difference).sum())
        square += float(np.square(values, where=np.isfinite(values), dtype=np.float64,
                                  out=np.zeros(values.shape)).sum())
        bar.update(values.size)
    for plane, digest in digests.items():
        entry["planes"][plane]["sha256"] = digest.hexdigest()
    # None if a finite value became NaN or infinite.
    relative = 0.0 if error == 0 else error / square if square else math.inf
    entry |= {"values_sha256": of_values.hexdigest(), "lossless": lossless,
              "relative_squared_error": relative if math.isfinite(relative) else None}


def _equal(a, b):
    """Tells which values have the same bits, or are NaN in both."""
    return (a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))


def copy(reader: Reader, writer: Writer, name: str) -> str:
    """Copies a tensor and returns its SHA-256."""
    digest = hashlib.sha256()
    for start, data in _pieces(reader, name):
        digest.update(data)
        writer.put(name, data, start)
    return digest.hexdigest()


def _pieces(reader, name):
    tensor = reader.tensors[name]
    size = tensor.stop - tensor.start
    for start in range(0, size, sources.BLOCK):
        yield start, reader.read(name, start, min(start + sources.BLOCK, size))


def _read_planes(reader, name, manifest, different, bar):
    """Reads the values of a tensor some rows at a time.

    At the end ``different`` is called with a text for each digest that differs.
    """
    entry = manifest["tensors"][name]
    *lead, k = entry["shape"]
    rows, step = math.prod(lead), max(1, sources.BLOCK // k)
    digests = {plane: hashlib.sha256() for plane in FORMATS[manifest["format"]]}
    of_values = hashlib.sha256()
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        planes = {}
        for plane in FORMATS["m2xfp"]:
            width = plane_shape((k,), plane)[0]
            if plane in digests:
                planes[plane] = reader.read(f"{name}.{plane}", start * width, stop * width)
                digests[plane].update(planes[plane])
            else:
                planes[plane] = bytes((stop - start) * width)
        values = dequantize(Quantized.unpack(**planes, kind="weight", shape=(stop - start, k)))
        of_values.update(values.astype("<f4", copy=False).tobytes())
        bar.update(values.size)
        yield start, values
    for plane, digest in digests.items():
        if digest.hexdigest() != entry["planes"][plane]["sha256"]:
            different(f"{plane} of {name!a} have another digest")
    if of_values.hexdigest() != entry["values_sha256"]:
        different(f"values of {name!a} are not those that were quantized")


def _bar(manifest):
    return tqdm(total=sum(math.prod(t["shape"]) for t in manifest["tensors"].values()),
                unit="el", unit_scale=True, leave=False, disable=None)


def check(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[str]]:
    """Compares a converted file with the digests in its manifest, and with the JSON beside it.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    manifest : dict
    differences : list of str
        One line per difference.

    Raises
    ------
    BadFile
        If it is not a converted file.
    OSError
        If it cannot be read.
    """
    differences: list[str] = []
    with Reader(path) as reader:
        manifest = read_manifest(reader)
        with _bar(manifest) as bar:
            for name in manifest["tensors"]:
                for _ in _read_planes(reader, name, manifest, differences.append, bar):
                    pass
        for name, expected in manifest["copied"].items():
            digest = hashlib.sha256()
            for _, data in _pieces(reader, name):
                digest.update(data)
            if digest.hexdigest() != expected:
                differences.append(f"{name!a} has another digest")
    beside = Path(f"{path}.json")
    if beside.exists():
        try:
            same = json.loads(beside.read_bytes()) == manifest
        except (ValueError, RecursionError):
            same = False
        if not same:
            differences.append(f"{beside} is not the manifest in the file")
    return manifest, differences


def restore(source: str | os.PathLike[str], target: str | os.PathLike[str], *,
            dtype: str = "float32") -> None:
    """Writes the values of a converted file's planes as floats.

    Parameters
    ----------
    source, target : path-like
        Safetensors files. ``target`` is replaced at the end.
    dtype : str
        "float32", which is exact; or "source", the type that each tensor had, rounded to nearest,
        ties to even. Weights that had been MXFP4 or NVFP4 become float32.

    Raises
    ------
    BadFile
        If ``source`` holds no planes, or if they differ from its manifest.
    OSError
        If a file cannot be read or written.
    """
    target = Path(target)

    def different(text: str) -> None:
        raise BadFile(f"{source} differs from its manifest: {text}")

    with Reader(source) as reader:
        check_target(source, target)
        manifest = read_manifest(reader)
        tensors = {name: (reader.tensors[name].dtype, reader.tensors[name].shape)
                   for name in manifest["copied"]}
        for name, entry in manifest["tensors"].items():
            if name in tensors:
                raise BadFile(f"{source}: two tensors would both be written as {name!a}")
            kept = dtype == "source" and entry["source_dtype"] in DTYPES
            tensors[name] = entry["source_dtype"] if kept else "F32", tuple(entry["shape"])
        others = {key: text for key, text in reader.metadata.items() if key != KEY}
        with replacing(target) as (file,), _bar(manifest) as bar:
            writer = Writer(file, tensors, others)
            for name in manifest["tensors"]:
                given, shape = tensors[name]
                width = shape[-1] * BITS[given] // 8
                for start, values in _read_planes(reader, name, manifest, different, bar):
                    with np.errstate(over="ignore"):
                        data = values.astype(DTYPES[given], copy=False).tobytes()
                    writer.put(name, data, start * width)
            for name, expected in manifest["copied"].items():
                if copy(reader, writer, name) != expected:
                    different(f"{name!a} has another digest")
            writer.finish(others)
