# SPDX-License-Identifier: BSD-2-Clause
"""Planes of weights in files: writing, checking and restoring them.

Blocks of rows are worked on by threads; digests, sums and files take them in order, so that the
result does not depend on the number of threads.
"""

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from ..codec.arrays import Float32Array
from ..codec.blocked import compare
from ..codec.quantized import Quantized, check_quantized
from ..output import check_output, new_folder, remove_left, replacing
from ..units.decoder import dequantize
from . import sources
from .layout import ENCODINGS, FORMATS, KEY, PLANES, layout, plane_shape, read_manifest
from .model import CONFIG, INDEX, Model
from .safetensors import BITS, BadFile, Reader, Writer
from .values import DTYPES, Weight

T = TypeVar("T")


def cores() -> int:
    """Number of processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def in_order(calls: Iterable[Callable[[], T]], threads: int) -> Iterator[T]:
    """Calls functions in threads and yields their results in order, few of them ahead.

    Parameters
    ----------
    calls : iterable of callable
    threads : int
        One means the calling thread.
    """
    if threads == 1:
        for call in calls:
            yield call()
        return
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for call in calls:
            pending.append(pool.submit(call))
            if len(pending) > threads + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Some rows of a weight, encoded.

    Attributes
    ----------
    start : int
        The first row.
    planes : tuple of bytes
        Elements, metadata and scales.
    values : float32 array
        What the planes decode to.
    error, square : float
        Sums of the squared errors and of the squared finite values.
    lossless : bool
        Whether all values decode to the same bits, or NaN to NaN.
    """

    start: int
    planes: tuple[bytes, bytes, bytes]
    values: Float32Array
    error: float
    square: float
    lossless: bool


def encoded(start: int, values: Float32Array, q: Quantized) -> Block:
    """Packs some rows and compares what they decode to with what they were."""
    read = dequantize(q, threads=1)
    error, square, lossless = compare(values, read)
    return Block(start=start, planes=q.pack(), values=read, error=error, square=square,
                 lossless=lossless)


def write(target: str | os.PathLike[str],
          weights: Mapping[str, tuple[Float32Array, Quantized]],
          copied: Mapping[str, Float32Array], *, note: str = "",
          beside: Mapping[Path, bytes] = MappingProxyType({})) -> dict[str, Any]:
    """Writes quantized weights in the layout of `golden.checkpoint.convert.convert`.

    Parameters
    ----------
    target : path-like
        Safetensors file. It and the manifest beside it are replaced at the end.
    weights : mapping of str to (float32 array, Quantized)
        By name, the values and their codes in subgroups of 8 and in groups of 32, or of 64 in
        Sg-special64, all in one encoding.
    copied : mapping of str to float32 array
        All other tensors.
    note : str
        A remark on the weights for the manifest.
    beside : mapping of Path to bytes
        Files in the same folder that belong to these planes; they are replaced with them.

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
        If the weights are not all of one encoding, or if a file cannot be written at ``target``.
    """
    target = Path(target)
    check_output(target)
    first = next((q.encoding for _, q in weights.values()), None) or "sg-em"
    for name, (_, q) in weights.items():
        check_quantized(q, name, "weight", first)
    format = "m2xfp" if first == "sg-em" else first
    described = [Weight(name=name, shape=values.shape, dtype="F32", parts=(name,), note=note)
                 for name, (values, _) in weights.items()]
    kept = {name: ("F32", values.shape) for name, values in copied.items()}
    tensors, manifest = layout(target, described, kept, format, "floor", True)
    manifest_path = target.with_name(f"{target.name}.json")
    with replacing(target, *beside, manifest_path) as (file, *others, text), tqdm(
            total=sum(values.size for values, _ in weights.values()), unit="el", unit_scale=True,
            leave=False, disable=None) as bar:
        writer = Writer(file, tensors, {KEY: json.dumps(manifest)})
        for weight in described:
            put_weight(writer, weight, manifest, [encoded(0, *weights[weight.name])], bar)
        for name, values in copied.items():
            data = np.ascontiguousarray(values, "<f4").tobytes()
            writer.put(name, data)
            manifest["copied"][name] = hashlib.sha256(data).hexdigest()
        writer.finish({KEY: json.dumps(manifest)})
        for other, content in zip(others, beside.values(), strict=True):
            other.write(content)
        text.write(json.dumps(manifest, indent=2).encode() + b"\n")
    return manifest


def check_target(source: str | os.PathLike[str], target: Path) -> None:
    """Raises ValueError unless a file can be written that is not the source."""
    check_output(target)
    if target.exists() and os.path.samefile(source, target):
        raise ValueError(f"OUT must be another file than IN, not {target}")


def check_target_folder(target: Path) -> None:
    """Raises ValueError unless a folder can be made; removes what killed processes left for it."""
    if not target.parent.is_dir():
        raise ValueError(f"OUT must lie in a folder that exists, not {target.parent}")
    if os.path.lexists(target):
        remove_left(target)
        raise ValueError(f"OUT must be a new folder, as IN is a model of shards, not {target}, "
                         "which exists")


def put_weight(writer: Writer, weight: Weight, manifest: dict[str, Any],
               blocks: Iterable[Block], bar: "tqdm[Any]") -> None:
    """Writes a weight's planes and describes them in the manifest.

    Parameters
    ----------
    writer : Writer
    weight : Weight
    manifest : dict
        Its entry of the weight gets digests and the error.
    blocks : iterable of Block
        In the order of their rows.
    bar : tqdm
        Shows the progress in elements.
    """
    entry = manifest["tensors"][weight.name]
    digests = {plane: hashlib.sha256() for plane in entry["planes"]}
    of_values = hashlib.sha256()
    error = square = 0.0
    lossless = True
    for block in blocks:
        for plane, data in zip(PLANES, block.planes, strict=True):
            if plane in digests:
                digests[plane].update(data)
                writer.put(f"{weight.name}.{plane}", data,
                           block.start * plane_shape(weight.shape, plane, manifest["format"])[-1])
        of_values.update(_little(block.values))
        lossless &= block.lossless
        error += block.error
        square += block.square
        bar.update(block.values.size)
    for plane, digest in digests.items():
        entry["planes"][plane]["sha256"] = digest.hexdigest()
    # None if a finite value became NaN or infinite.
    relative = 0.0 if error == 0 else error / square if square else math.inf
    entry |= {"values_sha256": of_values.hexdigest(), "lossless": lossless,
              "relative_squared_error": relative if math.isfinite(relative) else None}


def _little(values):
    return np.ascontiguousarray(values.astype("<f4", copy=False)).data


def copy(reader: Any, writer: Writer, name: str) -> str:
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


def row_blocks(rows: int, k: int) -> list[tuple[int, int]]:
    """Ranges of rows that are read or written at a time."""
    step = max(1, sources.BLOCK // k)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def _read_planes(reader, name, manifest, different, bar, threads):
    """Reads the values of a tensor some rows at a time.

    At the end ``different`` is called with a text for each digest that differs.
    """
    entry = manifest["tensors"][name]
    *lead, k = entry["shape"]
    format = manifest["format"]
    planes = FORMATS[format]
    digests = {plane: hashlib.sha256() for plane in planes}
    of_values = hashlib.sha256()

    def read(start, stop):
        found = {}
        for plane in PLANES:
            width = plane_shape((k,), plane, format)[0]
            found[plane] = (reader.read(f"{name}.{plane}", start * width, stop * width)
                            if plane in digests else bytes((stop - start) * width))
        q = Quantized.unpack(**found, kind="weight", shape=(stop - start, k),
                             group=manifest["group"], encoding=ENCODINGS[format])
        return start, found, dequantize(q, threads=1)

    for start, found, values in in_order(
            (lambda block=block: read(*block) for block in row_blocks(math.prod(lead), k)),
            threads):
        for plane, digest in digests.items():
            digest.update(found[plane])
        of_values.update(_little(values))
        bar.update(values.size)
        yield start, values
    for plane, digest in digests.items():
        if digest.hexdigest() != entry["planes"][plane]["sha256"]:
            different(f"{plane} of {name!a} have another digest")
    if of_values.hexdigest() != entry["values_sha256"]:
        different(f"values of {name!a} are not those that were quantized")


def _bar(manifests):
    return tqdm(total=sum(math.prod(t["shape"]) for manifest in manifests
                          for t in manifest["tensors"].values()),
                unit="el", unit_scale=True, leave=False, disable=None)


def joined(manifests: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """One manifest of all tensors, from those of the shards."""
    first, *_ = manifests.values()
    parts = {key: {name: entry for manifest in manifests.values()
                   for name, entry in manifest.get(key, {}).items()}
             for key in ("tensors", "copied", "left_alone")}
    return first | parts


def check(path: str | os.PathLike[str], *, threads: int = 1
          ) -> tuple[dict[str, Any], list[str]]:
    """Compares a converted file or folder with its digests, and with the JSON beside each file.

    Parameters
    ----------
    path : path-like
    threads : int

    Returns
    -------
    manifest : dict
    differences : list of str
        One line per difference.

    Raises
    ------
    BadFile
        If it was not converted, or if none of its tensors is in planes.
    OSError
        If it cannot be read.
    """
    differences: list[str] = []
    with Model(path) as model:
        manifests = {shard: read_manifest(reader) for shard, reader in model.shards.items()}
        if not any(manifest["tensors"] for manifest in manifests.values()):
            raise BadFile(f"{path} holds no tensor in planes, so that there is nothing to verify")
        with _bar(manifests.values()) as bar:
            for shard, manifest in manifests.items():
                differences += _check_shard(model.shards[shard], manifest, bar, threads)
    return joined(manifests), differences


def _check_shard(reader, manifest, bar, threads):
    differences: list[str] = []
    for name in manifest["tensors"]:
        for _ in _read_planes(reader, name, manifest, differences.append, bar, threads):
            pass
    for name, expected in manifest["copied"].items():
        digest = hashlib.sha256()
        for _, data in _pieces(reader, name):
            digest.update(data)
        if digest.hexdigest() != expected:
            differences.append(f"{name!a} has another digest")
    beside = Path(f"{reader.path}.json")
    if beside.exists():
        try:
            same = json.loads(beside.read_bytes()) == manifest
        except (ValueError, RecursionError):
            same = False
        if not same:
            differences.append(f"{beside} is not the manifest in the file")
    return differences


def restore(source: str | os.PathLike[str], target: str | os.PathLike[str], *,
            dtype: str = "float32", threads: int = 1) -> None:
    """Writes the values of a converted file's or folder's planes as floats.

    Parameters
    ----------
    source, target : path-like
        Safetensors files, or folders. A file ``target`` is replaced at the end; a folder must be
        new.
    dtype : str
        "float32", which is exact; or "source", the type that each tensor had, rounded to nearest,
        ties to even. Weights that had been packed become float32.
    threads : int

    Raises
    ------
    BadFile
        If ``source`` holds no planes, or if they differ from its manifest.
    OSError
        If a file cannot be read or written.
    ValueError
        If ``target`` cannot be written.
    """
    target = Path(target)
    with Model(source) as model, ExitStack() as stack:
        if model.folder is None:
            check_target(source, target)
        else:
            check_target_folder(target)
        manifests = {shard: read_manifest(reader) for shard, reader in model.shards.items()}
        bar = stack.enter_context(_bar(manifests.values()))
        if model.folder is None:
            reader, = model.shards.values()
            manifest, = manifests.values()
            file, = stack.enter_context(replacing(target))
            _restore_shard(reader, manifest, file, dtype, bar, threads)
            return
        folder = stack.enter_context(new_folder(target))
        names = {}
        for shard, reader in model.shards.items():
            with open(folder / shard, "xb") as file:
                tensors = _restore_shard(reader, manifests[shard], file, dtype, bar, threads)
                os.fsync(file.fileno())
            names[shard] = tensors
        copy_others(model, folder)
        write_index(model, folder, names)
        write_config(model, folder, None)


def _restore_shard(reader, manifest, file, dtype, bar, threads):
    def different(text: str) -> None:
        raise BadFile(f"{reader.path} differs from its manifest: {text}")

    tensors = {name: (reader.tensors[name].dtype, reader.tensors[name].shape)
               for name in manifest["copied"]}
    for name, entry in manifest["tensors"].items():
        if name in tensors:
            raise BadFile(f"{reader.path}: two tensors would both be written as {name!a}")
        kept = dtype == "source" and entry["source_dtype"] in DTYPES
        shape = entry["shape"]
        if entry.get("transposed"):
            shape = [*shape[:-2], shape[-1], shape[-2]]
        tensors[name] = entry["source_dtype"] if kept else "F32", tuple(shape)
    others = {key: text for key, text in reader.metadata.items() if key != KEY}
    writer = Writer(file, tensors, others)
    for name, entry in manifest["tensors"].items():
        given, _ = tensors[name]
        *lead, k = entry["shape"]
        width = k * BITS[given] // 8
        blocks = _read_planes(reader, name, manifest, different, bar, threads)
        for start, values in (_matrices(blocks, lead[-1], k) if entry.get("transposed")
                              else blocks):
            with np.errstate(over="ignore"):
                data = values.astype(DTYPES[given], copy=False).tobytes()
            writer.put(name, data, start * width)
    for name, expected in manifest["copied"].items():
        if copy(reader, writer, name) != expected:
            different(f"{name!a} has another digest")
    writer.finish(others)
    return tensors


def _matrices(blocks, rows, k):
    """Joins blocks of rows into whole matrices and transposes these."""
    matrix, start = np.empty((rows, k), np.float32), 0
    for _, values in blocks:
        while len(values):
            index = start % rows
            part = values[: rows - index]
            matrix[index: index + len(part)] = part
            values = values[len(part):]
            start += len(part)
            if start % rows == 0:
                yield start - rows, matrix.T


def copy_others(model: Model, folder: Path) -> list[str]:
    """Copies what lies beside a model's weights; returns the names of what is not copied."""
    assert model.folder is not None
    copied, left = model.others()
    for name in copied:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((model.folder / name).read_bytes())
    return left


def write_index(model: Model, folder: Path,
                names: Mapping[str, Mapping[str, tuple[str, tuple[int, ...]]]]) -> None:
    """Writes the index of a model that has one, or has several shards.

    Parameters
    ----------
    model : Model
    folder : Path
    names : mapping
        By shard, dtypes and shapes of its tensors.
    """
    name = model.index or f"model{INDEX}"
    if not model.index and len(model.shards) == 1:
        return
    size = sum(math.prod(shape) * BITS[dtype] // 8
               for tensors in names.values() for dtype, shape in tensors.values())
    index = {"metadata": {"total_size": size},
             "weight_map": {name: shard for shard, tensors in names.items() for name in tensors}}
    (folder / name).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_config(model: Model, folder: Path, quantization: Mapping[str, Any] | None) -> None:
    """Writes config.json, if there is one, with another ``quantization_config`` or none."""
    if not model.config:
        return
    config = {key: value for key, value in model.config.items() if key != "quantization_config"}
    if isinstance(text := config.get("text_config"), dict):
        config["text_config"] = {key: value for key, value in text.items()
                                 if key != "quantization_config"}
    if quantization is not None:
        config["quantization_config"] = dict(quantization)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


__all__ = [
    "Block", "Reader", "check", "check_target", "check_target_folder", "copy", "copy_others",
    "cores", "encoded", "in_order", "joined", "put_weight", "restore", "row_blocks", "write",
    "write_config", "write_index",
]
