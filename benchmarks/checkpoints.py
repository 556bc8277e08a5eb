# SPDX-License-Identifier: BSD-2-Clause
"""Measures the conversion of a large checkpoint: ``python -m benchmarks.checkpoints``.

A checkpoint of bfloat16 is made, of the weights of a language model, and converted by
``python -m golden convert`` in processes of their own: with one thread, with one per processor, and
by another version of the project if one is named. Runs alternate, and figures are medians.
CPU-seconds are those of the whole process, of user and system.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from golden.checkpoint.planes import cores
from golden.command import Failure, Parser, run

SHAPES = {"self_attn.q_proj": (2048, 2048), "self_attn.o_proj": (2048, 2048),
          "mlp.up_proj": (8192, 2048), "mlp.down_proj": (2048, 8192)}
"""Weights of a block."""


@run
def main(arguments=None):
    """Runs the command; returns 1 if two runs wrote different planes, else 0."""
    parser = Parser(prog="python -m benchmarks.checkpoints", description=__doc__)
    parser.add_argument("--size", type=int, default=2048, metavar="MIB",
                        help="of the checkpoint, in MiB, at least 64 (default: 2048)")
    parser.add_argument("--runs", type=int, default=3, metavar="N",
                        help="of each, after one that is not counted (default: 3)")
    parser.add_argument("--threads", type=int, default=max(2, cores()), metavar="N",
                        help="beside one (default: one per processor, at least two)")
    parser.add_argument("--other", type=Path, metavar="DIR",
                        help="folder of another version of the project, to compare with")
    parser.add_argument("--folder", type=Path, metavar="DIR",
                        help="where there is place for the files (default: that of temporary ones)")
    options = parser.parse_args(arguments)
    for name, least in ("size", 64), ("runs", 1), ("threads", 2):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, not {getattr(options, name)}")
    if options.other and not (options.other / "golden" / "__main__.py").is_file():
        parser.error(f"--other must hold the package golden, not {options.other}")
    here = Path(__file__).parents[1]
    commands = {"one thread": (here, ["--threads", "1"]),
                f"{options.threads} threads": (here, ["--threads", str(options.threads)])}
    if options.other:
        commands[str(options.other)] = options.other.resolve(), []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        size = make(Path(folder) / "in", options.size)
        results, planes = measure(commands, Path(folder), options.runs)
    print(table(size, results))
    if len(set(planes.values())) > 1:
        print("error: the planes differ", file=sys.stderr)
        return 1
    return 0


def make(path, mib):
    """Writes a checkpoint of at least a number of MiB; returns its weights' bytes."""
    weights, size = {}, 0
    while size < mib * 2**20:
        block = len(weights) // len(SHAPES)
        for name, shape in SHAPES.items():
            weights[f"model.layers.{block}.{name}.weight"] = {
                "dtype": "BF16", "shape": list(shape),
                "data_offsets": [size, size := size + 2 * shape[0] * shape[1]]}
            if size >= mib * 2**20:
                break
    header = json.dumps(weights).encode()
    generator = np.random.default_rng(0)
    with path.open("xb") as file, tqdm(total=size, unit="B", unit_scale=True, leave=False,
                                       desc="checkpoint", disable=None) as bar:
        file.write(len(header).to_bytes(8, "little") + header)
        for weight in weights.values():
            values = generator.standard_normal(weight["shape"], np.float32)
            values *= np.float32(0.02)
            # The upper half of float32.
            file.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())
            bar.update(2 * values.size)
    return size


def measure(commands, folder, runs):
    """CPU-seconds and seconds of each run by command, and a digest of what each wrote."""
    results = {name: [] for name in commands}
    planes = {}
    with tqdm(total=(runs + 1) * len(commands), leave=False, desc="runs", disable=None) as bar:
        for count in range(runs + 1):
            for name, (project, options) in commands.items():
                figures = _run(project, options, folder)
                planes[name] = _digests(folder / "out")
                # The first run compiles the kernel and reads the file into memory.
                if count:
                    results[name].append(figures)
                bar.update()
    return results, planes


def _run(project, options, folder):
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "golden", "convert", str(folder / "in"), str(folder / "out"),
         *options], cwd=folder, env=os.environ | {"PYTHONPATH": str(project)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    seconds, after = time.perf_counter() - start, os.times()
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise Failure(f"golden convert of {project} failed: {last}")
    cpu = (after.children_user - before.children_user
           + after.children_system - before.children_system)
    return {"cpu": cpu, "wall": seconds}


def _digests(path):
    manifest = json.loads(path.with_name(f"{path.name}.json").read_bytes())
    return json.dumps({name: entry["planes"] for name, entry in manifest["tensors"].items()})


def table(size, results):
    """The figures as text."""
    first = next(iter(results))
    base = {key: statistics.median(r[key] for r in results[first]) for key in ("cpu", "wall")}
    lines = [f"{size / 2**30:.2f} GiB of bfloat16, medians of {len(results[first])} runs",
             f"{'':<24}{'CPU-s':>8}{'s':>8}{'times sooner than ' + first:>32}"]
    for name, runs in results.items():
        cpu, wall = (statistics.median(run[key] for run in runs) for key in ("cpu", "wall"))
        lines.append(f"{name[-24:]:<24}{cpu:>8.2f}{wall:>8.2f}{base['wall'] / wall:>32.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
