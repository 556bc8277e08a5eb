"""Converts checkpoints of language models to planes of M2XFP or MXFP4, and back.

``python -m golden convert IN.safetensors OUT.safetensors``

Tensors of float32, float16 or bfloat16 with two axes or more are quantized along the last one,
unless they are named as biases, scales or zero points. Weights in MXFP4 (NAME_blocks and
NAME_scales) keep every code: their metadata are 0. Weights in NVFP4 (NAME.weight or
NAME.weight_packed, with NAME.weight_scale and a tensor scale) are dequantized and quantized again.
All else is copied.

OUT is one safetensors file, because that is what loaders of checkpoints read, and because one
file can be replaced as a whole, which a folder cannot. A tensor NAME becomes the uint8 tensors
NAME.elements, NAME.metadata and NAME.scales, and how to read them is in the file itself, as JSON
under "m2xfp" in the metadata. OUT.json beside it holds the same for people to read.
"""

import hashlib
import json
import math
import os
import sys
import tomllib
from argparse import RawDescriptionHelpFormatter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import ml_dtypes
import numpy as np
from tqdm import tqdm

from ..codec.numbers import RULES
from ..codec.quantized import Quantized, check_quantized
from ..command import Parser
from ..formats.mxfp4 import quantize_mxfp4
from ..formats.nvfp4 import E4M3_VALUES
from ..formats.nvfp4 import GROUP as NVFP4_GROUP
from ..formats.nvfp4 import SCALE_MAX as NVFP4_SCALE_MAX
from ..units.decoder import dequantize
from ..units.weight_encoder import quantize_weights
from .safetensors import BITS, BadFile, Reader, Writer, replacing

FORMATS = {"m2xfp": ("elements", "metadata", "scales"), "mxfp4": ("elements", "scales")}
"""Planes by format."""

BLOCK = 2**20
"""Elements that are converted at a time, but at least one row."""

GROUP, SUBGROUP = 32, 8

KEY = "m2xfp"
"""Of the manifest in the file's metadata."""

_BITS = {"elements": 4, "metadata": 2, "scales": 8}
_DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
           "BF16": np.dtype(ml_dtypes.bfloat16)}
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
_LOW_NIBBLE_FIRST = np.arange(0, 8, 4, dtype=np.uint8)

# Ends of names of what has two axes, too, where there are experts or blocks of weights.
_NO_WEIGHTS = ("bias", "scale", "scales", "scale_2", "scale_inv", "zero_point")

# How planes are read, as the manifest states it.
_ENCODING = {
    "elements": "E2M1 codes (bit 3 sign, magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6), two per byte, "
                "the element of lower index in bits 3..0",
    "metadata": "k of each subgroup, four per byte, the subgroup of lower index in the lower bits",
    "scales": "X of each group, a byte: 2**(X - 127); 255 makes all of the group NaN",
    "order": "row by row; within a row along the last axis, padded to whole groups; "
             "rows begin at whole bytes",
}
_VALUES = {"m2xfp": "E2M1 * (1 + k / 4) * 2**(X - 127)", "mxfp4": "E2M1 * 2**(X - 127)"}


def main(arguments=None):
    parser = Parser(prog="python -m golden convert", description=__doc__,
                    formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="IN", help="safetensors file")
    parser.add_argument("target", type=Path, metavar="OUT", nargs="?",
                        help="safetensors file to write; without it, --verify checks IN")
    parser.add_argument("--format", choices=FORMATS, default="m2xfp",
                        help="of the planes (default: m2xfp)")
    parser.add_argument("--rule", choices=RULES, help="of the scales (default: floor)")
    parser.add_argument("--fixed", action="store_true",
                        help="no neighbouring scales are tried; of m2xfp only")
    parser.add_argument("--swizzled", action="store_true",
                        help="scales of NVFP4 whose shape does not tell are 128x4-swizzled "
                             "(default: row by row)")
    parser.add_argument("--dequantize", action="store_true",
                        help="goes back, from planes to floats; digests are checked")
    parser.add_argument("--dtype", choices=("float32", "source"),
                        help="of dequantized tensors (default: float32)")
    parser.add_argument("--verify", action="store_true",
                        help="reads what was written, before it takes its place, and compares "
                             "digests of the planes and of the dequantized values")
    options = parser.parse_args(arguments)
    if options.target is None and not options.verify:
        parser.error("OUT must be given, except with --verify")
    if options.dequantize and options.verify:
        parser.error("--verify must not come with --dequantize, which always checks IN")
    if options.dtype and not options.dequantize:
        parser.error("--dtype must come with --dequantize")
    quantizes = options.target is not None and not options.dequantize
    if not quantizes and (options.rule or options.fixed or options.swizzled
                          or options.format != "m2xfp"):
        parser.error("--format, --rule, --fixed and --swizzled must come with a conversion")
    if options.fixed and options.format != "m2xfp":
        parser.error(f"--fixed must come with --format m2xfp, not {options.format}")

    try:
        if options.target is None:
            manifest, differences = check(options.source)
            if differences:
                raise BadFile(f"{options.source} differs from its manifest: {differences[0]}"
                              + f" and {len(differences) - 1} more" * (len(differences) > 1))
            print(f"{options.source}: {len(manifest['tensors'])} tensors in planes, "
                  f"{len(manifest['copied'])} copied, all as their manifest says")
        elif options.dequantize:
            restore(options.source, options.target, dtype=options.dtype or "float32")
        else:
            manifest = convert(options.source, options.target, format=options.format,
                               rule=options.rule or "floor", adaptive=not options.fixed,
                               swizzled=options.swizzled, verify=options.verify)
            print(table(manifest))
            if options.verify:
                print("verified: the file holds what was quantized")
    except BadFile as error:
        return _failed(error)
    except OSError as error:
        return _failed(f"{error.filename or options.target or options.source}: "
                       f"{error.strerror or error}")
    except KeyboardInterrupt:
        _failed("interrupted")
        return 130
    return 0


def _failed(text):
    print(f"error: {text}", file=sys.stderr)
    return 1


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A tensor to be converted.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Shape (..., K).
    dtype : str
        "F32", "F16", "BF16", "MXFP4" or "NVFP4".
    parts : tuple of str
        The tensors that hold it: values; or codes, scales and, of NVFP4, the tensor scale.
    swizzled : bool
        Whether the scales are.
    note : str
        What was assumed of it.
    """

    name: str
    shape: tuple
    dtype: str
    parts: tuple
    swizzled: bool = False
    note: str = ""


def weights_of(reader, *, swizzled=False):
    """What is to be converted in a file.

    Parameters
    ----------
    reader : Reader
    swizzled : bool
        Whether scales of NVFP4 are, where their shape does not tell.

    Returns
    -------
    list of Weight

    Raises
    ------
    BadFile
        If tensors that belong together do not fit.
    """
    tensors = reader.tensors
    weights = []
    for name, tensor in tensors.items():
        base = name.removesuffix("_packed")
        if tensor.dtype in _DTYPES and len(tensor.shape) >= 2 and not name.endswith(_NO_WEIGHTS):
            if 0 in tensor.shape:
                raise BadFile(f"{reader.path}: {name!a} must have at least one element, "
                              f"not shape {list(tensor.shape)}")
            weights.append(Weight(name=name, shape=tensor.shape, dtype=tensor.dtype,
                                  parts=(name,)))
        elif tensor.dtype == "U8" and name.endswith("_blocks"):
            weights.append(_mxfp4(reader, name))
        elif tensor.dtype == "U8" and (name.endswith(".weight_packed") or (
                name.endswith(".weight") and f"{name}_scale" in tensors
                and tensors[f"{name}_scale"].dtype == "F8_E4M3")):
            weights.append(_nvfp4(reader, name, base, swizzled))
    return weights


def _require(reader, name, dtype, shapes, owner):
    """Raises BadFile unless there is such a tensor."""
    tensor = reader.tensors.get(name)
    shapes = [tuple(shape) for shape in shapes]
    if tensor is None or tensor.dtype != dtype or tensor.shape not in shapes:
        found = "is missing" if tensor is None else f"not {tensor.dtype} {list(tensor.shape)}"
        wanted = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        raise BadFile(f"{reader.path}: {owner!a} needs {name!a} of {dtype} {wanted}"
                      f"{', ' if tensor else ', which '}{found}")


def _mxfp4(reader, name):
    shape = reader.tensors[name].shape
    if len(shape) < 2 or shape[-1] != GROUP // 2 or 0 in shape:
        raise BadFile(f"{reader.path}: {name!a} must have the shape (..., groups, 16) of MXFP4 "
                      f"with at least one element, not {list(shape)}")
    stem = name.removesuffix("_blocks")
    _require(reader, f"{stem}_scales", "U8", [shape[:-1]], name)
    return Weight(name=stem, shape=(*shape[:-2], shape[-2] * GROUP), dtype="MXFP4",
                  parts=(name, f"{stem}_scales"), note="elements in the low nibble come first")


def _nvfp4(reader, name, base, swizzled):
    tensor = reader.tensors[name]
    if (len(tensor.shape) != 2 or 0 in tensor.shape
            or tensor.shape[1] % (NVFP4_GROUP // 2)):
        raise BadFile(f"{reader.path}: {name!a} must have the shape (N, K / 2) of NVFP4 "
                      f"with K a multiple of {NVFP4_GROUP}, not {list(tensor.shape)}")
    rows, groups = tensor.shape[0], tensor.shape[1] * 2 // NVFP4_GROUP
    linear, padded = (rows, groups), (-(-rows // 128) * 128, -(-groups // 4) * 4)
    _require(reader, f"{base}_scale", "F8_E4M3", [linear, padded], name)
    shape = reader.tensors[f"{base}_scale"].shape
    if linear != padded:
        swizzled = shape == padded
        layout = "padded, so assumed 128x4-swizzled" if swizzled else "row by row, as not padded"
    else:
        layout = ("128x4-swizzled, as the option says" if swizzled
                  else "assumed row by row, as their shape does not tell")

    scales = [s for s in (f"{base}_scale_2", f"{base}_global_scale") if s in reader.tensors]
    if len(scales) != 1:
        raise BadFile(f"{reader.path}: {name!a} needs one of {base + '_scale_2'!a} and "
                      f"{base + '_global_scale'!a}, not {'both' if scales else 'none'}")
    _require(reader, scales[0], "F32", [(), (1,)], name)
    value, = np.frombuffer(reader.read(scales[0]), "<f4")
    if not (np.isfinite(value) and value > 0):
        raise BadFile(f"{reader.path}: {scales[0]!a} must be finite and above 0, not {value}")
    if scales[0].endswith("_2"):
        how = "multiplies (ModelOpt's weight_scale_2)"
    else:
        how = "divides (compressed-tensors' weight_global_scale)"
    return Weight(name=base, shape=(rows, groups * NVFP4_GROUP), dtype="NVFP4",
                  parts=(name, f"{base}_scale", scales[0]), swizzled=swizzled,
                  note=f"scales {layout}; tensor scale {how}; elements in the low nibble first")


def linear_scales(plane, rows, groups):
    """Scales row by row from a 128x4-swizzled plane.

    The plane consists of tiles of 128 rows and 4 columns, 512 bytes each, row by row of tiles.
    The scale of row r and column c of a tile is its byte 16 * (r % 32) + 4 * (r // 32) + c.

    Parameters
    ----------
    plane : array, shape (R, C)
        R a multiple of 128, C of 4.
    rows, groups : int
        What remains of them.

    Returns
    -------
    array, shape (rows, groups)
    """
    tiles = plane.reshape(plane.shape[0] // 128, plane.shape[1] // 4, 32, 4, 4)
    return tiles.transpose(0, 3, 2, 1, 4).reshape(plane.shape)[:rows, :groups]


def _blocks(reader, weight):
    """Values of a weight in float32, and its codes and scales if they can be kept.

    Yields
    ------
    start, values, kept
        First row; float32 array, shape (rows, K); None or arrays of a byte per code and scale.
    """
    *lead, k = weight.shape
    rows, step = math.prod(lead), max(1, BLOCK // k)
    if weight.dtype == "NVFP4":
        scales = _nvfp4_scales(reader, weight)
        tensor_scale = np.float64(np.frombuffer(reader.read(weight.parts[2]), "<f4")[0])
        divides = not weight.parts[2].endswith("_2")

    def part(index, width):
        data = reader.read(weight.parts[index], start * width, min(start + step, rows) * width)
        return np.frombuffer(data, np.uint8).reshape(-1, width)

    for start in range(0, rows, step):
        if weight.dtype in _DTYPES:
            dtype = _DTYPES[weight.dtype]
            yield start, part(0, k * dtype.itemsize).view(dtype).astype(np.float32), None
            continue
        codes = (part(0, k // 2)[..., None] >> _LOW_NIBBLE_FIRST & 15).reshape(-1, k)
        if weight.dtype == "MXFP4":
            exponents = part(1, k // GROUP)
            factors = np.ldexp(1.0, exponents.astype(np.int32) - 127)
            factors[exponents == 255] = np.nan
            kept = codes, exponents
        else:
            block = scales[start: start + step]
            factors = np.where(block > NVFP4_SCALE_MAX, np.nan,
                               E4M3_VALUES[np.minimum(block, NVFP4_SCALE_MAX)])
            kept = None
        values = _E2M1[codes].reshape(*factors.shape, -1) * factors[..., None]
        if weight.dtype == "NVFP4":
            # Exact in float64 but for a quotient, which is rounded there first.
            values = values / tensor_scale if divides else values * tensor_scale
        with np.errstate(over="ignore"):
            yield start, values.reshape(-1, k).astype(np.float32), kept


def _nvfp4_scales(reader, weight):
    name = weight.parts[1]
    rows, k = weight.shape
    scales = np.frombuffer(reader.read(name), np.uint8).reshape(reader.tensors[name].shape)
    if weight.swizzled:
        scales = linear_scales(scales, rows, k // NVFP4_GROUP)
    if scales.max() > 127:
        raise BadFile(f"{reader.path}: {name!a} must have no negative scales")
    return scales


def _quantized(values, kept, format, rule, adaptive):
    if kept is None and format == "m2xfp":
        return quantize_weights(values, group=GROUP, subgroup=SUBGROUP, rule=rule,
                                adaptive=adaptive)
    # MXFP4 are weights whose factors are all 1.
    codes, scales = kept or quantize_mxfp4(values, group=GROUP, rule=rule)
    return Quantized(kind="weight", shape=values.shape, elements=codes, scales=scales,
                     metadata=np.zeros((len(codes), codes.shape[1] // SUBGROUP), np.uint8))


def convert(source, target, *, format="m2xfp", rule="floor", adaptive=True, swizzled=False,
            verify=False):
    """Writes a checkpoint's weights as planes.

    Weights are read and written some rows at a time; of NVFP4, the scales of one tensor are held.

    Parameters
    ----------
    source, target : path-like
        Safetensors files. ``target``, and the manifest beside it, are replaced at the end.
    format : str
        "m2xfp" or "mxfp4".
    rule : str
        Rule of the scales, as of `golden.quantize_weights`.
    adaptive : bool
        Of M2XFP, likewise.
    swizzled : bool
        Whether scales of NVFP4 are 128x4-swizzled where their shape does not tell.
    verify : bool
        Read it again before it replaces anything.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    BadFile
        If ``source`` cannot be converted, or what was written is not what it should be.
    OSError
        If a file cannot be read or written.
    """
    target = Path(target)
    with Reader(source) as reader:
        _check_target(source, target)
        if KEY in reader.metadata:
            raise BadFile(f"{source} holds planes already; --dequantize makes floats of them")
        weights = weights_of(reader, swizzled=swizzled)
        used = {part for weight in weights for part in weight.parts}
        copied = [name for name in reader.tensors if name not in used]
        kept = {name: (reader.tensors[name].dtype, reader.tensors[name].shape) for name in copied}
        tensors, manifest = _layout(reader.path, weights, kept, format, rule, adaptive)
        beside = target.with_name(f"{target.name}.json")
        _check_target(source, beside)
        with replacing(target, beside) as (file, text), tqdm(
                total=sum(math.prod(w.shape) for w in weights), unit="el", unit_scale=True,
                leave=False, disable=None) as bar:
            writer = Writer(file, tensors, reader.metadata | {KEY: json.dumps(manifest)})
            for weight in weights:
                bar.set_description(ascii(weight.name)[1:-1])
                _convert_weight(reader, writer, weight, manifest, bar)
            for name in copied:
                manifest["copied"][name] = _copy(reader, writer, name)
            writer.finish(reader.metadata | {KEY: json.dumps(manifest)})
            text.write(json.dumps(manifest, indent=2).encode() + b"\n")
            if verify:
                _, differences = check(file.name)
                if differences:
                    raise BadFile(f"{target} was not written: {differences[0]}")
    return manifest


def _check_target(source, target):
    check_folder(target)
    if target.exists() and os.path.samefile(source, target):
        raise BadFile(f"OUT must be another file than IN, not {target}")


def check_folder(target):
    if not target.parent.is_dir():
        raise BadFile(f"OUT must lie in a folder that exists, not {target.parent}")
    if target.is_dir():
        raise BadFile(f"OUT must be a file, not the folder {target}")


def write(target, weights, copied, *, note=""):
    """Writes weights that are quantized already as `convert` does.

    Parameters
    ----------
    target : path-like
        Safetensors file; it and the manifest beside it are replaced at the end.
    weights : dict of str to (array of float32, Quantized)
        By name, the values and what they became by Sg-EM, in groups of 32 and subgroups of 8.
    copied : dict of str to array of float32
        What else there is.
    note : str
        On the weights, for the manifest.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    BadFile
        If two tensors would have the same name, or the folder does not exist.
    OSError
        If a file cannot be written.
    ValueError
        If a weight is not of encoding "sg-em".
    """
    target = Path(target)
    check_folder(target)
    for name, (_, q) in weights.items():
        check_quantized(q, name, "weight", "sg-em")
    described = [Weight(name=name, shape=values.shape, dtype="F32", parts=(name,), note=note)
                 for name, (values, _) in weights.items()]
    kept = {name: ("F32", values.shape) for name, values in copied.items()}
    tensors, manifest = _layout(target, described, kept, "m2xfp", "floor", True)
    with replacing(target, target.with_name(f"{target.name}.json")) as (file, text), tqdm(
            total=sum(values.size for values, _ in weights.values()), unit="el", unit_scale=True,
            leave=False, disable=None) as bar:
        writer = Writer(file, tensors, {KEY: json.dumps(manifest)})
        for weight in described:
            _put_weight(writer, weight, manifest, [(0, *weights[weight.name])], bar)
        for name, values in copied.items():
            data = np.ascontiguousarray(values, "<f4").tobytes()
            writer.put(name, data)
            manifest["copied"][name] = hashlib.sha256(data).hexdigest()
        writer.finish({KEY: json.dumps(manifest)})
        text.write(json.dumps(manifest, indent=2).encode() + b"\n")
    return manifest


def _layout(source, weights, copied, format, rule, adaptive):
    """Tensors to be written, and the manifest with the longest that is filled in later.

    ``copied`` has dtypes and shapes by name.
    """
    tensors, described = {}, {}

    def add(name, dtype, shape):
        if name in tensors:
            raise BadFile(f"{source}: two tensors would both be written as {name!a}")
        tensors[name] = dtype, shape

    for weight in weights:
        if weight.name in described:
            raise BadFile(f"{source}: two tensors would both be written as {weight.name!a}")
        planes = {plane: f"{weight.name}.{plane}" for plane in FORMATS[format]}
        for plane, name in planes.items():
            add(name, "U8", _plane_shape(weight.shape, plane))
        described[weight.name] = {
            "shape": list(weight.shape), "source_dtype": weight.dtype, "note": weight.note,
            "planes": {plane: {"tensor": name, "sha256": "0" * 64}
                       for plane, name in planes.items()},
            "values_sha256": "0" * 64, "lossless": False, "relative_squared_error": -1e-300 / 3}
    for name, (dtype, shape) in copied.items():
        add(name, dtype, shape)
    return tensors, {
        "tool": f"m2xfp-rtl {_version()}", "format": format, "kind": "weight", "group": GROUP,
        **({"subgroup": SUBGROUP, "adaptive": adaptive} if format == "m2xfp" else {}),
        "rule": rule, "bits": {plane: _BITS[plane] for plane in FORMATS[format]},
        "encoding": {name: _ENCODING[name] for name in (*FORMATS[format], "order")},
        "value": _VALUES[format], "tensors": described, "copied": dict.fromkeys(copied, "0" * 64)}


def _version():
    try:
        return metadata.version("m2xfp-rtl")
    except metadata.PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        return tomllib.loads(project.read_text())["project"]["version"]


def _plane_shape(shape, plane):
    groups = -(-shape[-1] // GROUP)
    length = {"elements": groups * GROUP // 2, "metadata": groups * GROUP // SUBGROUP // 4,
              "scales": groups}[plane]
    return (*shape[:-1], length)


def _convert_weight(reader, writer, weight, manifest, bar):
    _put_weight(writer, weight, manifest, (
        (start, values, _quantized(values, kept, manifest["format"], manifest["rule"],
                                   manifest.get("adaptive")))
        for start, values, kept in _blocks(reader, weight)), bar)


def _put_weight(writer, weight, manifest, blocks, bar):
    """Writes a weight's planes and describes them; blocks are first rows, values and Quantized."""
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
                           start * _plane_shape(weight.shape, plane)[-1])
        read = dequantize(q)
        of_values.update(read.astype("<f4", copy=False).tobytes())
        lossless &= _same(values, read)
        with np.errstate(invalid="ignore"):
            difference = read.astype(np.float64) - values
        # What both have as NaN or the same infinity is no error.
        difference[_equal(values, read)] = 0
        error += float(np.square(difference).sum())
        square += float(np.square(values, where=np.isfinite(values), dtype=np.float64,
                                  out=np.zeros(values.shape)).sum())
        bar.update(values.size)
    for plane, digest in digests.items():
        entry["planes"][plane]["sha256"] = digest.hexdigest()
    # None where finite values read as NaN or infinite.
    relative = 0.0 if error == 0 else error / square if square else math.inf
    entry |= {"values_sha256": of_values.hexdigest(), "lossless": lossless,
              "relative_squared_error": relative if math.isfinite(relative) else None}


def _equal(a, b):
    return (a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))


def _same(a, b):
    """Whether all values agree, bit for bit but for the bits of NaN."""
    return bool(_equal(a, b).all())


def _copy(reader, writer, name):
    """Copies a tensor and returns its digest."""
    digest = hashlib.sha256()
    for start, data in _pieces(reader, name):
        digest.update(data)
        writer.put(name, data, start)
    return digest.hexdigest()


def _pieces(reader, name):
    tensor = reader.tensors[name]
    size = tensor.stop - tensor.start
    for start in range(0, size, BLOCK):
        yield start, reader.read(name, start, min(start + BLOCK, size))


def _manifest(reader):
    """The manifest of a converted file, checked against its tensors."""
    if KEY not in reader.metadata:
        raise BadFile(f"{reader.path} has no manifest, so that it was not converted")
    try:
        manifest = json.loads(reader.metadata[KEY])
        if manifest["format"] not in FORMATS:
            raise ValueError(f"format {manifest['format']!a}")
        sizes = manifest["group"], manifest.get("subgroup", SUBGROUP)
        if sizes != (GROUP, SUBGROUP):
            raise ValueError(f"groups and subgroups of {sizes}")
        expected = {}
        for name, entry in manifest["tensors"].items():
            shape = tuple(entry["shape"])
            if not shape or not all(type(n) is int and n >= 1 for n in shape):
                raise ValueError(f"shape {shape} of {name!a}")
            if not all(isinstance(entry[key], str) for key in ("values_sha256", "source_dtype")):
                raise ValueError(f"digest or dtype of {name!a}")
            for plane in FORMATS[manifest["format"]]:
                stated = entry["planes"][plane]
                if stated["tensor"] != f"{name}.{plane}" or not isinstance(stated["sha256"], str):
                    raise ValueError(f"{plane} of {name!a}")
                expected[stated["tensor"]] = "U8", _plane_shape(shape, plane)
        for name, _ in manifest["copied"].items():
            tensor = reader.tensors[name]
            expected[name] = tensor.dtype, tensor.shape
        found = {name: (t.dtype, t.shape) for name, t in reader.tensors.items()}
        if expected != found:
            wrong = next(name for name in expected | found
                         if expected.get(name) != found.get(name))
            raise ValueError(f"tensor {wrong!a}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadFile(f"{reader.path} has a manifest that does not fit it: "
                      f"{type(error).__name__}, {str(error)[:100]!a}") from None
    return manifest


def _read_planes(reader, name, manifest, different, bar):
    """Values of a tensor some rows at a time; at the end, digests that differ are reported."""
    entry = manifest["tensors"][name]
    *lead, k = entry["shape"]
    rows, step = math.prod(lead), max(1, BLOCK // k)
    digests = {plane: hashlib.sha256() for plane in FORMATS[manifest["format"]]}
    of_values = hashlib.sha256()
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        planes = {}
        for plane in FORMATS["m2xfp"]:
            width = _plane_shape((k,), plane)[0]
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


def check(path):
    """Compares a converted file with the digests in its manifest, and with the JSON beside it.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    manifest : dict
    differences : list of str
    """
    differences = []
    with Reader(path) as reader:
        manifest = _manifest(reader)
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


def restore(source, target, *, dtype="float32"):
    """Writes the floats that a converted file's planes stand for.

    Parameters
    ----------
    source, target : path-like
        Safetensors files; ``target`` is replaced at the end.
    dtype : str
        "float32", which is exact, or "source": what each tensor had, to nearest, ties to even;
        float32 where it had been MXFP4 or NVFP4.

    Raises
    ------
    BadFile
        If ``source`` holds no planes, or others than its manifest says.
    OSError
        If a file cannot be read or written.
    """
    target = Path(target)

    def different(text):
        raise BadFile(f"{source} differs from its manifest: {text}")

    with Reader(source) as reader:
        _check_target(source, target)
        manifest = _manifest(reader)
        tensors = {name: (reader.tensors[name].dtype, reader.tensors[name].shape)
                   for name in manifest["copied"]}
        for name, entry in manifest["tensors"].items():
            if name in tensors:
                raise BadFile(f"{source}: two tensors would both be written as {name!a}")
            kept = dtype == "source" and entry["source_dtype"] in _DTYPES
            tensors[name] = entry["source_dtype"] if kept else "F32", tuple(entry["shape"])
        others = {key: text for key, text in reader.metadata.items() if key != KEY}
        with replacing(target) as (file,), _bar(manifest) as bar:
            writer = Writer(file, tensors, others)
            for name in manifest["tensors"]:
                given, shape = tensors[name]
                width = shape[-1] * BITS[given] // 8
                for start, values in _read_planes(reader, name, manifest, different, bar):
                    with np.errstate(over="ignore"):
                        data = values.astype(_DTYPES[given], copy=False).tobytes()
                    writer.put(name, data, start * width)
            for name, expected in manifest["copied"].items():
                if _copy(reader, writer, name) != expected:
                    different(f"{name!a} has another digest")
            writer.finish(others)


def table(manifest):
    """Text of what became of every tensor."""
    rows = [("tensor", "shape", "from", "relative squared error", "lossless")]
    for name, entry in manifest["tensors"].items():
        error = entry["relative_squared_error"]
        rows.append((ascii(name)[1:-1], " x ".join(map(str, entry["shape"])),
                     entry["source_dtype"], "not finite" if error is None else f"{error:.5f}",
                     "yes" if entry["lossless"] else "no"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join((text.rjust if i == 3 else text.ljust)(width) for i, (text, width)
                       in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
    lines += [f"{ascii(name)[1:-1]}: {entry['note']}"
              for name, entry in manifest["tensors"].items() if entry["note"]]
    if manifest["copied"]:
        lines.append("copied: " + ", ".join(ascii(name)[1:-1] for name in manifest["copied"]))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
