# SPDX-License-Identifier: BSD-2-Clause
"""Compares speed and memory of the codec with others: ``python -m benchmarks.codec``.

The PyTorch engine has the codec's algorithms, written as a researcher would write them, in
operations on whole tensors. The formats are compared with the packages that people would use in
their place: torchao, compressed-tensors and gguf, where they are installed. Runs of all engines
alternate, and the figures are medians. CPU-seconds are those of one thread.
"""

import ctypes
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from golden import Quantized, dequantize, matmul, quantize_activations, quantize_weights
from golden.codec import blocked, kernel
from golden.command import Parser, check_folder, run
from golden.formats import FORMATS
from golden.formats.mxfp4 import quantize_mxfp4
from golden.output import replacing

from . import rivals

THREADED = ("MXFP4", "activations", "weights", "decode activations", "decode weights")
"""Operations that take a number of threads."""

SMALL = 2**20
"""Elements of the smallest tensor whose figures mean something: below, fixed costs count."""

SLOW = 2.0
"""CPU-seconds from which on the first run of an operation is the only one."""


@run
def main(arguments=None):
    """Runs the command; returns 1 if the engines' results differ, else 0."""
    parser = Parser(prog="python -m benchmarks.codec", description=__doc__)
    parser.add_argument("--size", default="4096x4096", metavar="RxK",
                        help="rows and columns of the tensor (default: 4096x4096)")
    parser.add_argument("--threads", type=int, default=2, metavar="N",
                        help="also how much faster N threads are than one (default: 2)")
    parser.add_argument("--runs", type=int, default=5, metavar="N",
                        help="of each operation and engine (default: 5)")
    parser.add_argument("--formats", default="listed", metavar="WHICH",
                        help="rows of formats: 'listed' has those of the catalogue without the "
                             "design space, 'rivals' those that other packages have, 'all' every "
                             "one, which takes long, 'none' none (default: listed)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes all figures")
    options = parser.parse_args(arguments)
    if not (size := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", options.size)):
        parser.error(f"--size must be rows x columns, such as 4096x4096, not {options.size}")
    rows, columns = map(int, size.groups())
    if rows % 16 or columns % 32:
        parser.error("--size must have a multiple of 16 rows and of 32 columns, "
                     f"not {options.size}")
    for name in ("threads", "runs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(options, name)}")
    if options.formats not in ("listed", "rivals", "all", "none"):
        parser.error(f"--formats must be listed, rivals, all or none, not {options.formats}")
    if options.json:
        check_folder(options.json, "--json")

    # The matrix products' own threads would count as CPU-seconds. NumPy reads this when it loads.
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        words = sys.argv[1:] if arguments is None else arguments
        return subprocess.run([sys.executable, "-m", "benchmarks.codec", *words], check=False,
                              env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}).returncode

    engines = {}
    if rows * columns >= blocked.COMPILED_FROM and kernel.load():
        engines["compiled"] = Golden(numpy=False)
    engines["NumPy"] = Golden(numpy=True)
    try:
        engines["torch"] = Torch()
    except ImportError:
        print("PyTorch is not installed (pip install torch): nothing to compare with")
    if small := rows * columns < SMALL:
        print(f"{options.size} is small: fixed costs count, and no ratio below tells anything of "
              f"tensors of {SMALL:,} elements and more. Formats are measured from there on.")
    before = os.environ.get("M2XFP_NUMPY", "")
    x = heavy_tails(rows, columns)
    try:
        results, differing = measure(engines, x, options.runs, options.threads)
    finally:
        os.environ["M2XFP_NUMPY"] = before
    for text in tables(results, engines, options):
        print(text)
    if differing["weights"].get("torch"):
        print(f"torch's weights differ in {differing['weights']['torch']:,} values, as it compares "
              "rounded errors")
    formats = {}
    if not small and options.formats != "none":
        packages, missing = rivals.installed(x)
        formats = measure_formats(x, names_of(options.formats, packages), packages, options.runs)
        print(format_table(formats, missing, x.nbytes))
    if options.json:
        with replacing(options.json) as (file,):
            file.write(json.dumps(
                {"size": [rows, columns], "small": small, "runs": options.runs,
                 "threads": options.threads, "operations": results, "differing": differing,
                 "formats": formats}, indent=2).encode() + b"\n")
    for text in wrong(differing):
        print(f"error: {text}", file=sys.stderr)
    return 1 if any(wrong(differing)) else 0


def heavy_tails(rows, columns):
    """Student's t with 3 degrees of freedom times a lognormal factor per channel, float32."""
    generator = np.random.default_rng(0)
    channels = generator.lognormal(size=columns)
    x = np.empty((rows, columns), np.float32)
    for row in x:
        row[:] = generator.standard_t(3, columns) * channels
    return x


class Golden:
    """The project's own codec, with the compiled kernel or without it."""

    def __init__(self, numpy):
        self.numpy = numpy

    def prepare(self, x, activations, weights, few, some):
        """Operations by name, each of a number of threads; `matmul` multiplies `few` and `some`."""
        planes = weights.pack()
        return {
            "MXFP4": lambda threads: quantize_mxfp4(x, threads=threads),
            "activations": lambda threads: _planes(quantize_activations(x, threads=threads)),
            "weights": lambda threads: _planes(quantize_weights(x, threads=threads)),
            "decode activations": lambda threads: (dequantize(activations, threads=threads),),
            "decode weights": lambda threads: (dequantize(weights, threads=threads),),
            "pack": lambda threads: weights.pack(),
            "unpack": lambda threads: _planes(Quantized.unpack(*planes, kind="weight",
                                                               shape=weights.shape)),
            "matmul": lambda threads: (matmul(few, some),),
        }

    def enter(self):
        """Makes later calls use this engine."""
        os.environ["M2XFP_NUMPY"] = "1" if self.numpy else ""


def _planes(q):
    return q.elements, q.metadata, q.scales


class Torch:
    """The same algorithms in PyTorch, on finite tensors of whole groups, on one thread.

    Errors of weights are compared as float32 rounds them, so that a few groups differ.
    """

    def __init__(self):
        import torch

        self.torch = torch
        torch.set_num_threads(1)
        self.values = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])
        codes = np.maximum(np.arange(32), 1) - 1
        self.refined = torch.from_numpy(np.where(
            codes < 8, codes / 8, (8 + codes % 8) * 2.0 ** (codes // 8 - 4)).astype(np.float32))

    def prepare(self, x, activations, weights, few, some):
        torch = self.torch
        tensor = torch.from_numpy
        x = tensor(x)
        packed = [tensor(np.frombuffer(bytearray(plane), np.uint8)) for plane in weights.pack()]
        activations, weights, few, some = ([tensor(plane) for plane in _planes(q)]
                                           for q in (activations, weights, few, some))
        return {
            "MXFP4": lambda threads: self.mxfp4(x),
            "activations": lambda threads: self.activations(x),
            "weights": lambda threads: self.weights(x),
            "decode activations": lambda threads: (self.decode_activations(*activations),),
            "decode weights": lambda threads: (self.decode_weights(*weights),),
            "pack": lambda threads: self.pack(*weights),
            "unpack": lambda threads: self.unpack(*packed, len(x)),
            "matmul": lambda threads: (self.matmul(few, some),),
        }

    def enter(self):
        pass

    def scaled(self, x):
        """Scale codes, and magnitudes in their units, by group."""
        torch = self.torch
        groups = x.reshape(-1, 32).abs()
        amax = groups.amax(-1)
        exponent = torch.frexp(amax).exponent - 1
        scales = torch.where(amax > 0, exponent - 2 + 127, 0).clamp(0, 254)
        return scales, torch.ldexp(groups, 127 - scales[:, None])

    def round(self, v, mantissa):
        """E2M1 or E2M3 codes."""
        torch = self.torch
        exponent = (v >= 2).int() + (v >= 4).int()
        codes = torch.round(torch.ldexp(v, mantissa - exponent)) + (exponent << mantissa)
        return codes.clamp(max=2 ** (mantissa + 2) - 1).to(torch.uint8)

    def signed(self, x, codes):
        return codes.reshape(x.shape) | x.signbit().to(self.torch.uint8) << 3

    def mxfp4(self, x):
        scales, v = self.scaled(x)
        return (self.signed(x, self.round(v, 1)),
                scales.to(self.torch.uint8).reshape(len(x), -1))

    def activations(self, x):
        torch = self.torch
        scales, v = self.scaled(x)
        codes = self.round(v, 1).reshape(-1, 8)
        lane = codes.argmax(-1, keepdim=True)
        refined = self.round(v.reshape(-1, 8).gather(-1, lane), 3).int()
        first = 4 * codes.gather(-1, lane).int()
        metadata = (refined + 1).clamp(first, first + 3) - first
        return (self.signed(x, codes), metadata.to(torch.uint8).reshape(len(x), -1),
                scales.to(torch.uint8).reshape(len(x), -1))

    def weights(self, x):
        torch = self.torch
        start, v = self.scaled(x)
        v = v.reshape(len(start), 4, 8)
        best = torch.full((len(start),), torch.inf)
        scales, codes = start, torch.zeros(v.shape, dtype=torch.uint8)
        metadata = torch.zeros(v.shape[:2], dtype=torch.uint8)
        for bias in (-1, 0, 1):
            least = torch.full(v.shape[:2], torch.inf)
            tried, factors = torch.zeros_like(codes), torch.zeros_like(metadata)
            for k in range(4):
                step = 2.0**bias * (4 + k) / 4
                candidate = self.round(v / step, 1)
                error = (v - self.values[candidate.long()] * step).square().sum(-1)
                better = error < least
                least = torch.where(better, error, least)
                tried = torch.where(better[..., None], candidate, tried)
                factors = torch.where(better, k, factors)
            error = least.sum(-1)
            better = (error < best) & (start + bias >= 0) & (start + bias <= 254)
            best = torch.where(better, error, best)
            scales = torch.where(better, start + bias, scales)
            codes = torch.where(better[:, None, None], tried, codes)
            metadata = torch.where(better[:, None], factors, metadata)
        return (self.signed(x, codes), metadata.to(torch.uint8).reshape(len(x), -1),
                scales.to(torch.uint8).reshape(len(x), -1))

    def decode_weights(self, elements, metadata, scales):
        torch = self.torch
        factors = torch.ldexp(1 + metadata.reshape(-1, 4) / 4, scales.reshape(-1, 1).int() - 127)
        return (self.values[elements.long()].reshape(-1, 4, 8) * factors[..., None]).reshape(
            elements.shape)

    def decode_activations(self, elements, metadata, scales):
        torch = self.torch
        codes = elements.reshape(-1, 8)
        lane = (codes & 7).argmax(-1, keepdim=True)
        top = codes.gather(-1, lane)
        refined = self.refined[4 * (top & 7).long() + metadata.reshape(-1, 1)]
        values = self.values[codes.long()]
        values.scatter_(-1, lane, torch.where(top >= 8, -refined, refined))
        factors = torch.exp2(scales.reshape(-1, 1).float() - 127)
        return (values.reshape(-1, 32) * factors).reshape(elements.shape)

    def pack(self, elements, metadata, scales):
        packed = (elements[:, 0::2] | elements[:, 1::2] << 4,
                  metadata[:, 0::4] | metadata[:, 1::4] << 2 | metadata[:, 2::4] << 4
                  | metadata[:, 3::4] << 6, scales)
        return tuple(plane.numpy().tobytes() for plane in packed)

    def unpack(self, elements, metadata, scales, rows):
        def codes(plane, width):
            parts = [plane >> shift & 2**width - 1 for shift in range(0, 8, width)]
            return self.torch.stack(parts, -1).reshape(rows, -1)

        return codes(elements, 4), codes(metadata, 2), scales.reshape(rows, -1).clone()

    def matmul(self, a, w):
        a, w = self.decode_activations(*a), self.decode_weights(*w)
        acc = self.torch.zeros(len(a), len(w))
        for k in range(0, a.shape[1], 32):
            acc += a[:, k: k + 32] @ w[:, k: k + 32].T
        return acc


def measure(engines, x, runs, threads):
    """Figures by operation and engine, and the numbers of values in which engines differ."""
    operands = (x, quantize_activations(x), quantize_weights(x),
                quantize_activations(x[: len(x) // 16]), quantize_weights(x[: len(x) // 4]))
    prepared = {name: engine.prepare(*operands) for name, engine in engines.items()}
    names = list(prepared["NumPy"])
    preferred = next(iter(engines))
    results, differing = {}, {}
    with tqdm(total=len(names) * (runs + 1), leave=False, disable=None) as bar:
        for operation in names:
            bar.set_description(operation)
            calls = {name: prepared[name][operation] for name in engines}
            figures, differing[operation] = _first_runs(engines, calls)
            bar.update()

            variants = [(name, 1) for name in engines]
            if threads > 1 and operation in THREADED:
                variants.append((preferred, threads))
            times = {variant: [] for variant in variants}
            for _ in range(runs):
                for name, count in variants:
                    engines[name].enter()
                    times[name, count].append(_timed(calls[name], count))
                bar.update()
            medians = {variant: [statistics.median(column) for column in zip(*all, strict=True)]
                       for variant, all in times.items()}
            # A product of matrices counts its multiplications.
            count = x.size // 16 * (len(x) // 4) if operation == "matmul" else x.size
            for name in engines:
                cpu, wall = medians[name, 1]
                figures[name] |= {"cpu_s": cpu, "wall_s": wall,
                                  "elements_per_cpu_s": count / max(cpu, 1e-9)}
            if threads > 1 and operation in THREADED:
                figures[preferred]["threads_speedup"] = (
                    medians[preferred, 1][1] / medians[preferred, threads][1])
            results[operation] = figures
    return results, differing


def _first_runs(engines, calls):
    """Runs each engine once: its peak memory, and the number of values that differ."""
    figures, differing, expected = {}, {}, None
    for name, engine in engines.items():
        engine.enter()
        result, memory = peak(calls[name])
        figures[name] = {"peak_extra_bytes": memory}
        if expected is None:
            expected = result
        else:
            differing[name] = sum(int((_flat(a) != _flat(b)).sum())
                                  for a, b in zip(expected, result, strict=True))
    return figures, differing


def _flat(plane):
    """Bits of a plane, so that NaN and -0 are compared, too."""
    if isinstance(plane, bytes):
        return np.frombuffer(plane, np.uint8)
    array = np.asarray(plane)
    return array.view(f"u{array.itemsize}").reshape(-1)


def _timed(call, threads):
    """CPU and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = call(threads)
    taken = time.process_time() - cpu, time.perf_counter() - wall
    del result
    return taken


def peak(call):
    """Result of a call, and its peak memory in bytes beyond the result.

    The memory is None on systems other than Linux.
    """
    try:
        gc.collect()
        # Memory that the allocator holds would hide allocations from it.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
    except (OSError, AttributeError, TypeError):
        return call(1), None
    result = call(1)
    size = sum(len(plane) if isinstance(plane, bytes) else plane.nbytes for plane in result)
    return result, max(0, _status("VmHWM") - before - size)


def _status(field):
    """A figure of /proc/self/status in bytes."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"^{field}:\s*(\d+) kB", text, re.M)[1])


def names_of(which, packages):
    """Names of the formats whose rows are wanted."""
    if which == "rivals":
        return [name for name in FORMATS if any(name in calls for calls in packages.values())]
    return [name for name in FORMATS
            if which == "all" or not name.startswith(("Elem-EM", "Sg-EM", "Sg-EE"))]


def measure_formats(x, names, packages, runs):
    """CPU-seconds and peak memory of formats, here and in other packages.

    Parameters
    ----------
    x : float32 array, shape (rows, K)
    names : list of str
        Formats.
    packages : dict of str to dict
        As `rivals.installed` gives them.
    runs : int

    Returns
    -------
    dict
        By format, by package ("golden" is this one) and by operation ("quantize", "dequantize"):
        "cpu_s", the median, "runs", and "peak_extra_bytes".
    """
    results = {}
    with tqdm(total=len(names), leave=False, disable=None) as bar:
        for name in names:
            bar.set_description(name)
            form = FORMATS[name]
            pairs = {"golden": (partial(form.quantize, x), form.dequantize)}
            pairs |= {rivals.NOT_THE_SAME.get((package, name), package): calls[name]
                      for package, calls in packages.items() if name in calls}
            kept = {}
            quantized = _measure({key: pair[0] for key, pair in pairs.items()}, runs, kept)
            decoded = _measure({key: partial(pair[1], kept[key]) for key, pair in pairs.items()},
                               runs, {})
            results[name] = {key: {"quantize": quantized[key], "dequantize": decoded[key]}
                             for key in pairs}
            bar.update()
    return results


def _measure(calls, runs, kept):
    """Figures of calls without an argument, by name; ``kept`` gets their results."""
    figures, times = {}, {name: [] for name in calls}
    for name, call in calls.items():
        def once(threads, name=name, call=call):
            kept[name] = call()
            return rivals.arrays_of(kept[name])

        cpu = time.process_time()
        _, memory = peak(once)
        times[name].append(time.process_time() - cpu)
        figures[name] = {"peak_extra_bytes": memory}
    slow = {name for name, taken in times.items() if taken[0] > SLOW}
    for name in calls.keys() - slow:
        # The first run may compile and load.
        times[name].clear()
    for _ in range(runs):
        for name, call in calls.items():
            if name not in slow:
                times[name].append(_timed(lambda threads, call=call: call(), 1)[0])
    for name, taken in times.items():
        figures[name] |= {"cpu_s": statistics.median(taken), "runs": len(taken)}
    return figures


def format_table(results, missing, size):
    """A row for each format, and for each package that has it."""
    lines = ["formats: CPU-seconds of one thread, times those of golden, peak memory over input",
             f"{'format':<28}{'package':<20}" + "".join(
                 f"{head:>11}" for head in ("quantize", "times", "peak", "dequantize", "times",
                                            "peak"))]

    def cells(figure, ours):
        memory = figure["peak_extra_bytes"]
        return (f"{figure['cpu_s']:>11.4f}{figure['cpu_s'] / max(ours['cpu_s'], 1e-9):>11.1f}"
                + (f"{memory / size:>11.2f}" if memory is not None else f"{'-':>11}"))

    for name, packages in results.items():
        for package, figures in packages.items():
            lines.append(f"{name:<28}{package:<20}" + "".join(
                cells(figures[operation], packages["golden"][operation])
                for operation in ("quantize", "dequantize")))
    if missing:
        lines.append(f"not installed: {', '.join(missing)} (pip install 'm2xfp-rtl[bench]')")
    return "\n".join(lines) + "\n"


def tables(results, engines, options):
    """Yields the figures and the comparison with PyTorch as texts."""
    names = list(engines)
    given = int(np.prod([int(n) for n in options.size.split("x")])) * 4

    def table(title, names, cell, width=10):
        rows = [f"{title:<20}" + "".join(f"{name:>{width}}" for name in names)]
        for operation, figures in results.items():
            rows.append(f"{operation:<20}" + "".join(
                f"{cell(operation, figures, name):>{width}}" for name in names))
        return "\n".join(rows) + "\n"

    def memory(operation, figures, name):
        taken = figures[name]["peak_extra_bytes"]
        return "-" if taken is None else f"{taken / given:.2f}"

    yield (f"{options.size} float32, Student's t times a lognormal per channel; "
           f"medians of {options.runs} run{'s' * (options.runs > 1)}\n")
    yield table("million/CPU-second", names,
                lambda _, f, name: f"{f[name]['elements_per_cpu_s'] / 1e6:,.0f}")
    yield table("wall seconds", names, lambda _, f, name: f"{f[name]['wall_s']:.4f}")
    yield table("peak/input", names, memory)
    preferred = names[0]
    if options.threads > 1:
        yield f"{options.threads} threads instead of one, {preferred}, wall time: " + ", ".join(
            f"{operation} {figures[preferred]['threads_speedup']:.2f}x"
            for operation, figures in results.items() if operation in THREADED) + "\n"
    if "torch" in engines:
        yield table("times torch", names[:-1], lambda _, f, name: "{:.1f}".format(
            f["torch"]["cpu_s"] / max(f[name]["cpu_s"], 1e-9)))


def wrong(differing):
    """Yields a text for each difference between engines that must not be."""
    for operation, names in differing.items():
        for name, count in names.items():
            if count and not (name == "torch" and operation == "weights"):
                yield f"{operation}: {name} differs in {count} values"


if __name__ == "__main__":
    sys.exit(main())
