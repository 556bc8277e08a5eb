# SPDX-License-Identifier: BSD-2-Clause
"""The fast codec: it works in blocks that fit the cache, with the compiled kernel or NumPy.

The results are, bit for bit, those of `quantization_engine.definition`,
`weight_encoder.definition`, `encodings.definition`, `sg_special.definition` and
`decoder.definition`, which are easier to read. Here magnitudes stay in float32. They are scaled by
a power of two, so that only magnitudes far below every decision point are rounded. They are then
compared with the decision points, whose products with the factors are exact.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ctypes import CDLL
from functools import reduce
from math import prod
from operator import add
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .arrays import BoolArray, Float32Array, FloatArray, UInt8Array
from .numbers import (
    FLOAT32_NAN,
    MANTISSA_LIMITS,
    SCALE_MAX,
    SCALE_NAN,
    SPECIAL_ENCODINGS,
    SPECIAL_LIMITS,
    SPECIAL_SCALES,
    SPECIALS,
    e2m1_integers,
    e2m3_integers,
    scale_codes,
    special_scale_codes,
    split_scales,
)
from .quantized import Quantized

BLOCK = 2**16
"""Elements that a thread works on at a time in NumPy: intermediate results fit the cache."""

COMPILED_BLOCK = 2**20
"""Elements that the kernel gets at a time at most: it has no intermediate results."""

COMPILED_FROM = 2**16
"""Smallest tensor for which the kernel is loaded, or compiled."""

DECISION_POINTS = [(0.25, np.greater, 1), (0.75, np.greater_equal, 1), (1.25, np.greater, 1),
                   (1.75, np.greater_equal, 1), (2.5, np.greater, 2), (3.5, np.greater_equal, 2),
                   (5.0, np.greater, 4)]
"""Where each E2M1 code begins, the comparison by which ties go to even codes, and the difference
of the two codes' values in units of 1/2."""

_PLAIN = np.copysign(e2m1_integers(np.arange(16)) / 2,
                     np.where(np.arange(16) < 8, 1, -1)).astype(np.float32)
# By 16 * metadata + code.
_FACTORED = np.concatenate([_PLAIN * np.float32(1 + k / 4) for k in range(4)])
# Magnitudes of refined top-1s, by 4 * code + metadata (specification section 3).
_REFINED = e2m3_integers(np.maximum(np.arange(32), 1) - 1).astype(np.float32) / 8


def encode(x: FloatArray, group: int, subgroup: int, rule: str, threads: int, *, encoding: str,
           adaptive: bool = False, metadata: bool = True) -> dict[str, UInt8Array]:
    """Encodes a tensor whose arguments were checked.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
    group, subgroup, threads : int
        As in `golden.quantize_activations`.
    rule : str
        One of `numbers.MANTISSA_LIMITS`. In mixed it is the rule of the groups with a factor.
        Sg-special and Sg-special64 have their own.
    encoding : str
        "elem-em", "sg-em", "mixed", "sg-special" or "sg-special64".
    adaptive : bool
        For all but Elem-EM and mixed, as in `golden.quantize_weights`.
    metadata : bool
        For Elem-EM: False leaves the metadata out.

    Returns
    -------
    dict of str to uint8 array
        "elements", "metadata" (if wanted) and "scales".
    """
    lead, groups = x.shape[:-1], -(-x.shape[-1] // group)
    planes = {"elements": np.empty((*lead, groups * group), np.uint8),
              "scales": np.empty((*lead, groups), np.uint8)}
    if metadata:
        planes["metadata"] = np.empty((*lead, groups * group // subgroup), np.uint8)
    scales = planes["scales"].reshape(-1)
    # One row per group.
    elements, extra = (planes[name].reshape(len(scales), -1) if name in planes else None
                       for name in ("elements", "metadata"))

    library = library_for(x.size)

    def work(part, values):
        out = [elements[part], None if extra is None else extra[part], scales[part]]
        if encoding == "mixed":
            _mixed(library, values, subgroup, rule, *out)
        else:
            _encode(library, values, subgroup, rule, encoding, adaptive, *out)

    each_group(work, x, group, threads, compiled=library is not None and encoding != "mixed")
    return planes


def decode(q: Quantized, threads: int) -> Float32Array:
    """Decodes a quantized tensor to float32 values of its original shape.

    Parameters
    ----------
    q : Quantized
    threads : int
        As in `golden.dequantize`.
    """
    library = library_for(prod(q.shape))
    planes = [group_rows(plane, q.scales.size) for plane in (q.elements, q.metadata, q.scales)]

    def work(part, out):
        given = [plane[part] for plane in planes]
        if q.encoding == "mixed":
            _decode_mixed(library, *given, out)
        else:
            _decode(library, q.encoding, *given, out)

    return decoded(work, q.shape, q.group, threads,
                   compiled=library is not None and q.encoding != "mixed")


def compare(a: Float32Array, b: Float32Array) -> tuple[float, float, bool]:
    """Compares values with what they became.

    Parameters
    ----------
    a, b : float32 array
        Contiguous, of one shape.

    Returns
    -------
    error : float
        Sum of the squared differences. It is infinite or NaN if a finite value is not finite any
        more; NaN that stays NaN has no error, nor has an infinity that stays.
    square : float
        Sum of the squares of all finite values of ``a``.
    same : bool
        Whether all have the same bits, or are NaN in both.
    """
    a, b = a.reshape(-1), b.reshape(-1)
    if library := library_for(a.size):
        sums = np.empty(2)
        different = library.compare_values(address(a), address(b), a.size, address(sums))
        return float(sums[0]), float(sums[1]), different == 0
    # Sums of each lane, in the kernel's order.
    errors, squares = np.zeros((2, _LANES))
    lossless = True
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, a.size, _COMPARED):
            x, y = a[start: start + _COMPARED], b[start: start + _COMPARED]
            same = (x.view(np.uint32) == y.view(np.uint32)) | (np.isnan(x) & np.isnan(y))
            exact = x.astype(np.float64)
            difference = y - exact
            difference[same] = 0
            exact[~np.isfinite(x)] = 0
            errors = _added(errors, difference)
            squares = _added(squares, exact)
            lossless = lossless and bool(same.all())
        return float(reduce(add, errors)), float(reduce(add, squares)), lossless


def _added(sums, values):
    """Adds the squares of values to the sums of the lanes, one row of lanes after another."""
    rows = np.zeros((1 + -(-values.size // _LANES), _LANES))
    rows[0] = sums
    rows.reshape(-1)[_LANES: _LANES + values.size] = values * values
    # Along the outer axis NumPy adds in order, not in pairs.
    return np.add.reduce(rows, axis=0)


# Elements that are compared at a time in NumPy: a multiple of the lanes.
_COMPARED = 2**13

# LANES of kernel.c.
_LANES = 16


def library_for(size: int) -> CDLL | None:
    """The compiled kernel for a tensor of a size; None where NumPy is to do the work."""
    return kernel.load() if size >= COMPILED_FROM else None


def address(array: NDArray[Any] | None) -> int | None:
    """Where an array lies, for the kernel."""
    # A fifth of the time of `array.ctypes.data`.
    return None if array is None else array.__array_interface__["data"][0]


def group_rows(plane: NDArray[Any], groups: int) -> NDArray[Any]:
    """A plane with a row for each group, contiguous and aligned."""
    return np.require(plane, None, ["C", "A"]).reshape(groups, -1)


def each_group(work: Callable[[slice, Float32Array], None], x: FloatArray, group: int, threads: int,
               *, compiled: bool) -> None:
    """Calls a function with the values of a tensor, some groups at a time.

    Parameters
    ----------
    work : callable
        Takes the slice of groups, counted over the tensor, and their values: a contiguous float32
        array of shape (groups, group), padded with +0.
    x : array of float32, float16 or bfloat16, shape (..., K)
    group : int
    threads : int
        Threads that share the work.
    compiled : bool
        Whether there are many groups at a time, as ``work`` has no intermediate results.
    """
    rows = _rows(np.asarray(x), group)

    def call(block):
        values = np.require(_padded(rows, group, *block), np.float32, ["C", "A"]).reshape(-1, group)
        start = block[0].start * -(-rows.shape[1] // group) + block[1].start
        work(slice(start, start + len(values)), values)

    _each(call, _blocks(rows, group, compiled), threads)


def decoded(work: Callable[[slice, Float32Array], None], shape: tuple[int, ...], group: int,
            threads: int, *, compiled: bool) -> Float32Array:
    """Makes a tensor by a function that writes the values of some groups at a time.

    Parameters
    ----------
    work : callable
        Takes the slice of groups, counted over the tensor, and a contiguous float32 array of shape
        (groups, group), which it fills.
    shape : tuple of int
        Shape (..., K) of the tensor.
    group, threads, compiled
        As in `each_group`.

    Returns
    -------
    float32 array, shape ``shape``
    """
    values = np.empty(shape, np.float32)
    rows = _rows(values, group)
    groups = -(-rows.shape[1] // group)

    def call(block):
        start, count = block[0].start * groups + block[1].start, _count(block[0]) * _count(block[1])
        columns = slice(block[1].start * group, min(block[1].stop * group, rows.shape[1]))
        target = rows[block[0], columns]
        whole = target.size == count * group
        out = target.reshape(count, group) if whole else np.empty((count, group), np.float32)
        work(slice(start, start + count), out)
        if not whole:
            target[...] = out.reshape(len(target), -1)[:, : target.shape[1]]

    _each(call, _blocks(rows, group, compiled), threads)
    return values


def _rows(x, group):
    """A tensor as a matrix whose rows are cut into groups: a single row if none is padded."""
    if x.shape[-1] % group == 0 and x.flags.c_contiguous:
        return x.reshape(1, -1)
    return x.reshape(-1, x.shape[-1])


def _blocks(rows, group, compiled):
    """Slices of rows and of groups in them: whole rows, or parts of one."""
    # A converted or padded copy of a block stays small beside the tensor.
    most = min(max(BLOCK, rows.size // 16), COMPILED_BLOCK) if compiled else BLOCK
    most //= group
    count, groups = len(rows), -(-rows.shape[1] // group)
    columns = min(groups, most)
    step = max(1, most // groups)
    return [(slice(row, min(row + step, count)), slice(column, min(column + columns, groups)))
            for row in range(0, count, step) for column in range(0, groups, columns)]


def _count(part):
    return part.stop - part.start


def _padded(rows, group, part, groups):
    """The values of some groups of some rows; an incomplete last group is padded with +0."""
    values = rows[part, groups.start * group: groups.stop * group]
    width = _count(groups) * group
    if values.shape[1] == width:
        return values
    padded = np.zeros((len(values), width), np.float32)
    padded[:, : values.shape[1]] = values
    return padded


def _each(work, blocks, threads):
    if threads == 1 or len(blocks) == 1:
        for block in blocks:
            work(block)
        return
    # The calling thread works, too, so that one thread less is started.
    left, lock = iter(blocks), Lock()

    def run():
        while True:
            with lock:
                block = next(left, None)
            if block is None:
                return
            work(block)

    count = min(threads, len(blocks)) - 1
    with ThreadPoolExecutor(count) as pool:
        others = [pool.submit(run) for _ in range(count)]
        run()
        for other in others:
            # For its error.
            other.result()


def _encode(library, x, subgroup, rule, encoding, adaptive, *out):
    if library is None:
        with np.errstate(all="ignore"):
            if encoding == "sg-em":
                _weights(x, subgroup, rule, adaptive, *out)
            elif encoding in SPECIAL_ENCODINGS:
                _special(x, subgroup, encoding, adaptive, *out)
            else:
                _activations(x, subgroup, rule, *out)
        return
    if encoding in SPECIAL_ENCODINGS:
        library.encode_special(address(x), *x.shape, subgroup, bool(adaptive),
                               *map(address, out))
        return
    run = (address(x), *x.shape, subgroup, *MANTISSA_LIMITS[rule])
    if encoding == "sg-em":
        library.encode_weights(*run, bool(adaptive), *map(address, out))
    else:
        library.encode_activations(*run, *map(address, out))


def _decode(library, encoding, elements, metadata, scales, out):
    if library is None:
        with np.errstate(all="ignore"):
            _values(encoding, elements, metadata, scales, out)
        return
    group = elements.shape[1]
    library.decode_groups(_DECODED.index(encoding), *map(address, (elements, metadata, scales)),
                          len(out), group, group // metadata.shape[1], address(out))


# The numbers by which kernel.c knows the encodings.
_DECODED = ("elem-em", "sg-em", "sg-special", "sg-special64")


def _mixed(library, x, subgroup, rule, elements, metadata, scales):
    factored = elements, metadata, scales
    refined = [np.empty_like(plane) for plane in factored]
    _encode(library, x, subgroup, rule, "sg-em", False, *factored)
    _encode(library, x, subgroup, "floor", "elem-em", False, *refined)
    zeros = _other_zeros(refined[0], subgroup)

    # Values in units of Sg-threshold's scale. In a NaN group they are 0 and u is infinite or NaN.
    # The sum is then NaN and not above 0.
    a, b = np.empty_like(x), np.empty_like(x)
    one = np.full((len(scales), 1), 127, np.uint8)
    _decode(library, "sg-em", elements, metadata, one, a)
    _decode(library, "elem-em", *refined[:2], one + (refined[2] - scales)[:, None], b)
    with np.errstate(invalid="ignore", over="ignore"):
        u = x * (254 - scales.astype(np.int32) << 23).view(np.float32)[:, None]
        excess = np.subtract(a + b, 2 * u, dtype=np.float64)
        excess *= a - b
        chosen = excess.sum(axis=1) > 0
    chosen &= zeros.any(axis=1)

    elements[elements == 8] = 0
    refined[0] |= zeros.view(np.uint8) << 3
    for plane, other in zip(factored, refined, strict=True):
        plane[chosen] = other[chosen]


def _other_zeros(elements, subgroup):
    codes = elements & 7
    zeros = codes == 0
    _, lane = _top1(codes.reshape(-1, subgroup))
    zeros.reshape(-1)[np.arange(0, zeros.size, subgroup) + lane] = False
    return zeros


def _decode_mixed(library, elements, metadata, scales, out):
    planes = elements, metadata, scales
    _decode(library, "sg-em", *planes, out)
    marks = (elements == 8) & _other_zeros(elements, elements.shape[1] // metadata.shape[1])
    marked = np.flatnonzero(marks.any(axis=1))
    refined = np.empty((len(marked), elements.shape[1]), np.float32)
    _decode(library, "elem-em", *(plane[marked] for plane in planes), refined)
    out[marked] = refined
    # -0 becomes +0.
    out += 0


def _scaled(x, rule):
    """Scale codes of groups, a mask of NaN groups, the groups, and a factor of each.

    NaN groups come back as zeros. The factor brings magnitudes to units of the scale.
    """
    largest = (x.view(np.uint32) & np.uint32(0x7FFFFFFF)).max(axis=1)
    bad = largest >= 0x7F800000
    scales = scale_codes(largest, rule)
    if bad.any():
        x = np.where(bad[:, None], np.float32(0), x)
    # A finite group's code is at most 253, so that the inverse is a normal number.
    return scales, bad, x, (254 - scales << 23).astype(np.uint32).view(np.float32)


def _signs(x):
    return (x.view(np.int32) < 0).view(np.uint8) << 3


def e2m1_codes(u: Float32Array, step: Any, *, halves: bool = False) -> UInt8Array:
    """Rounds magnitudes to E2M1 in units of a step: to nearest, ties to even, saturating.

    Parameters
    ----------
    u : float32 array
        Magnitudes.
    step : float32 or float32 array
        Its product with every decision point must be exact.
    halves : bool
        Whether the result is twice the codes' values instead of the codes.

    Returns
    -------
    uint8 array
    """
    total = np.zeros(u.shape, np.uint8)
    for point, above, increment in DECISION_POINTS:
        reached = above(u, np.float32(point) * step).view(np.uint8)
        total += reached * np.uint8(increment) if halves and increment > 1 else reached
    return total


def _e2m3(v):
    """Rounds magnitudes in units of the scale to E2M3 codes.

    The sum of a magnitude and a large power of two is rounded to a multiple of E2M3's quantum in
    that binade, to nearest, ties to even: its last place is that quantum.
    """
    binade = (v >= 2).astype(np.int32) + (v >= 4)
    large = binade + 147 << 23
    code = (v + large.view(np.float32)).view(np.int32) - large + 8 * binade
    return np.minimum(code, 31)


def _activations(x, subgroup, rule, elements, metadata, scales):
    start, bad, x, factor = _scaled(x, rule)
    v = np.abs(x)
    v *= factor[:, None]
    codes = e2m1_codes(v, np.float32(1))
    np.bitwise_or(codes, _signs(x), out=elements)
    scales[...] = np.where(bad, SCALE_NAN, start)
    if metadata is None:
        return
    top, lane = _top1(codes.reshape(-1, subgroup))
    refined = _e2m3(v.reshape(-1)[np.arange(0, v.size, subgroup) + lane])
    metadata[...] = np.clip(refined + 1 - 4 * top, 0, 3).reshape(metadata.shape)
    metadata[bad] = 0


def _top1(codes):
    """Subgroups' largest codes without sign, and the lowest lanes that hold them, as int32."""
    # Lanes are rows: NumPy is ten times as fast along the first axis as along a short last one.
    keys = np.left_shift(codes.T, 5, order="C")
    keys |= 31 - np.arange(len(keys), dtype=np.uint8)[:, None]
    best = keys.max(axis=0).astype(np.int32)
    return best >> 5, 31 - (best & 31)


def _weights(x, subgroup, rule, adaptive, elements, metadata, scales):
    start, bad, x, factor = _scaled(x, rule)
    count = metadata.shape[1]
    # Element i of all subgroups side by side in row i.
    u = np.abs(x.reshape(-1, subgroup).T, order="C")
    u *= factor.repeat(count)

    best_excess = np.full(len(x), np.inf)
    best = start
    steps = np.zeros(metadata.shape, np.float32)
    for bias in (-1, 0, 1) if adaptive else (0,):
        excess, factors, tried = _best_factors(u, 2.0**bias)
        total = excess.reshape(metadata.shape).sum(axis=1)
        offered = (start + bias >= 0) & (start + bias <= SCALE_MAX)
        better = offered & (total < best_excess)
        best_excess = np.where(better, total, best_excess)
        best = np.where(better, start + bias, best)
        metadata[better] = factors.reshape(metadata.shape)[better]
        steps[better] = tried.reshape(metadata.shape)[better]

    codes = e2m1_codes(u, steps.reshape(-1))
    np.bitwise_or(codes.T, _signs(x).reshape(-1, subgroup), out=elements.reshape(-1, subgroup))
    scales[...] = np.where(bad, SCALE_NAN, best)
    metadata[bad] = 0


def _best_factors(u, scale):
    """The least excess of subgroups at a scale (see `weight_encoder`), with its factor and step."""
    best = np.full(u.shape[1], np.inf)
    factors = np.zeros(u.shape[1], np.uint8)
    steps = np.zeros(u.shape[1], np.float32)
    for k in range(4):
        step = scale * (4 + k) / 4
        halves = e2m1_codes(u, np.float32(step), halves=True).astype(np.float64)
        # q * (q - 2 * u) with q = halves * step / 2, in float64: exact.
        excess = halves * (step / 4)
        excess -= u
        excess *= halves
        excess = excess.sum(axis=0) * step
        better = excess < best
        best = np.where(better, excess, best)
        factors = np.where(better, np.uint8(k), factors)
        steps = np.where(better, np.float32(step), steps)
    return best, factors, steps


def _special(x, subgroup, encoding, adaptive, elements, metadata, scales):
    special_encoding = SPECIAL_ENCODINGS[encoding]
    lower, most = special_encoding.lower, np.float32(special_encoding.most)
    largest = (x.view(np.uint32) & np.uint32(0x7FFFFFFF)).max(axis=1)
    bad = largest >= 0x7F800000
    if bad.any():
        x = np.where(bad[:, None], np.float32(0), x)
        largest = np.where(bad, np.uint32(0), largest)
    count = metadata.shape[1]
    # Element i of all subgroups side by side in row i.
    magnitudes = np.abs(x.reshape(-1, subgroup).T, order="C")
    negative = np.signbit(x).reshape(-1, subgroup).T

    def scaled(code):
        u = magnitudes * (254 - code << 23).view(np.float32).repeat(count)
        return np.minimum(u, most, out=u)

    lowest, floor = (special_scale_codes(largest, limit, lower) for limit in (0x800000, 0))
    best = np.full(len(x), np.inf)
    scales[...] = 0
    steps = np.zeros(metadata.shape, np.float32)
    for magnitude, limit in SPECIAL_LIMITS.items():
        fixed = special_scale_codes(largest, limit, lower)
        for code in (lowest, floor) if adaptive else (fixed,):
            found = _special_factors(scaled(code), negative, magnitude, special_encoding.factors)
            for special, (excess, factors, tried) in zip((magnitude, -magnitude), found,
                                                         strict=True):
                total = np.ldexp(excess.reshape(metadata.shape).sum(axis=1), 2 * (code - lowest))
                byte = code - SPECIAL_SCALES[0] << 2 | SPECIALS.index(special)
                better = (total < best) & (byte != SCALE_NAN)
                best = np.where(better, total, best)
                scales[better] = byte[better]
                metadata[better] = factors.reshape(metadata.shape)[better]
                steps[better] = tried.reshape(metadata.shape)[better]

    codes, specials = split_scales(scales)
    u, step = scaled(codes.astype(np.int32)), steps.reshape(-1)
    plain = e2m1_codes(u, step)
    plain |= (negative & (plain > 0)).view(np.uint8) << 3
    plain[takes_special(u, step, np.abs(specials).repeat(count) // 2)
          & (negative == (specials < 0).repeat(count))] = 8
    elements.reshape(-1, subgroup)[...] = plain.T
    scales[bad] = SCALE_NAN
    metadata[bad] = 0


def takes_special(u: FloatArray, step: Any, magnitude: Any) -> BoolArray:
    """Tells which magnitudes are nearer to a special value than to every value of E2M1.

    Parameters
    ----------
    u : float32 or float64 array
        Magnitudes.
    step : float or array
        Their unit.
    magnitude : int or array
        The special value's magnitude, 5 or 8.

    Returns
    -------
    bool array
    """
    return np.where(magnitude == 8, u > 7 * step, (u > np.float32(4.5) * step)
                    & (u < np.float32(5.5) * step))


def _special_factors(u, negative, magnitude, factors):
    """The least excess of subgroups for a special value and for its negative.

    Each is a tuple of excess, metadata and step.
    """
    found = [(np.full(u.shape[1], np.inf), np.zeros(u.shape[1], np.uint8),
              np.zeros(u.shape[1], np.float32)) for _ in range(2)]
    for k, factor in enumerate(factors):
        step = np.float32(factor)
        halves = e2m1_codes(u, step, halves=True).astype(np.float64)
        # As in `_best_factors`.
        excess = halves * (step / 4)
        excess -= u
        excess *= halves * step
        takes = takes_special(u, step, magnitude)
        value = np.float64(magnitude * step)
        # The change of the excess by a special value, which is below 0.
        gain = np.where(takes, value * (value - 2 * u.astype(np.float64)) - excess, 0)
        total, below = excess.sum(axis=0), np.where(negative, gain, 0).sum(axis=0)
        for tried, (best, metadata, steps) in zip(
                (total + (gain.sum(axis=0) - below), total + below), found, strict=True):
            better = tried < best
            best[better] = tried[better]
            metadata[better] = k
            steps[better] = step
    return found


def _values(encoding, elements, metadata, scales, out):
    subgroup = elements.shape[1] // metadata.shape[1]
    codes = elements.reshape(-1, subgroup)
    values = out.reshape(-1, subgroup)
    if encoding in SPECIAL_ENCODINGS:
        scales, specials = split_scales(scales)
        np.take(_PLAIN, codes, out=values)
        special = (specials / np.float32(2)).repeat(metadata.shape[1])[:, None]
        np.copyto(values, special, where=codes == 8)
        factors = np.array(SPECIAL_ENCODINGS[encoding].factors, np.float32)
        values *= factors[metadata.reshape(-1, 1)]
    elif encoding == "sg-em":
        np.take(_FACTORED, codes | metadata.reshape(-1, 1) << 4, out=values)
    else:
        np.take(_PLAIN, codes, out=values)
        top, lane = _top1(codes & 7)
        place = np.arange(0, codes.size, subgroup) + lane
        refined = _REFINED[4 * top + metadata.reshape(-1)]
        values.reshape(-1)[place] = np.copysign(refined, values.reshape(-1)[place])
    out *= np.ldexp(np.float32(1), scales.astype(np.int32) - 127)
    out[scales[:, 0] == SCALE_NAN] = FLOAT32_NAN
