# SPDX-License-Identifier: BSD-2-Clause
"""Converts checkpoints of language models to planes of M2XFP or MXFP4, and back.

``python -m golden convert IN.safetensors OUT.safetensors``

Tensors of float32, float16 or bfloat16 with two axes or more are quantized along the last axis,
unless their names are those of biases, scales or zero points. Weights in MXFP4 (NAME_blocks and
NAME_scales) keep every code, with metadata 0. Weights in NVFP4 (NAME.weight or NAME.weight_packed,
with NAME.weight_scale and a tensor scale) are dequantized and quantized again. All other tensors
are copied.

OUT is one safetensors file, because loaders of checkpoints read that, and because one file can be
replaced as a whole and a folder cannot. A tensor NAME becomes the uint8 tensors NAME.elements,
NAME.metadata and NAME.scales. The file itself says how to read them: JSON under "m2xfp" in its
metadata. OUT.json beside it holds the same for people to read.
"""

import json
import math
import os
from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..codec.numbers import RULES
from ..codec.quantized import Quantized
from ..command import Parser, naming, run
from ..formats.mxfp4 import quantize_mxfp4
from ..output import replacing
from ..units.weight_encoder import quantize_weights
from .layout import FORMATS, KEY, SUBGROUP, layout
from .planes import check, check_target, copy, put_weight, restore
from .safetensors import BadFile, Reader, Writer
from .sources import GROUP, blocks, weights_of


def parser() -> Parser:
    """The command's parser."""
    made = Parser(prog="python -m golden convert", description=__doc__,
                  formatter_class=RawDescriptionHelpFormatter)
    made.add_argument("source", type=Path, metavar="IN", help="safetensors file")
    made.add_argument("target", type=Path, metavar="OUT", nargs="?",
                      help="safetensors file to write; without it, --verify checks IN")
    made.add_argument("--format", choices=FORMATS, default="m2xfp",
                      help="format of the planes (default: m2xfp)")
    made.add_argument("--rule", choices=RULES, help="rule of the scales (default: floor)")
    made.add_argument("--fixed", action="store_true",
                      help="try no neighbouring scales; only with --format m2xfp")
    made.add_argument("--swizzled", action="store_true",
                      help="scales of NVFP4 whose shape does not tell are 128x4-swizzled "
                           "(default: row by row)")
    made.add_argument("--dequantize", action="store_true",
                      help="goes back, from planes to floats; digests are checked")
    made.add_argument("--dtype", choices=("float32", "source"),
                      help="of dequantized tensors (default: float32)")
    made.add_argument("--verify", action="store_true",
                      help="reads what was written, before it takes its place, and compares "
                           "digests of the planes and of the dequantized values")
    return made


@run
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``python -m golden convert``; returns the exit status."""
    options = _checked(parser(), arguments)
    with naming(options.target or options.source):
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
    return 0


def _checked(parser, arguments):
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
    return options


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], *,
            format: str = "m2xfp", rule: str = "floor", adaptive: bool = True,
            swizzled: bool = False, verify: bool = False) -> dict[str, Any]:
    """Writes a checkpoint's weights as planes.

    Weights are read and written some rows at a time. For NVFP4 all scales of one tensor are held.

    Parameters
    ----------
    source, target : path-like
        Safetensors files. ``target`` and the manifest beside it are replaced at the end.
    format : str
        "m2xfp" or "mxfp4".
    rule : str
        Rule of the scales, as in `golden.quantize_weights`.
    adaptive : bool
        Whether neighbouring scales are tried, in M2XFP.
    swizzled : bool
        Whether scales of NVFP4 are 128x4-swizzled if their shape does not tell.
    verify : bool
        Whether the file is read again before it replaces anything.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    BadFile
        If ``source`` cannot be converted, or if the file differs from its manifest when it is read
        again.
    OSError
        If a file cannot be read or written.
    """
    target = Path(target)
    with Reader(source) as reader:
        check_target(source, target)
        if KEY in reader.metadata:
            raise BadFile(f"{source} holds planes already; --dequantize makes floats of them")
        weights = weights_of(reader, swizzled=swizzled)
        used = {part for weight in weights for part in weight.parts}
        copied = [name for name in reader.tensors if name not in used]
        kept = {name: (reader.tensors[name].dtype, reader.tensors[name].shape) for name in copied}
        tensors, manifest = layout(reader.path, weights, kept, format, rule, adaptive)
        beside = target.with_name(f"{target.name}.json")
        check_target(source, beside)
        with replacing(target, beside) as (file, text), tqdm(
                total=sum(math.prod(w.shape) for w in weights), unit="el", unit_scale=True,
                leave=False, disable=None) as bar:
            writer = Writer(file, tensors, reader.metadata | {KEY: json.dumps(manifest)})
            for weight in weights:
                bar.set_description(ascii(weight.name)[1:-1])
                _convert_weight(reader, writer, weight, manifest, bar)
            for name in copied:
                manifest["copied"][name] = copy(reader, writer, name)
            writer.finish(reader.metadata | {KEY: json.dumps(manifest)})
            text.write(json.dumps(manifest, indent=2).encode() + b"\n")
            if verify:
                _, differences = check(file.name)
                if differences:
                    raise BadFile(f"{target} was not written: {differences[0]}")
    return manifest


def _convert_weight(reader, writer, weight, manifest, bar):
    put_weight(writer, weight, manifest, (
        (start, values, _quantized(values, kept, manifest["format"], manifest["rule"],
                                   manifest.get("adaptive")))
        for start, values, kept in blocks(reader, weight)), bar)


def _quantized(values, kept, format, rule, adaptive):
    if kept is None and format == "m2xfp":
        return quantize_weights(values, group=GROUP, subgroup=SUBGROUP, rule=rule,
                                adaptive=adaptive)
    # Weights in MXFP4 have factors of 1 throughout.
    codes, scales = kept or quantize_mxfp4(values, group=GROUP, rule=rule)
    return Quantized(kind="weight", shape=values.shape, elements=codes, scales=scales,
                     metadata=np.zeros((len(codes), codes.shape[1] // SUBGROUP), np.uint8))


def table(manifest: Mapping[str, Any]) -> str:
    """What became of every tensor, as text."""
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
