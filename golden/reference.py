# SPDX-License-Identifier: BSD-2-Clause
"""The golden reference of every unit, on that unit's ports.

Each function takes a mapping of the unit's input ports to arrays with one row per transfer
(nested mappings for structures, one more axis for arrays) and the unit's parameters, and returns
the output ports in the same form.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .accelerator.accelerator import accelerator as _accelerator
from .accelerator.planner import Config, configuration
from .codec.numbers import FLOATS, SPECIAL_ENCODINGS, e2m1_integers
from .codec.quantized import Quantized
from .units.decoder import dequantize, element_integers, scale_codes
from .units.group_accumulator import accumulate
from .units.group_mac import group_mac as _group_mac
from .units.mac_array import mac_array as _mac_array
from .units.nvfp4_array import nvfp4_array as _nvfp4_array
from .units.nvfp4_pe_tile import nvfp4_pe_tile as _nvfp4_pe_tile
from .units.nvfp4_quantizer import quantize_nvfp4
from .units.pe_tile import pe_tile as _pe_tile
from .units.pe_tile import plain_pe_tile
from .units.quantization_engine import quantize_activations
from .units.sg_engine import sg_engine as _sg_engine
from .units.sg_pe_tile import sg_pe_tile as _sg_pe_tile
from .units.top1 import top1 as _top1
from .units.top1_decode import top1_decode as _top1_decode
from .units.weight_encoder import quantize_weights

Ports = Mapping[str, Any]


def top1(inputs: Ports, *, lanes: int) -> Ports:
    """Gives the top-1 lane of every row of codes."""
    return {"lane": _top1(inputs["codes"])}


def top1_decode(inputs: Ports) -> Ports:
    """Gives the top-1 lane, one-hot, and what metadata make of its element."""
    lane, shift, negative, zero = _top1_decode(inputs["codes"], inputs["meta"])
    return {"lane": (1 << lane.astype(np.uint16)).astype(np.uint8),
            "refinement": {"shift": shift, "negative": negative, "zero": zero}}


def decoder(inputs: Ports, *, kind: str) -> Ports:
    """Gives the float32 bits of the values of every record."""
    return {"o": dequantize(_quantized(inputs["i"], kind)).view(np.uint32)}


def quantization_engine(inputs: Ports, *, input: str, rule: str, metadata: bool,
                        depth: int) -> Ports:
    """Gives the Elem-EM record of every group of 32 values, as bits of the input format."""
    bits = inputs["i"]
    x = bits.view(FLOATS[input])
    q = quantize_activations(x, rule=rule)
    record = {"elements": q.elements, "metadata": q.metadata, "scale": q.scales[:, 0]}
    if not metadata:
        # The elements and scales of M2XFP are MXFP4.
        del record["metadata"]
    return {"o": record}


def weight_encoder(inputs: Ports, *, encoding: str) -> Ports:
    """Gives the record of every group of 32 float32 values, with its searched scale."""
    x = inputs["i"].view(np.float32)
    q = quantize_weights(x) if encoding == "sg-em" else quantize_activations(x, encoding=encoding)
    return {"o": {"elements": q.elements, "metadata": q.metadata, "scale": q.scales[:, 0]}}


def sg_engine(inputs: Ports, *, input: str, encoding: str, cycles: int) -> Ports:
    """Gives the record of every group of values, its factors chosen by cut errors."""
    q = _sg_engine(inputs["i"].view(FLOATS[input]), encoding=encoding)
    return {"o": {"elements": q.elements, "metadata": q.metadata, "scale": q.scales[:, 0]}}


def nvfp4_quantizer(inputs: Ports) -> Ports:
    """Gives the NVFP4 record of every group of 16 float32 values."""
    i = inputs["i"]
    q = quantize_nvfp4(i["values"].view(np.float32), i["tensor_scale"].view(np.float32)[:, None])
    return {"o": {"elements": q.elements, "scale": q.scales[:, 0]}}


def nvfp4_pe_tile(inputs: Ports, *, lanes: int) -> Ports:
    """Gives the exact product sum of every row of codes, its shift and whether it is NaN."""
    total, shift, nan = _nvfp4_pe_tile(inputs["activations"], inputs["weights"],
                                       inputs["activation_scale"], inputs["weight_scale"])
    return {"sum": total, "shift": shift, "nan": nan.astype(np.uint8)}


def pe_tile(inputs: Ports, *, depth: int, metadata: bool) -> Ports:
    """Gives the exact sum of 8 products of every row, in units of 1/64, or 1/4 without metadata."""
    if not metadata:
        return {"sum": plain_pe_tile(inputs["activations"], inputs["weights"])}
    refinement = inputs["refinement"]
    return {"sum": _pe_tile(inputs["activations"], inputs["weights"], inputs["meta"],
                            lane=np.log2(inputs["lane"]).astype(np.uint8), **refinement)}


def sg_pe_tile(inputs: Ports, *, depth: int, special: bool, exponent: bool = False) -> Ports:
    """Gives the exact sum of 8 products of every row, with a factor on both sides."""
    selectors = {name: inputs[name] for name in ("activation_special", "weight_special")
                 if special}
    return {"sum": _sg_pe_tile(inputs["activations"], inputs["weights"],
                               inputs["activation_meta"], inputs["meta"], **selectors)}


def group_accumulator(inputs: Ports, *, metadata: bool, depth: int = 3,
                      encoding: str = "elem-em") -> Ports:
    """Gives the float32 bits of every accumulator plus its group sum, rounded once."""
    i = inputs["i"]
    # Without metadata, sums come in units of 1/4 instead of 1/64.
    total = i["sum"] if metadata else 16 * i["sum"].astype(np.int32)
    acc = accumulate(i["acc"].view(np.float32), total, i["activation_scale"], i["weight_scale"])
    return {"o": acc.view(np.uint32)}


def group_mac(inputs: Ports, *, depth: int = 5, encoding: str = "elem-em") -> Ports:
    """Gives the float32 bits of every accumulator plus the dot product of two records."""
    i = inputs["i"]
    a, w = _operands(i["activation"], i["weight"], encoding)
    acc = _group_mac(a, w, i["acc"].view(np.float32))
    return {"o": acc.view(np.uint32)}


def _quantized(records, kind, encoding=None):
    elements = records["elements"]
    special = {"special": "sg-special", "special64": "sg-special64"}.get(kind)
    how = {"encoding": special, "kind": "weight"} if special else {
        "kind": kind, "encoding": encoding}
    return Quantized(**how, shape=elements.shape, elements=elements, group=elements.shape[1],
                     metadata=records["metadata"], scales=records["scale"][:, None])


def _operands(activations, weights, encoding):
    """Activations and weights of an array for activations in this encoding."""
    return (_quantized(activations, "activation", encoding),
            _quantized(weights, "weight", encoding if encoding in SPECIAL_ENCODINGS else "sg-em"))


def mac_array(inputs: Ports, *, columns: int, weight_width: int, metadata: bool,
              depth: int = 5, encoding: str = "elem-em") -> Ports:
    """Gives the float32 bits of the accumulators of all columns for every activation."""
    activations = inputs["i_activation"]
    # Records of one transfer follow each other.
    weights = {name: plane.reshape(-1, *plane.shape[2:])
               for name, plane in inputs["i_weight"].items()}
    record = activations["record"]
    if metadata:
        operands = _operands(record, weights, encoding)
        integers: list[np.ndarray] = [element_integers(q) for q in operands]
        x, w = integers
        x_scales, w_scales = (scale_codes(q)[:, 0] for q in operands)
    else:
        # In units of 1/8 instead of 1/2.
        x, w = (4 * e2m1_integers(codes) for codes in (record["elements"], weights["elements"]))
        x_scales, w_scales = record["scale"], weights["scale"]
    acc = _mac_array(x, w.reshape(-1, columns, x.shape[1]), x_scales, w_scales.reshape(-1, columns),
                     activations["last"], inputs["i_acc"].view(np.float32))
    return {"o": acc.view(np.uint32)}


def nvfp4_array(inputs: Ports, *, columns: int, weight_width: int, encoding: str = "nvfp4",
                groups: int = 2) -> Ports:
    """Gives the float32 bits of the accumulators of all columns for every row of activations."""
    activations, weights = inputs["i_activation"], inputs["i_weight"]
    record = activations["record"]
    acc = _nvfp4_array(record["elements"], weights["elements"].reshape(-1, columns, 16 * groups),
                       record["scales"], weights["scales"].reshape(-1, columns, groups),
                       activations["last"], inputs["i_acc"].view(np.float32), encoding)
    return {"o": acc.view(np.uint32)}


def accelerator(inputs: Ports, *, config: str | Config) -> Ports:
    """Gives the results and statuses of all commands in the input streams."""
    return _accelerator(configuration(config), inputs)
