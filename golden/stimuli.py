# SPDX-License-Identifier: BSD-2-Clause
"""Random stimuli for every unit, with more weight on cases where arithmetic goes wrong.

Each function takes a generator, a number of transfers and the unit's parameters. It returns the
unit's input ports in the form that `golden.reference` takes.
"""

from typing import Any

import numpy as np
from numpy.random import Generator

from .accelerator import planner
from .accelerator.accelerator import execute, streams
from .codec.numbers import FLOATS, SPECIAL_ENCODINGS, default_group, split_scales
from .codec.quantized import Quantized
from .units.decoder import element_integers
from .units.group_dot import group_dot
from .units.nvfp4_array import row_sums
from .units.top1_decode import top1_decode as _top1_decode


def top1(rng: Generator, count: int, *, lanes: int) -> dict[str, Any]:
    """Makes codes, many of equal magnitude."""
    # Few distinct magnitudes make many ties.
    codes = rng.integers(0, 16, (count, lanes), np.uint8)
    tied = rng.integers(0, 8, (count, 1), np.uint8) | (codes & 8)
    return {"codes": np.where(rng.random((count, lanes)) < 0.3, tied, codes)}


def top1_decode(rng: Generator, count: int) -> dict[str, Any]:
    """Makes codes with ties, and metadata."""
    return {**top1(rng, count, lanes=8), "meta": rng.integers(0, 4, count, np.uint8)}


def decoder(rng: Generator, count: int, *, kind: str) -> dict[str, Any]:
    """Makes records."""
    return {"i": records(rng, count, wide=kind == "special64")}


def quantization_engine(rng: Generator, count: int, *, input: str, rule: str, metadata: bool,
                        depth: int) -> dict[str, Any]:
    """Makes groups of 32 values, as bits of the input format."""
    return {"i": _narrowed(rng, groups(rng, count), input)}


def _narrowed(rng, x, input):
    """Bits of groups in a type; some groups are plain random bits."""
    dtype = FLOATS[input]
    with np.errstate(over="ignore", invalid="ignore"):
        narrowed = x.astype(dtype)
    bits = narrowed.view(f"u{dtype.itemsize}")
    # Some groups of plain random bits of the type itself: its own subnormals, NaN and Inf.
    raw = rng.integers(0, 1 << 8 * dtype.itemsize, bits.shape, bits.dtype)
    return np.where(rng.random((len(x), 1)) < 0.1, raw, bits)


def weight_encoder(rng: Generator, count: int, *, encoding: str) -> dict[str, Any]:
    """Makes float32 groups of 32, some with values where the choice of a code turns."""
    x = groups(rng, count)
    hit = _decision_points(rng, count, -150, 119)
    return {"i": np.where(rng.random((count, 1)) < 0.3, hit, x).view(np.uint32)}


def _decision_points(rng, count, low, high, size=32):
    """Groups of decision points times a factor, at any of the scales that are tried."""
    points = np.array([0, 1, 3, 5, 7, 10, 14, 20, 24, 28], np.float32)
    hit = rng.choice(points, (count, size)) * rng.integers(4, 8, (count, 1)).astype(np.float32)
    hit *= rng.choice(np.array([-1, 1], np.float32), hit.shape)
    return np.ldexp(hit, rng.integers(low, high, (count, 1)))


def sg_engine(rng: Generator, count: int, *, input: str, encoding: str = "sg-threshold", **_: Any
              ) -> dict[str, Any]:
    """Makes groups of values, as bits of the input format: decision points, ties of factors."""
    size = default_group(encoding)
    low, high = (-30, 8) if input == "float16" else (-150, 119)
    x, hit = groups(rng, count, size), _decision_points(rng, count, low, high, size)
    # A sixteenth of the scale is the last bit that errors see.
    step = np.abs(hit).max(-1, keepdims=True) / np.float32(176 * size // 32)
    hit += step * (rng.random(hit.shape) < 0.2)
    # Subgroups of one magnitude, in which all lanes have the same error, and of next to nothing.
    subgroups = rng.choice(4, (count, size // 8), p=[0.7, 0.1, 0.1, 0.1]).repeat(8, axis=-1)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        x = np.where(rng.random((count, 1)) < 0.3, hit, x).astype(np.float32)
        same = x.reshape(count, -1, 8)[..., :1].repeat(8, axis=-1).reshape(x.shape)
        x = np.select([subgroups == 1, subgroups == 2, subgroups == 3],
                      [same, x * np.float32(2.0**-4), x * np.float32(2.0**-12)], x)
        if input == "float16":
            # Most groups in the range of the type.
            largest = np.frexp(np.abs(np.where(np.isfinite(x), x, 0)).max(-1, keepdims=True))[1]
            x = np.ldexp(x, rng.integers(-26, 17, (count, 1)) - largest)
    return {"i": _narrowed(rng, x.astype(np.float32), input)}


def nvfp4_quantizer(rng: Generator, count: int) -> dict[str, Any]:
    """Makes float32 groups of 16 and their tensor scales."""
    # Tensor scales near where the group's scale is moderate, subnormal or saturates.
    kind = rng.random(count)
    tensor_scale = rng.uniform(1, 2, count).astype(np.float32)
    tensor_scale = np.where(kind < 0.5, np.float32(1), tensor_scale)
    tensor_scale = np.ldexp(tensor_scale, np.where(
        rng.random(count) < 0.5, rng.integers(-20, 20, count), rng.integers(-115, 127, count)))
    kind = rng.random(count)
    quotient = np.select([kind < 0.25, kind < 0.9],
                         [rng.integers(-11, -4, count), rng.integers(-8, 9, count)],
                         rng.integers(-40, 40, count))
    x = groups(rng, count)[:, :16]
    largest = np.frexp(np.abs(np.where(np.isfinite(x), x, 0)).max(axis=1))[1]
    moved = quotient + np.frexp(tensor_scale)[1] + 2 - largest
    # Decision points times the step of a group whose scale is known.
    significand = rng.integers(8, 16, count).astype(np.float32) / 8
    points = np.array([0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5], np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        step = np.ldexp(tensor_scale * significand, quotient)[:, None]
        x = np.ldexp(x, moved[:, None])
        hit = rng.choice(points, x.shape) * step * rng.choice([-1, 1], x.shape).astype(np.float32)
        hit[:, 0] = 6 * step[:, 0]
    hit = (hit.view(np.uint32) + rng.choice([0, 0, 0, -1, 1], x.shape).astype(np.uint32))
    x = np.where(rng.random((count, 1)) < 0.4, hit, x.view(np.uint32))
    bits = tensor_scale.view(np.uint32)
    anything = rng.integers(0, 1 << 32, count, np.uint32)
    return {"i": {"values": x, "tensor_scale": np.where(rng.random(count) < 0.05, anything, bits)}}


def nvfp4_pe_tile(rng: Generator, count: int, *, lanes: int) -> dict[str, Any]:
    """Makes NVFP4 codes and E4M3 scales, some of the largest magnitude."""
    codes = {}
    for name in ("activations", "weights"):
        given = rng.integers(0, 16, (count, lanes), np.uint8)
        # The largest codes reach the sum's limits.
        codes[name] = np.where(rng.random((count, 1)) < 0.15, given | 7, given)
        scale = rng.integers(0, 128, count, np.uint8)
        codes[name.removesuffix("s") + "_scale"] = np.where(
            rng.random(count) < 0.2, rng.choice(np.array([0, 1, 7, 8, 126, 127], np.uint8), count),
            scale)
    return codes


def pe_tile(rng: Generator, count: int, *, depth: int, metadata: bool) -> dict[str, Any]:
    """Makes codes, metadata and refinements, some of the largest magnitude."""
    codes = top1(rng, count, lanes=8)["codes"]
    # The largest codes reach the sum's limits.
    codes = np.where(rng.random((count, 1)) < 0.1, codes | 7, codes)
    weights = rng.integers(0, 16, (count, 8), np.uint8)
    weights = np.where(rng.random((count, 1)) < 0.1, weights | 7, weights)
    if not metadata:
        return {"activations": codes, "weights": weights}
    lane, shift, negative, zero = _top1_decode(codes, rng.integers(0, 4, count, np.uint8))
    return {"activations": codes, "weights": weights,
            "meta": rng.integers(0, 4, count, np.uint8),
            "lane": (1 << lane.astype(np.uint16)).astype(np.uint8),
            "refinement": {"shift": shift, "negative": negative, "zero": zero}}


def sg_pe_tile(rng: Generator, count: int, *, depth: int, special: bool, exponent: bool = False
               ) -> dict[str, Any]:
    """Makes codes, metadata and special values, some of the largest magnitude."""
    inputs = {}
    for name in ("activations", "weights"):
        codes = rng.integers(0, 16, (count, 8), np.uint8)
        # The largest codes reach the sum's limits, and so do special values.
        codes = np.where(rng.random((count, 1)) < 0.15, codes | 7, codes)
        frequency = rng.choice([0, 0.3, 1], (count, 1), p=[0.6, 0.3, 0.1])
        inputs[name] = np.where(rng.random((count, 8)) < frequency, np.uint8(8), codes)
    limits = {"activation_meta": 8 if exponent else 4, "meta": 8 if exponent else 4}
    if special:
        limits |= {"activation_special": 4, "weight_special": 4}
    return inputs | {name: rng.integers(0, limit, count, np.uint8)
                     for name, limit in limits.items()}


LARGEST_SUMS = {"elem-em": 131712, "sg-em": 225792, "sg-special": 401408, "sg-special64": 3211264}
"""Magnitudes of the largest group sums by the encoding of the activations, in units of 1/64."""


def group_accumulator(rng: Generator, count: int, *, metadata: bool, depth: int = 3,
                      encoding: str = "elem-em") -> dict[str, Any]:
    """Makes group sums, scale codes and accumulators."""
    # In units of 1/64 or, without metadata, of 1/4.
    largest, scale = (LARGEST_SUMS[encoding], 1) if metadata else (4608, 16)
    bits = largest.bit_length()
    magnitude = rng.integers(0, largest + 1, count) >> rng.integers(0, bits + 1, count)
    total = np.where(rng.random(count) < 0.5, -magnitude, magnitude).astype(np.int32)
    scales = scale_codes(rng, count), scale_codes(rng, count)
    return {"i": {"sum": total, "activation_scale": scales[0], "weight_scale": scales[1],
                  "acc": accumulators(rng, scale * total, *scales)}}


def group_mac(rng: Generator, count: int, *, depth: int = 5,
              encoding: str = "elem-em") -> dict[str, Any]:
    """Makes pairs of records and accumulators."""
    activation, weight = (records(rng, count, wide=encoding == "sg-special64") for _ in range(2))
    # The true sums, so that some accumulators cancel all but a few bits of them.
    total = group_dot(*_groups(activation, weight, encoding))
    return {"i": {"activation": activation, "weight": weight,
                  "acc": accumulators(rng, total, e8m0_codes(activation["scale"], encoding),
                                      e8m0_codes(weight["scale"], encoding))}}


def e8m0_codes(scales: np.ndarray, encoding: str) -> np.ndarray:
    """E8M0 codes of the scale bytes of records."""
    return split_scales(scales)[0] if encoding in SPECIAL_ENCODINGS else scales


def _groups(activation, weight, encoding):
    """Records as matrices of one group a row."""
    return [Quantized(kind=kind, encoding=how, shape=record["elements"].shape,
                      elements=record["elements"], metadata=record["metadata"],
                      group=record["elements"].shape[1], scales=record["scale"][:, None])
            for kind, how, record in (
                ("activation", encoding, activation),
                ("weight", encoding if encoding in SPECIAL_ENCODINGS else "sg-em", weight))]


def scale_codes(rng: Generator, count: int) -> np.ndarray:
    """Makes scale codes: mostly moderate, often extreme, sometimes NaN."""
    moderate = rng.integers(100, 150, count, np.uint8)
    extreme = rng.choice(np.array([0, 1, 2, 3, 64, 190, 251, 252, 253, 254], np.uint8), count)
    anything = rng.integers(0, 256, count, np.uint8)
    kind = rng.random(count)
    return np.where(kind < 0.5, moderate, np.where(kind < 0.7, extreme, anything))


def records(rng: Generator, count: int, *, wide: bool = False) -> dict[str, np.ndarray]:
    """Makes group records: random codes, some sparse, some of the largest magnitude.

    If ``wide`` they are those of Sg-special64.
    """
    group, largest_metadata = (64, 7) if wide else (32, 3)
    elements = rng.integers(0, 16, (count, group), np.uint8)
    elements[rng.random((count, group)) < rng.choice([0, 0.5, 0.95], (count, 1))] &= 8
    metadata = rng.integers(0, largest_metadata + 1, (count, group // 8), np.uint8)
    largest = rng.random((count, 1)) < 0.05
    record = {"elements": np.where(largest, elements | 7, elements),
              "metadata": np.where(largest, largest_metadata, metadata).astype(np.uint8),
              "scale": scale_codes(rng, count)}
    return record


def accumulators(rng: Generator, total: np.ndarray, activation_scale: np.ndarray,
                 weight_scale: np.ndarray) -> np.ndarray:
    """Makes float32 bits of accumulators near the magnitude of the term that is added.

    A third of them cancel most of the term. Some are zeros, infinities, NaN or random bits.
    """
    count = len(total)
    exponent = activation_scale.astype(np.int32) + weight_scale.astype(np.int32) - 260
    with np.errstate(over="ignore"):
        near = np.ldexp(-total * (1 + rng.standard_normal(count) * 2.0**-20),
                        exponent + rng.integers(-1, 2, count)).astype(np.float32)
        apart = np.ldexp(rng.standard_normal(count),
                         exponent + rng.integers(-30, 48, count)).astype(np.float32)
    special = rng.choice(np.array([0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001,
                                   1, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF],
                                  np.uint32), count)
    anything = rng.integers(0, 1 << 32, count, np.uint32)
    kind = rng.random(count)
    return np.select([kind < 0.35, kind < 0.7, kind < 0.85],
                     [near.view(np.uint32), apart.view(np.uint32), special], anything)


def groups(rng: Generator, count: int, size: int = 32) -> np.ndarray:
    """Makes float32 groups: heavy tails at all scales, ties, zeros, subnormals, NaN, Inf."""
    kind = rng.random((count, 1))
    exponent = np.select([kind < 0.4, kind < 0.6, kind < 0.7],
                         [rng.integers(-10, 10, (count, 1)),
                          rng.integers(-149, -120, (count, 1)),
                          rng.integers(120, 128, (count, 1))], rng.integers(-140, 125, (count, 1)))
    tails = rng.standard_t(2, (count, size))
    # Sixteenths hit every tie of E2M1 and E2M3.
    ties = rng.integers(-128, 129, (count, size)) / 16
    mantissas = np.where(rng.random((count, 1)) < 0.5, tails, ties)
    mantissas *= rng.random((count, size)) > rng.choice([0, 0.5, 0.97, 1], (count, 1))
    with np.errstate(over="ignore"):
        x = np.ldexp(mantissas, exponent).astype(np.float32)
    # Neighbours of ties, one unit in the last place away.
    nudged = (x.view(np.uint32) + rng.integers(-1, 2, x.shape).astype(np.uint32)).view(np.float32)
    x = np.where((rng.random(x.shape) < 0.2) & (x != 0), nudged, x)
    bad = rng.random((count, 1)) < 0.04
    return np.where(bad & (rng.random(x.shape) < 0.1),
                    rng.choice(np.array([np.nan, np.inf, -np.inf], np.float32), x.shape), x)


def mac_array(rng: Generator, count: int, *, columns: int, weight_width: int, metadata: bool,
              depth: int = 5, encoding: str = "elem-em") -> dict[str, Any]:
    """Makes tiles of weights, activations and accumulators."""
    # Tiles of very different lengths; the last one may stay.
    last = (rng.random(count) < rng.choice([0.02, 0.3, 1], count)).astype(np.uint8)
    wide = encoding == "sg-special64"
    activation = records(rng, count, wide=wide)
    tiles = int(last[:-1].sum()) + 1
    weight = records(rng, tiles * columns, wide=wide)
    # Accumulators near the term of each column, of which some cancel all but a few bits.
    lengths = np.bincount(np.cumsum(last) - last, minlength=tiles)
    scales = np.repeat(e8m0_codes(weight["scale"], encoding).reshape(tiles, columns), lengths,
                       axis=0)
    x, w = (element_integers(quantized).astype(np.int32)
            for quantized in _groups(activation, weight, encoding))
    total = np.concatenate([rows @ tile.T for rows, tile in zip(
        np.split(x, np.cumsum(lengths)[:-1]), w.reshape(tiles, columns, -1), strict=True)])
    acc = accumulators(rng, total.reshape(-1),
                       np.repeat(e8m0_codes(activation["scale"], encoding), columns),
                       scales.reshape(-1))
    if not metadata:
        del activation["metadata"], weight["metadata"]
    transfers = {name: plane.reshape(-1, weight_width, *plane.shape[1:])
                 for name, plane in weight.items()}
    return {"i_weight": transfers, "i_activation": {"record": activation, "last": last},
            "i_acc": acc.reshape(count, columns)}


def nvfp4_rows(rng: Generator, count: int, *, groups: int = 2, bits: int = 7,
               selectors: int = 0) -> dict[str, np.ndarray]:
    """Makes rows of groups of NVFP4: subnormal, zero and NaN scales, far or near each other.

    In a third of the pairs the second group has the first one's scale and magnitudes. Scales have
    ``bits`` bits, and a selector of ``selectors`` bits above them.
    """
    if groups > 2:
        pairs = nvfp4_rows(rng, count * groups // 2, bits=bits, selectors=selectors)
        return {name: plane.reshape(count, -1) for name, plane in pairs.items()}
    # NaN is the uppermost code.
    nan = 2**bits - 1
    elements = rng.integers(0, 16, (count, 32), np.uint8)
    elements[rng.random((count, 32)) < rng.choice([0, 0.5, 0.95], (count, 1))] &= 8
    elements = np.where(rng.random((count, 1)) < 0.1, elements | 7, elements)
    kind = rng.random((count, 2))
    extreme = rng.choice(np.array([0, 1, 7, 8, 9, nan - 2, nan - 1, nan], np.uint8), (count, 2),
                         p=[0.1, 0.2, 0.1, 0.15, 0.05, 0.1, 0.25, 0.05])
    scales = np.select([kind < 0.4, kind < 0.7],
                       [rng.integers(3 * 2**bits // 8, 9 * 2**bits // 16, (count, 2)),
                        rng.integers(0, nan, (count, 2))],
                       extreme).astype(np.uint8)
    same = rng.random(count) < 0.3
    scales[same, 1] = scales[same, 0]
    elements[same, 16:] = elements[same, :16] ^ (8 * rng.integers(0, 2, (same.sum(), 1), np.uint8))
    # Groups that are opposite but for one element.
    off = np.flatnonzero(same & (rng.random(count) < 0.3))
    elements[off, rng.integers(16, 32, len(off))] ^= rng.integers(1, 16, len(off), np.uint8)
    if selectors:
        scales |= rng.integers(0, 2**selectors, scales.shape, np.uint8) << np.uint8(bits)
    return {"elements": elements, "scales": scales}


def nvfp4_operands(encoding: str) -> list[dict[str, int]]:
    """Keywords of `nvfp4_rows` for activations and weights, "nvfp4" or "razer"."""
    return [{}, {}] if encoding == "nvfp4" else [
        {"selectors": 1}, {"bits": 6, "selectors": 2}]


def nvfp4_array(rng: Generator, count: int, *, columns: int, weight_width: int,
                encoding: str = "nvfp4", groups: int = 2) -> dict[str, Any]:
    """Makes tiles of NVFP4 or RaZeR weights, activations and accumulators."""
    of_activations, of_weights = nvfp4_operands(encoding)
    last = (rng.random(count) < rng.choice([0.02, 0.3, 1], count)).astype(np.uint8)
    activation = nvfp4_rows(rng, count, groups=groups, **of_activations)
    tiles = int(last[:-1].sum()) + 1
    weight = nvfp4_rows(rng, tiles * columns, groups=groups, **of_weights)
    # Accumulators near the row's sum of each column, of which some cancel all but a few bits.
    of = np.cumsum(last) - last
    total, _ = row_sums(activation["elements"][:, None],
                        weight["elements"].reshape(tiles, columns, 16 * groups)[of],
                        activation["scales"][:, None],
                        weight["scales"].reshape(tiles, columns, groups)[of], encoding)
    unit = np.full(count * columns, 240, np.uint8), np.zeros(count * columns, np.uint8)
    acc = accumulators(rng, total.reshape(-1), *unit)
    transfers = {name: plane.reshape(-1, weight_width, *plane.shape[1:])
                 for name, plane in weight.items()}
    return {"i_weight": transfers, "i_activation": {"record": activation, "last": last},
            "i_acc": acc.reshape(count, columns)}


def accelerator(rng: Generator, count: int, *, config: str | planner.Config) -> dict[str, Any]:
    """Makes commands with their operands, as streams."""
    chosen = planner.configuration(config)
    commands = products(rng, count, chosen)
    with np.errstate(over="ignore", invalid="ignore"):
        executed = execute(chosen, commands)
    return streams(chosen, commands, executed)[0]


def products(rng: Generator, count: int, config: planner.Config, *,
             largest: int = 2**16) -> list[dict[str, Any]]:
    """Commands for an accelerator, with operands for `golden.accelerator.accelerator.execute`.

    Sizes have all magnitudes up to ``largest`` products of elements, which includes partial tiles
    and operands larger than the buffers. Some commands form chains, and a few cannot run.
    """
    commands: list[dict[str, Any]] = []
    kept = None
    while len(commands) < count:
        # Evenly in the logarithm.
        m, k, n = (int(high ** rng.random()) for high in (80, 80 * config.columns, 200))
        source, result = rng.choice(4, p=[0.35, 0.35, 0.25, 0.05]), rng.choice(
            4, p=[0.35, 0.25, 0.35, 0.05])
        if kept and rng.random() < 0.9:
            (m, k), source = kept, planner.KEPT
        if rng.random() < 0.04:
            n = 0
        if m * k * n > largest:
            continue
        command: dict[str, Any] = {"m": m, "k": k, "n": n, "source": int(source),
                                   "result": int(result)}
        code = planner.check(config, m, k, n, int(source), int(result), kept)
        if code == planner.DONE:
            command["w"] = _matrix(rng, "weight", config.weight_encoding, n, k)
            if source == planner.RECORDS:
                command["a"] = _matrix(rng, "activation", config.encoding, m, k)
            elif source == planner.VALUES and config.input:
                values = groups(rng, -(-m * k // config.group), config.group)
                values = values.reshape(-1)[: m * k].reshape(m, k)
                with np.errstate(over="ignore", invalid="ignore"):
                    command["x"] = values.astype(FLOATS[config.input])
            kept = (m, n) if result == planner.KEEP else None
        commands.append(command)
    return commands


def edges(rng: Generator, config: planner.Config) -> list[dict[str, Any]]:
    """Commands at the limits of an accelerator, with operands where they run.

    The rows are as many as the output buffer holds, one more, or too many for two blocks; the
    groups of a row just fit the activation buffer, or come again for each bundle; the tiles are
    one, or some and a partial one. Others are of any size and cannot run.
    """
    commands: list[dict[str, Any]] = []

    def add(m, k, n, source, result, kept=None):
        code = planner.check(config, m, k, n, source, result, kept)
        command = {"m": m, "k": k, "n": n, "source": source, "result": result}
        if code == planner.DONE:
            command["w"] = _matrix(rng, "weight", config.weight_encoding, n, k)
            if source == planner.RECORDS:
                command["a"] = _matrix(rng, "activation", config.encoding, m, k)
        commands.append(command)

    # The least groups of which the buffer cannot hold as many rows as a tile takes transfers, and
    # one row too many: two bundles then take the activations twice.
    groups = config.activations * config.weight_width // config.columns + 1
    rows = config.activations // groups + 1
    group = config.group
    for m, k, n in ((config.rows, group, 1), (config.rows + 1, group + 1, config.columns),
                    (2 * config.rows + 1, 1, config.columns + 1),
                    (min(config.rows, config.activations), group, 2 * config.columns),
                    (rows, group * groups, config.columns * planner.interleave(rows) + 1),
                    (1, group * 3, 17 * config.columns)):
        add(m, k, n, planner.RECORDS, planner.VALUES_OUT)
    # The third group takes the first away again and leaves the second, 17 bits below.
    add(2, 3 * group, 3, planner.RECORDS, planner.VALUES_OUT)
    elements = np.zeros((2, 3 * group), np.uint8)
    elements[:, :group], elements[:, group + 8], elements[:, 2 * group :] = 7, 4, 15
    commands[-1] |= {
        name: Quantized(kind=kind, encoding=encoding, shape=codes.shape, elements=codes,
                        metadata=np.zeros((len(codes), 3 * group // 8), np.uint8), group=group,
                        scales=np.tile(np.array(scales, np.uint8), (len(codes), 1)))
        for name, kind, encoding, codes, scales in (
            ("a", "activation", config.encoding, elements, (139, 127, 139)),
            ("w", "weight", config.weight_encoding, np.full((3, 3 * group), 2, np.uint8),
             (127, 127, 127)))}
    for _ in range(5):
        m, k, n = (int(value) for value in rng.integers(1, 1 << 20, 3))
        none = int(rng.integers(3))
        add(m * (none != 0), k * (none != 1), n * (none != 2), planner.RECORDS, planner.VALUES_OUT)
        add(m, k, n, 3, planner.VALUES_OUT)
        add(m, k, n, planner.VALUES, 3)
        add(m, k, n, planner.KEPT, planner.KEEP)
        # Too large if results can be kept at all, else no such result.
        add(max(config.rows + 1, m), k, n, planner.RECORDS, planner.KEEP)
        add(1, k | 1 << 19, n, planner.RECORDS, planner.KEEP)
    return commands


def _matrix(rng, kind, encoding, rows, k):
    """Random records as a matrix."""
    group = default_group(encoding)
    planes = records(rng, rows * -(-k // group), wide=encoding == "sg-special64")
    return Quantized(kind=kind, encoding=encoding, shape=(rows, k), group=group,
                     elements=planes["elements"].reshape(rows, -1),
                     metadata=planes["metadata"].reshape(rows, -1),
                     scales=planes["scale"].reshape(rows, -1))
