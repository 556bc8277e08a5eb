# SPDX-License-Identifier: BSD-2-Clause
"""Converts checkpoints of language models to planes of M2XFP or MXFP4, and back.

``python -m golden convert IN OUT``

IN is a safetensors or GGUF file, and OUT a safetensors file. Or IN is a model as it is published, a
folder or its NAME.safetensors.index.json, and OUT a new folder with the same shards.

Quantized are tensors of float32, float16 or bfloat16 with two or three axes, along the axis that
products sum over, and packed weights of MXFP4, NVFP4, MXFP8 and FP8. Weights in MXFP4 keep every
code, with metadata 0; others are dequantized and quantized again. Biases, scales, norms,
embeddings, position tables, routers and codebooks are copied, and so is what the model's
configuration ignores and what is not understood. --list shows what becomes of every tensor, and
why.

A tensor NAME becomes the uint8 tensors NAME.elements, NAME.metadata and NAME.scales. The file
itself says how to read them: JSON under "m2xfp" in its metadata. OUT.json beside it holds the same
for people to read.
"""

import json
import math
import os
from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..codec.numbers import RULES, SPECIAL_ENCODINGS
from ..codec.quantized import Quantized
from ..command import Parser, naming, run
from ..formats.mxfp4 import quantize_mxfp4
from ..output import new_folder, replacing
from ..units.weight_encoder import quantize_weights
from .layout import ENCODINGS, FORMATS, KEY, SUBGROUP, layout
from .model import Model
from .planes import (
    check,
    check_target,
    check_target_folder,
    copy,
    copy_others,
    cores,
    encoded,
    in_order,
    joined,
    put_weight,
    restore,
    row_blocks,
    write_config,
    write_index,
)
from .safetensors import BadFile, Writer
from .sources import Plan, plan
from .values import GROUP, open_rows


def parser() -> Parser:
    """The command's parser."""
    made = Parser(prog="python -m golden convert", description=__doc__,
                  formatter_class=RawDescriptionHelpFormatter)
    made.add_argument("source", type=Path, metavar="IN",
                      help="safetensors or GGUF file, index of shards, or folder")
    made.add_argument("target", type=Path, metavar="OUT", nargs="?",
                      help="safetensors file to write, or for shards a new folder; without it, "
                           "--verify checks IN")
    made.add_argument("--list", action="store_true",
                      help="shows what becomes of every tensor of IN, and writes nothing")
    made.add_argument("--include", action="append", default=[], metavar="PATTERN",
                      help="also quantizes tensors of these names, with wildcards, which rules "
                           "leave alone; repeatable")
    made.add_argument("--exclude", action="append", default=[], metavar="PATTERN",
                      help="leaves tensors of these names alone; repeatable")
    made.add_argument("--format", choices=FORMATS, default="m2xfp",
                      help="format of the planes (default: m2xfp)")
    made.add_argument("--rule", choices=RULES, help="rule of the scales (default: floor)")
    made.add_argument("--fixed", action="store_true",
                      help="try no neighbouring scales; not with --format mxfp4")
    made.add_argument("--swizzled", action="store_true",
                      help="scales whose shape does not tell are 128x4-swizzled "
                           "(default: row by row)")
    made.add_argument("--dequantize", action="store_true",
                      help="goes back, from planes to floats; digests are checked")
    made.add_argument("--dtype", choices=("float32", "source"),
                      help="of dequantized tensors (default: float32)")
    made.add_argument("--verify", action="store_true",
                      help="reads what was written, before it takes its place, and compares "
                           "digests of the planes and of the dequantized values")
    made.add_argument("--threads", type=int, metavar="N",
                      help="threads that work (default: one per processor)")
    return made


@run
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``python -m golden convert``; returns the exit status."""
    options = _checked(parser(), arguments)
    threads = options.threads or cores()
    with naming(options.target or options.source):
        if options.list:
            with Model(options.source) as model:
                decided = plan(model, swizzled=options.swizzled, include=options.include,
                               exclude=options.exclude)
                print(listing(model, decided))
            return 1 if decided.wrong else 0
        if options.target is None:
            manifest, differences = check(options.source, threads=threads)
            if differences:
                raise BadFile(f"{options.source} differs from its manifest: {differences[0]}"
                              + f" and {len(differences) - 1} more" * (len(differences) > 1))
            print(f"{options.source}: {len(manifest['tensors'])} tensors in planes, "
                  f"{len(manifest['copied'])} copied, all as their manifest says")
        elif options.dequantize:
            restore(options.source, options.target, dtype=options.dtype or "float32",
                    threads=threads)
        else:
            manifest = convert(options.source, options.target, format=options.format,
                               rule=options.rule or "floor", adaptive=not options.fixed,
                               swizzled=options.swizzled, verify=options.verify,
                               include=options.include, exclude=options.exclude, threads=threads)
            print(table(manifest))
            if options.verify:
                print("verified: the file holds what was quantized")
    return 0


def _checked(parser, arguments):
    options = parser.parse_args(arguments)
    if options.list and (options.target or options.verify or options.dequantize):
        parser.error("--list must come without OUT, --verify and --dequantize")
    if options.target is None and not (options.verify or options.list):
        parser.error("OUT must be given, except with --verify or --list")
    if options.dequantize and options.verify:
        parser.error("--verify must not come with --dequantize, which always checks IN")
    if options.dtype and not options.dequantize:
        parser.error("--dtype must come with --dequantize")
    quantizes = options.target is not None and not options.dequantize
    if not quantizes and (options.rule or options.fixed or options.format != "m2xfp"):
        parser.error("--format, --rule and --fixed must come with a conversion")
    if not (quantizes or options.list) and (
            options.swizzled or options.include or options.exclude):
        parser.error("--swizzled, --include and --exclude must come with a conversion or --list")
    if options.fixed and options.format == "mxfp4":
        parser.error("--fixed must come with --format m2xfp, sg-special or sg-special64, "
                     f"not {options.format}")
    if options.rule and options.format in SPECIAL_ENCODINGS:
        parser.error(f"--rule must come with --format m2xfp or mxfp4, not {options.format}, which "
                     "has its own")
    # Each thread holds a block.
    if options.threads is not None and not 1 <= options.threads <= 4 * cores():
        parser.error(f"--threads must be 1 to 4 per processor, not {options.threads}")
    return options


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], *,
            format: str = "m2xfp", rule: str = "floor", adaptive: bool = True,
            swizzled: bool = False, verify: bool = False, include: Sequence[str] = (),
            exclude: Sequence[str] = (), threads: int = 1) -> dict[str, Any]:
    """Writes a checkpoint's weights as planes.

    Weights are read and written some rows at a time; `open_rows` says what else is held.

    Parameters
    ----------
    source, target : path-like
        Files, or folders for a model of shards. A file ``target`` and the manifest beside it are
        replaced at the end; a folder must be new.
    format : str
        "m2xfp", "mxfp4", "sg-special" or "sg-special64".
    rule : str
        Rule of the scales, as in `golden.quantize_weights`. Sg-special and Sg-special64 take
        only "floor".
    adaptive : bool
        Whether neighbouring scales are tried, where there is metadata.
    swizzled : bool
        Whether scales are 128x4-swizzled if their shape does not tell.
    verify : bool
        Whether what was written is read again before it replaces anything.
    include, exclude : sequence of str
        Patterns of names, as in `golden.checkpoint.plan`.
    threads : int
        Threads that read and quantize. The result does not depend on it.

    Returns
    -------
    dict
        The manifest; of a folder, that of all shards together, with "not_copied": files that were
        left out.

    Raises
    ------
    BadFile
        If ``source`` cannot be converted or has no weights, or if a file differs from its manifest
        when it is read again.
    OSError
        If a file cannot be read or written.
    ValueError
        If ``target`` cannot be written, or a pattern matches nothing.
    """
    target = Path(target)
    with Model(source) as model:
        beside = target.with_name(f"{target.name}.json")
        if model.folder is None:
            check_target(source, target)
            check_target(source, beside)
        else:
            check_target_folder(target)
        if any(KEY in reader.metadata for reader in model.shards.values()):
            raise BadFile(f"{source} holds planes already; --dequantize makes floats of them")
        decided = plan(model, swizzled=swizzled, include=include, exclude=exclude)
        if decided.wrong:
            first, *others = decided.wrong.values()
            raise BadFile(f"{source}: {first}" + f" (and {len(others)} more)" * bool(others))
        if not decided.weights:
            raise BadFile(f"{source} holds no weight to quantize; --list says why")
        settings = {"format": format, "rule": rule, "adaptive": adaptive, "threads": threads}
        with tqdm(total=sum(math.prod(w.shape) for w in decided.weights), unit="el",
                  unit_scale=True, leave=False, disable=None) as bar:
            if model.folder is not None:
                return _convert_folder(model, target, decided, settings, verify, bar)
            with replacing(target, beside) as (file, text):
                manifest, _ = _convert_shard(model, None, decided, settings, file, text, bar)
                if verify:
                    _verify(file.name, target, threads)
    return manifest


def _convert_folder(model, target, decided, settings, verify, bar):
    manifests, names = {}, {}
    with new_folder(target) as folder:
        for shard in model.shards:
            with (open(folder / shard, "xb") as file,
                  open(folder / f"{shard}.json", "xb") as text):
                manifests[shard], names[shard] = _convert_shard(
                    model, shard, decided, settings, file, text, bar)
                for written in file, text:
                    written.flush()
                    os.fsync(written.fileno())
        left = copy_others(model, folder)
        write_index(model, folder, names)
        manifest = joined(manifests)
        write_config(model, folder, {
            "quant_method": "m2xfp", **{key: manifest[key] for key in ("tool", "format", "rule")},
            "group_size": manifest["group"], "subgroup_size": SUBGROUP,
            "source": model.quantization or None})
        if verify:
            _verify(folder, target, settings["threads"])
    return manifest | {"not_copied": left}


def _verify(written, target, threads):
    _, differences = check(written, threads=threads)
    if differences:
        raise BadFile(f"{target} was not written: {differences[0]}")


def _convert_shard(model, shard, decided, settings, file, text, bar):
    """Writes one file; returns its manifest and its tensors."""
    def here(name):
        return shard is None or model.shard_of(name) == shard

    weights = [weight for weight in decided.weights if here(weight.parts[0])]
    left = {name: reason for name, reason in decided.left.items() if here(name)}
    kept = {name: (model.tensors[name].dtype, model.tensors[name].shape) for name in left}
    path = model.path if shard is None else model.shards[shard].path
    tensors, manifest = layout(path, weights, kept, settings["format"], settings["rule"],
                               settings["adaptive"], left)
    metadata = (model if shard is None else model.shards[shard]).metadata
    # Descriptions of tensors that are no longer there.
    stale = {"tensor_names", *(weight.name for weight in weights)}
    metadata = {key: value for key, value in metadata.items() if key not in stale}
    writer = Writer(file, tensors, metadata | {KEY: json.dumps(manifest)})
    encoding = in_order(_calls(model, weights, settings), settings["threads"])
    for weight in weights:
        bar.set_description(ascii(weight.name)[1:-1])
        count = len(row_blocks(weight.rows, weight.shape[-1]))
        put_weight(writer, weight, manifest, islice(encoding, count), bar)
    for name in left:
        manifest["copied"][name] = copy(model, writer, name)
    writer.finish(metadata | {KEY: json.dumps(manifest)})
    text.write(json.dumps(manifest, indent=2).encode() + b"\n")
    return manifest, tensors


def _calls(model, weights, settings):
    """Yields functions that read and encode a block of rows each."""
    for weight in weights:
        read = open_rows(model, weight)
        for start, stop in row_blocks(weight.rows, weight.shape[-1]):
            def call(read=read, start=start, stop=stop):
                values, kept = read(start, stop)
                return encoded(start, values, _quantized(values, kept, **settings))
            yield call


def _quantized(values, kept, *, format, rule, adaptive, threads):
    # Codes in MXFP4 stay as they are where code 8 is -0.
    if format in SPECIAL_ENCODINGS or kept is None and format == "m2xfp":
        return quantize_weights(values, subgroup=SUBGROUP, rule=rule, adaptive=adaptive,
                                encoding=ENCODINGS[format])
    # Weights in MXFP4 have factors of 1 throughout.
    codes, scales = kept or quantize_mxfp4(values, group=GROUP, rule=rule)
    return Quantized(kind="weight", shape=values.shape, elements=codes, scales=scales,
                     metadata=np.zeros((len(codes), codes.shape[1] // SUBGROUP), np.uint8))


def table(manifest: Mapping[str, Any]) -> str:
    """What became of every tensor, as text."""
    rows = [("tensor", "shape", "axis", "from", "relative squared error", "lossless")]
    for name, entry in manifest["tensors"].items():
        error = entry["relative_squared_error"]
        rows.append((ascii(name)[1:-1], *_shape(entry["shape"], entry["transposed"]),
                     entry["source_dtype"], "not finite" if error is None else f"{error:.5f}",
                     "yes" if entry["lossless"] else "no"))
    lines = _columns(rows, right=(2, 4))
    notes = ((entry["note"], name) for name, entry in manifest["tensors"].items() if entry["note"])
    lines += _grouped(notes)
    lines += _grouped((f"copied ({reason})", name)
                      for name, reason in manifest["left_alone"].items())
    if left := manifest.get("not_copied"):
        lines.append("files that are not copied: " + ", ".join(ascii(name)[1:-1] for name in left))
    return "\n".join(lines)


def _grouped(pairs):
    """One line per text, with all names that it is about."""
    names: dict[str, list[str]] = {}
    for text, name in pairs:
        names.setdefault(text, []).append(ascii(name)[1:-1])
    return [f"{text}: {', '.join(found)}" for text, found in names.items()]


def listing(model: Model, decided: Plan) -> str:
    """What will become of every tensor, as text."""
    verdicts = {}
    for weight in decided.weights:
        shape, axis = _shape(weight.shape, weight.transposed)
        for part in weight.parts:
            verdicts[part] = (f"quantized, as {shape} along axis {axis}"
                              if part == weight.name else
                              f"quantized, as part of {ascii(weight.name)[1:-1]}, {weight.dtype}, "
                              f"{shape} along axis {axis}")
    verdicts |= {name: f"copied: {reason}" for name, reason in decided.left.items()}
    verdicts |= {name: f"error: {problem}" for name, problem in decided.wrong.items()}
    rows = [("tensor", "dtype", "shape", "verdict")]
    for name, tensor in model.tensors.items():
        rows.append((ascii(name)[1:-1], tensor.packed or tensor.dtype,
                     " x ".join(map(str, tensor.shape)), verdicts[name]))
    return "\n".join(_columns(rows))


def _shape(shape, transposed):
    """The shape in the source, and the axis along which groups lie."""
    shape = list(shape)
    if transposed:
        shape[-2:] = shape[:-3:-1]
    return " x ".join(map(str, shape)), str(len(shape) - 1 - transposed)


def _columns(rows, right=()):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join((text.rjust if i in right else text.ljust)(width) for i, (text, width)
                      in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
