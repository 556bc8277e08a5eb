# SPDX-License-Identifier: BSD-2-Clause
"""Switching activity for gate-level simulation: data of a language model, and random data.

Real activity is that of SmolLM2's up projection (`golden.models.smollm2`) in the order in which the
array computes it: the weights stay while 32 tokens pass, the groups follow each other along K, and
the accumulators of a group are the results of the group before. Random activity consists of the
unit's own stimuli, which are chosen to be difficult: groups of all magnitudes, special values, long
shifts.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from amaranth import Shape

from golden import quantize_activations, quantize_weights, stimuli
from golden.codec.numbers import FLOATS, default_group
from golden.formats.catalogue import FORMATS
from golden.formats.nvfp4 import tensor_scale_of
from golden.models import smollm2
from golden.units.decoder import element_integers, scale_codes
from golden.units.group_accumulator import accumulate
from golden.units.nvfp4_array import nvfp4_array
from golden.units.nvfp4_quantizer import quantize_nvfp4
from golden.units.pe_tile import plain_pe_tile
from golden.units.top1_decode import top1_decode

from ..registry import UNITS, build, parameters
from ..tools.packing import length, to_bits
from .gate_simulation import LANES, Activity

KINDS = "real", "random"

WEIGHTS = 16
"""Rows of weights that a tile or an accumulator works on; the array works on 256."""

# Largest number of counted cycles in a run, of clocked and of other units. A clocked unit is
# simulated cycle by cycle, the others all cycles at once.
_CLOCKED, _UNCLOCKED = 64, 576


def activity(name: str, settings: Sequence[str] = (), kind: str = "real") -> Activity | None:
    """Activity of a unit at full speed, with the outputs of its golden reference.

    Parameters
    ----------
    name, settings
        Unit and its parameters, as in `hw.registry.parameters`.
    kind : str
        One of ``KINDS``.

    Returns
    -------
    Activity or None
        None for a unit without real activity.

    Raises
    ------
    ValueError
        If the unit, a parameter or the kind is not offered.
    """
    if kind not in KINDS:
        raise ValueError(f"Activity must be one of {', '.join(KINDS)}, not {kind!r}")
    chosen, component = parameters(name, settings), build(name, settings)
    if name not in REAL:
        return None
    if name in ("mac_array", "nvfp4_array"):
        runs = _array_runs if name == "mac_array" else _nvfp4_array_runs
        rows, each, settle, cycles = runs(kind, **chosen)
    else:
        limit = _CLOCKED if component.latency else _UNCLOCKED
        rows = (REAL[name](**chosen) if kind == "real" else
                UNITS[name].stimuli(np.random.default_rng(0), LANES * limit, **chosen))
        stretch = length(rows) // LANES
        # A unit may take several cycles for a row; only whole rows count.
        interval = getattr(component, "cycles", 1)
        cycles = min(stretch * interval, limit) // interval * interval
        # The pipeline is full when counting begins. One more row makes the last edges.
        settle = component.latency + 2 if component.latency else 0
        index = np.arange(-settle // interval, cycles // interval + 1) \
            + stretch * np.arange(LANES)[:, None]
        rows = _map(lambda array: np.take(array, index.reshape(-1), axis=0, mode="wrap"), rows)
        each = dict.fromkeys(rows, index.shape[1])
    outputs = UNITS[name].reference(rows, **chosen)
    return Activity(inputs=_bits(component, rows, each),
                    outputs=_bits(component, outputs, dict.fromkeys(outputs)),
                    latency=component.latency, settle=settle, cycles=cycles)


def _bits(component, rows, each):
    """Bits of each port by lane; ``each`` has the number of rows in a lane, or None."""
    bits = {}
    for name, value in rows.items():
        port = component.signature.members[name]
        shape = port.signature.members["payload"].shape if port.is_signature else port.shape
        bits[name] = to_bits(shape, value, name).reshape(
            LANES, each[name] or length(value) // LANES, Shape.cast(shape).width)
    return bits


def _map(change, value):
    """Applies a function to every array of a value."""
    if isinstance(value, dict):
        return {name: _map(change, part) for name, part in value.items()}
    return change(value)


@functools.cache
def _layer():
    """Activations and weights of the layer, float32."""
    data = smollm2.load()
    return data.activations, data.weights


@functools.cache
def _quantized(metadata):
    """Activations and weights as planes of shape (rows, groups, ...)."""
    x, w = _layer()
    # Without metadata, elements and scales quantized as activations are those of MXFP4.
    both = quantize_activations(x), (quantize_weights if metadata else quantize_activations)(w)
    return tuple(_planes(q, metadata) for q in both)


def _planes(q, metadata=True):
    return {"elements": q.elements.reshape(*q.scales.shape, q.group), "scale": q.scales,
            **({"metadata": q.metadata.reshape(*q.scales.shape, -1)} if metadata else {})}


@functools.cache
def _tensors(encoding):
    """Activations and weights, quantized for an array for activations in this encoding."""
    x, w = _layer()
    # Sg-threshold is the encoder of Sg-EM without a search.
    activations, weights = {"elem-em": ("elem-em", "sg-em"), "sg-em": ("sg-threshold", "sg-em"),
                            "sg-special": ("sg-special", "sg-special"),
                            "sg-special64": ("sg-special64", "sg-special64")}[encoding]
    return (quantize_activations(x, encoding=activations),
            quantize_weights(w, encoding=weights))


def _operands(metadata, encoding):
    """Activations and weights of an array as planes of shape (rows, groups, ...)."""
    if metadata:
        return tuple(map(_planes, _tensors(encoding)))
    return _quantized(metadata)


@functools.cache
def _sums(metadata, encoding="elem-em"):
    """Sums of groups and accumulators before them, both of shape (groups, tokens, weight rows)."""
    if metadata:
        x, w = (element_integers(q).reshape(len(q.elements), -1, q.group).astype(np.int32)
                for q in _tensors(encoding))
        totals = np.einsum("mgk,ngk->gmn", x, w)
        x_scales, w_scales = map(scale_codes, _tensors(encoding))
    else:
        activation, weight = _quantized(metadata)
        totals = plain_pe_tile(activation["elements"].swapaxes(0, 1)[:, :, None],
                               weight["elements"].swapaxes(0, 1)[:, None])
        x_scales, w_scales = activation["scale"], weight["scale"]
    accumulators = [np.zeros(totals.shape[1:], np.float32)]
    for g, total in enumerate(totals[:-1]):
        accumulators.append(accumulate(accumulators[-1], total if metadata else 16 * total,
                                       x_scales[:, g, None], w_scales[:, g]))
    return totals, np.stack(accumulators).view(np.uint32)


def _flat(planes):
    return _map(lambda plane: plane.reshape(-1, *plane.shape[2:]), planes)


def _meet(activation, weight):
    """Groups of all tokens against groups of resting weights: one row for each pair.

    Parameters
    ----------
    activation, weight : array, shape (rows, groups, ...)

    Returns
    -------
    array, array
        Weights' rows outermost, tokens innermost.
    """
    weight = weight[:WEIGHTS]
    shape = len(weight), weight.shape[1], len(activation)
    x = np.broadcast_to(activation.swapaxes(0, 1), (*shape, *activation.shape[2:]))
    w = np.broadcast_to(weight[:, :, None], (*shape, *weight.shape[2:]))
    return (np.ascontiguousarray(x).reshape(-1, *activation.shape[2:]),
            np.ascontiguousarray(w).reshape(-1, *weight.shape[2:]))


def _subgroups(plane, count):
    """Splits elements or metadata of a group into those of its subgroups.

    The shape (rows, groups, n) becomes (s, rows, groups, n / s), s the number of subgroups.
    """
    return plane.reshape(*plane.shape[:2], count, -1).transpose(2, 0, 1, 3)


def _meet_subgroups(activation, weight, count=4):
    """As `_meet`, subgroup by subgroup, because each one of a group has its own tile."""
    pairs = [_meet(x, w) for x, w in zip(_subgroups(activation, count), _subgroups(weight, count),
                                         strict=True)]
    return tuple(np.concatenate(part) for part in zip(*pairs, strict=True))


def _top1(*, lanes):
    return {"codes": _quantized(True)[0]["elements"].reshape(-1, lanes)}


def _top1_decode():
    activation = _quantized(True)[0]
    return {"codes": activation["elements"].reshape(-1, 8),
            "meta": activation["metadata"].reshape(-1)}


def _decoder(*, kind):
    if kind.startswith("special"):
        return {"i": _flat(_operands(True, f"sg-{kind}")[0])}
    return {"i": _flat(_quantized(True)[kind == "weight"])}


def _quantization_engine(*, input, rule, metadata, **_):
    dtype = FLOATS[input]
    groups = _layer()[0].astype(dtype).reshape(-1, 32)
    return {"i": groups.view(f"u{dtype.itemsize}")}


def _pe_tile(*, metadata, **_):
    activation, weight = _quantized(metadata)
    codes, weights = _meet_subgroups(activation["elements"], weight["elements"])
    if not metadata:
        return {"activations": codes, "weights": weights}
    refined, meta = (part[:, 0] for part in _meet_subgroups(activation["metadata"],
                                                            weight["metadata"]))
    lane, shift, negative, zero = top1_decode(codes, refined)
    return {"activations": codes, "weights": weights, "meta": meta,
            "lane": (1 << lane.astype(np.uint16)).astype(np.uint8),
            "refinement": {"shift": shift, "negative": negative, "zero": zero}}


def _sg_pe_tile(*, special, exponent=False, **_):
    # Without special values no encoding has exponents: those of Sg-special64 stand in.
    encoding = "sg-special64" if exponent else "sg-special" if special else "sg-em"
    activation, weight = _operands(True, encoding)
    count = activation["metadata"].shape[-1]
    codes, weights = _meet_subgroups(activation["elements"], weight["elements"], count)
    inputs = {"activations": codes, "weights": weights}

    def meet(names, planes):
        inputs.update(zip(names, (part[:, 0] for part in _meet_subgroups(*planes, count)),
                          strict=True))

    meet(("activation_meta", "meta"), (activation["metadata"], weight["metadata"]))
    if special:
        # All subgroups share the group's selector.
        meet(("activation_special", "weight_special"),
             [(record["scale"] & 3)[..., None].repeat(count, -1)
              for record in (activation, weight)])
    return inputs


def _weight_encoder(*, encoding):
    return {"i": _layer()[encoding == "sg-em"].reshape(-1, 32).view(np.uint32)}


def _sg_engine(*, input, encoding, **_):
    groups = _quantization_engine(input=input, rule="floor", metadata=True)["i"]
    return {"i": groups.reshape(-1, default_group(encoding))}


def _nvfp4_quantizer():
    x = _layer()[0]
    values = x.reshape(-1, 16).view(np.uint32)
    scale = np.full(len(values), tensor_scale_of(x)).view(np.uint32)
    return {"i": {"values": values, "tensor_scale": scale}}


@functools.cache
def _nvfp4(encoding="nvfp4"):
    """Activations and weights in NVFP4 or RaZeR."""
    if encoding == "razer":
        return tuple(FORMATS[f"RaZeR {kind}"].quantize(array) for kind, array in
                     zip(("activations", "weights"), _layer(), strict=True))
    return tuple(quantize_nvfp4(array, tensor_scale_of(array)) for array in _layer())


def _nvfp4_pe_tile(*, lanes):
    codes, scales = [], []
    for array, q in zip(_layer(), _nvfp4(), strict=True):
        codes.append(q.elements.reshape(len(array), -1, 16 // lanes, lanes))
        scales.append(q.scales)
    # Each tile works on its own part of the groups.
    parts = [_meet(codes[0][:, :, part], codes[1][:, :, part]) for part in range(16 // lanes)]
    activations, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    scales = [np.concatenate([scale] * (16 // lanes)) for scale in _meet(*scales)]
    return {"activations": activations, "weights": weights,
            "activation_scale": scales[0], "weight_scale": scales[1]}


def _columns(array):
    """Puts sums or accumulators, shape (groups, tokens, weight rows), in the order of `_meet`."""
    return np.ascontiguousarray(array[:, :, :WEIGHTS].transpose(2, 0, 1)).reshape(-1)


def _group_accumulator(*, metadata, encoding, **_):
    codes = (map(scale_codes, _tensors(encoding)) if metadata else
             (planes["scale"] for planes in _quantized(metadata)))
    totals, accumulators = _sums(metadata, encoding)
    scales = _meet(*codes)
    return {"i": {"sum": _columns(totals), "activation_scale": scales[0],
                  "weight_scale": scales[1], "acc": _columns(accumulators)}}


def _group_mac(*, encoding, **_):
    activation, weight = _operands(True, encoding)
    pairs = {name: _meet(activation[name], weight[name]) for name in activation}
    return {"i": {"activation": {name: pair[0] for name, pair in pairs.items()},
                  "weight": {name: pair[1] for name, pair in pairs.items()},
                  "acc": _columns(_sums(True, encoding)[1])}}


def _array_runs(kind, *, columns, weight_width, metadata, encoding, **_):
    """Runs of `_runs`, of an array for M2XFP or MXFP4."""
    activation, weight = _operands(metadata, encoding)

    def random(rng, rows, tiles, tokens):
        wide = encoding == "sg-special64"
        records = stimuli.records(rng, rows, wide=wide)
        weights = {name: plane.reshape(tiles, columns, *plane.shape[1:])
                   for name, plane in stimuli.records(rng, tiles * columns, wide=wide).items()}
        acc = stimuli.accumulators(
            rng, rng.integers(-20000, 20000, rows * columns),
            np.repeat(stimuli.e8m0_codes(records["scale"], encoding), columns),
            np.repeat(stimuli.e8m0_codes(weights["scale"], encoding), tokens, axis=0).reshape(-1))
        if not metadata:
            del records["metadata"], weights["metadata"]
        return records, weights, acc

    return _runs(kind, activation, weight, lambda: _sums(metadata, encoding)[1], random,
                 columns=columns, weight_width=weight_width)


def _nvfp4_array_runs(kind, *, columns, weight_width, encoding, groups):
    """Runs of `_runs`, of the array for NVFP4."""
    activation, weight = ({"elements": q.elements.reshape(len(q.elements), -1, 16 * groups),
                           "scales": q.scales.reshape(len(q.elements), -1, groups)}
                          for q in _nvfp4(encoding))

    def random(rng, rows, tiles, tokens):
        found = stimuli.nvfp4_array(rng, rows, columns=columns, weight_width=1, encoding=encoding,
                                    groups=groups)
        _, of_weights = stimuli.nvfp4_operands(encoding)
        weights = {name: plane.reshape(tiles, columns, *plane.shape[1:]) for name, plane in
                   stimuli.nvfp4_rows(rng, tiles * columns, groups=groups, **of_weights).items()}
        return found["i_activation"]["record"], weights, found["i_acc"]

    return _runs(kind, activation, weight, lambda: _nvfp4_accumulators(encoding, groups), random,
                 columns=columns, weight_width=weight_width)


@functools.cache
def _nvfp4_accumulators(encoding, groups):
    """Accumulators before each row of so many groups, of shape (rows, tokens, weight rows)."""
    x, w = _nvfp4(encoding)
    tokens, outputs = len(x.elements), len(w.elements)
    acc = [np.zeros((tokens, outputs), np.float32)]
    for k in range(x.scales.shape[1] // groups - 1):
        part, scales = (slice(size * k, size * k + size) for size in (16 * groups, groups))
        acc.append(nvfp4_array(x.elements[:, part], w.elements[None, :, part],
                               x.scales[:, scales], w.scales[None, :, scales],
                               np.zeros(tokens, np.uint8), acc[-1], encoding))
    return np.stack(acc).view(np.uint32)


def _runs(kind, activation, weight, accumulators, random, *, columns, weight_width):
    """Runs of five tiles of weights, two of which count.

    While the array computes with one tile, the next tile loads. The last tile is only offered.

    Parameters
    ----------
    kind : str
        One of ``KINDS``.
    activation, weight : dict of str to array, shape (rows, groups, ...)
        Planes of records; a group is what the array takes in a cycle.
    accumulators : callable
        Returns those before each group, shape (groups, tokens, weight rows).
    random : callable
        Takes a generator, the numbers of activations and of tiles, and the tokens of a tile.
        Returns random activations, weights of shape (tiles, columns, ...) and accumulators.
    columns, weight_width : int
    """
    tiles = 5
    tokens, groups = activation["elements"].shape[:2]
    count = len(weight["elements"]) // columns * groups
    # Tile n has group n % groups of `columns` rows of weights, from row (n // groups) * columns on.
    tile = (np.arange(LANES)[:, None] * (count // LANES) + np.arange(tiles)) % count
    tile = tile.reshape(-1)
    last = np.tile(np.arange(tokens) == tokens - 1, len(tile)).astype(np.uint8)
    if kind == "real":
        rows = tile[:, None] // groups * columns + np.arange(columns)
        records = {name: plane.swapaxes(0, 1)[tile % groups].reshape(-1, *plane.shape[2:])
                   for name, plane in activation.items()}
        weights = {name: plane[rows, tile[:, None] % groups] for name, plane in weight.items()}
        acc = accumulators()[tile % groups][np.arange(len(tile))[:, None, None],
                                            np.arange(tokens)[:, None], rows[:, None]]
    else:
        records, weights, acc = random(np.random.default_rng(0), len(last), len(tile), tokens)
    inputs = {"i_activation": {"record": records, "last": last},
              "i_acc": acc.reshape(-1, columns),
              "i_weight": {name: plane.reshape(-1, weight_width, *plane.shape[2:])
                           for name, plane in weights.items()}}
    each = {"i_activation": tiles * tokens, "i_acc": tiles * tokens,
            "i_weight": tiles * columns // weight_width}
    # Before counting begins, the first tile loads and the array computes with it.
    return inputs, each, columns // weight_width + tokens, 2 * tokens


REAL: dict[str, Callable[..., Any]] = {
    "top1": _top1,
    "top1_decode": _top1_decode,
    "decoder": _decoder,
    "quantization_engine": _quantization_engine,
    "pe_tile": _pe_tile,
    "sg_pe_tile": _sg_pe_tile,
    "weight_encoder": _weight_encoder,
    "sg_engine": _sg_engine,
    "nvfp4_quantizer": _nvfp4_quantizer,
    "nvfp4_pe_tile": _nvfp4_pe_tile,
    "group_accumulator": _group_accumulator,
    "group_mac": _group_mac,
    "mac_array": _array_runs,
    "nvfp4_array": _nvfp4_array_runs,
}
"""By unit, the function that makes the rows of real activity."""
