# SPDX-License-Identifier: BSD-2-Clause
"""Where the planes of converted weights lie in a file, and the manifest that describes them.

A tensor NAME becomes the uint8 tensors NAME.elements, NAME.metadata and NAME.scales
(specification section 13.1). The manifest is JSON under "m2xfp" in the file's metadata.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..codec.numbers import SPECIAL_ENCODINGS, default_group, metadata_bits
from .safetensors import BadFile, Reader
from .values import Weight

FORMATS = {"m2xfp": ("elements", "metadata", "scales"), "mxfp4": ("elements", "scales"),
           "sg-special": ("elements", "metadata", "scales"),
           "sg-special64": ("elements", "metadata", "scales")}
"""Planes by format. "m2xfp" is M2XFP's encoding of weights, Sg-EM."""

PLANES = FORMATS["m2xfp"]
"""All planes."""

ENCODINGS = {"m2xfp": "sg-em", "mxfp4": "sg-em", "sg-special": "sg-special",
             "sg-special64": "sg-special64"}
"""Encoding of the weights by format. Those of MXFP4 have factors of 1."""

SUBGROUP = 8
"""Elements that share metadata bits."""

KEY = "m2xfp"
"""Name of the manifest in the file's metadata."""

# How planes are decoded, as the manifest states it.
_ENCODING = {
    "elements": "E2M1 codes (bit 3 sign, magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6), two per byte, "
                "the element of lower index in bits 3..0",
    "metadata": "k of each subgroup, four per byte, the subgroup of lower index in the lower bits",
    "scales": "X of each group, a byte: 2**(X - 127); 255 makes all of the group NaN",
    "order": "row by row; within a row along the last axis, padded to whole groups; "
             "rows begin at whole bytes; where transposed is true, the source has the last two "
             "axes of shape exchanged",
}
_SPECIAL = {
    "elements": "E2M1 codes (bit 3 sign, magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6), but code 8 is the "
                "group's special value; two per byte, the element of lower index in bits 3..0",
    "scales": "of each group, a byte: exponent e in bits 7..2, selector in bits 1..0; of special "
              "values 5, -5, 8 and -8; 255 makes all of the group NaN",
}
_VALUES = {"m2xfp": "E2M1 * (1 + k / 4) * 2**(X - 127)", "mxfp4": "E2M1 * 2**(X - 127)",
           "sg-special": "(E2M1 or special value) * (1 + k / 4) * 2**(e - 31)",
           "sg-special64": "(E2M1 or special value) * (1 + k % 4 / 4) * 2**(k // 4 + e - 31)"}
# Where metadata have three bits.
_WIDE = "k of each subgroup, eight in three bytes, the subgroup of lower index in the lower bits"


def _bits(format: str) -> dict[str, int]:
    """Bits of a code by plane."""
    return {"elements": 4, "metadata": metadata_bits(ENCODINGS[format]), "scales": 8}


def _stated(format: str) -> dict[str, str]:
    """How the planes of a format are decoded."""
    special = _SPECIAL if format in SPECIAL_ENCODINGS else {}
    wide = {"metadata": _WIDE} if _bits(format)["metadata"] == 3 else {}
    return _ENCODING | special | wide


def plane_shape(shape: Sequence[int], plane: str, format: str = "m2xfp") -> tuple[int, ...]:
    """Shape in bytes of a plane of a tensor.

    Parameters
    ----------
    shape : sequence of int
        Shape (..., K) of the tensor.
    plane : str
        "elements", "metadata" or "scales".
    format : str
        One of `FORMATS`.
    """
    group = default_group(ENCODINGS[format])
    groups = -(-shape[-1] // group)
    codes = {"elements": group, "metadata": group // SUBGROUP, "scales": 1}[plane]
    return (*shape[:-1], groups * codes * _bits(format)[plane] // 8)


def layout(source: Path, weights: Sequence[Weight],
           copied: Mapping[str, tuple[str, tuple[int, ...]]], format: str, rule: str,
           adaptive: bool, left: Mapping[str, str] | None = None
           ) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, Any]]:
    """Lays out a converted file.

    Parameters
    ----------
    source : Path
        File that errors name.
    weights : sequence of Weight
        Tensors that become planes.
    copied : mapping of str to (str, tuple of int)
        Dtypes and shapes of all other tensors, by name.
    format : str
        One of `FORMATS`.
    rule : str
        Rule of the scales.
    adaptive : bool
        Whether neighbouring scales were tried, where there is metadata.
    left : mapping of str to str, optional
        Why tensors are left alone, by name.

    Returns
    -------
    tensors : dict of str to (str, tuple of int)
        Dtypes and shapes of the tensors in the file, by name.
    manifest : dict
        It has the largest size that it can have; digests and errors are filled in later.

    Raises
    ------
    BadFile
        If two tensors would have the same name.
    """
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    described: dict[str, Any] = {}

    def add(name: str, dtype: str, shape: tuple[int, ...]) -> None:
        if name in tensors:
            raise BadFile(f"{source}: two tensors would both be written as {name!a}")
        tensors[name] = dtype, shape

    for weight in weights:
        if weight.name in described:
            raise BadFile(f"{source}: two tensors would both be written as {weight.name!a}")
        planes = {plane: f"{weight.name}.{plane}" for plane in FORMATS[format]}
        for plane, name in planes.items():
            add(name, "U8", plane_shape(weight.shape, plane, format))
        described[weight.name] = {
            "shape": list(weight.shape), "transposed": weight.transposed,
            "source_dtype": weight.dtype, "note": weight.note,
            "planes": {plane: {"tensor": name, "sha256": "0" * 64}
                       for plane, name in planes.items()},
            "values_sha256": "0" * 64, "lossless": False, "relative_squared_error": -1e-300 / 3}
    for name, (dtype, shape) in copied.items():
        add(name, dtype, shape)
    stated = _stated(format)
    return tensors, {
        "tool": f"m2xfp-rtl {_version()}", "format": format, "kind": "weight",
        "group": default_group(ENCODINGS[format]),
        **({"subgroup": SUBGROUP, "adaptive": adaptive} if "metadata" in FORMATS[format] else {}),
        "rule": "own" if format in SPECIAL_ENCODINGS else rule,
        "bits": {plane: _bits(format)[plane] for plane in FORMATS[format]},
        "encoding": {name: stated[name] for name in (*FORMATS[format], "order")},
        "value": _VALUES[format], "tensors": described, "copied": dict.fromkeys(copied, "0" * 64),
        "left_alone": {name: left[name] for name in copied} if left else {}}


def _version() -> str:
    try:
        return metadata.version("m2xfp-rtl")
    except metadata.PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        return tomllib.loads(project.read_text())["project"]["version"]


def read_manifest(reader: Reader) -> dict[str, Any]:
    """Reads the manifest of a converted file and checks it against the file's tensors.

    Parameters
    ----------
    reader : Reader

    Returns
    -------
    dict

    Raises
    ------
    BadFile
        If there is no manifest, or if it does not fit the tensors.
    """
    if KEY not in reader.metadata:
        raise BadFile(f"{reader.path} has no manifest, so that it was not converted")
    try:
        manifest = json.loads(reader.metadata[KEY])
        if manifest["format"] not in FORMATS:
            raise ValueError(f"format {manifest['format']!a}")
        sizes = manifest["group"], manifest.get("subgroup", SUBGROUP)
        if sizes != (default_group(ENCODINGS[manifest["format"]]), SUBGROUP):
            raise ValueError(f"groups and subgroups of {sizes}")
        expected = {}
        for name, entry in manifest["tensors"].items():
            shape = tuple(entry["shape"])
            if not shape or not all(type(n) is int and n >= 1 for n in shape):
                raise ValueError(f"shape {shape} of {name!a}")
            if not all(isinstance(entry[key], str) for key in ("values_sha256", "source_dtype")):
                raise ValueError(f"digest or dtype of {name!a}")
            if type(entry.get("transposed", False)) is not bool or (
                    entry.get("transposed") and len(shape) < 2):
                raise ValueError(f"transposed of {name!a}")
            for plane in FORMATS[manifest["format"]]:
                stated = entry["planes"][plane]
                if stated["tensor"] != f"{name}.{plane}" or not isinstance(stated["sha256"], str):
                    raise ValueError(f"{plane} of {name!a}")
                expected[stated["tensor"]] = "U8", plane_shape(shape, plane, manifest["format"])
        if not isinstance(manifest.get("left_alone", {}), dict):
            raise ValueError("left_alone")
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
