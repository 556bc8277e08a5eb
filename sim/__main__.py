"""Commands that simulate: ``python -m sim {lockstep,cosim}``."""

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hw.command import Parser
from hw.registry import UNITS, build, parameters

from . import compiled, smollm2
from .bench import SimulationError, mismatches, run
from .compiled import ENGINES, compiler
from .lockstep import lockstep
from .payload import length


def main(arguments=None):
    parser = Parser(prog="python -m sim", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser(
        "lockstep", help="a real layer through quantization engine and dot-product unit")
    command.add_argument("--tokens", type=int, default=32, metavar="M",
                         help="rows of activations, 1 to 32 (default: 32)")
    command.add_argument("--rows", type=int, default=16, metavar="N",
                         help="rows of weights, 1 to 256 (default: 16)")
    _add_common(command)
    command.set_defaults(act=_lockstep)

    command = commands.add_parser("cosim", help="units against their golden twins, random stimuli")
    command.add_argument("units", nargs="*", metavar="UNIT", help="default: all")
    command.add_argument("--count", type=int, metavar="N",
                         help="transfers per unit (default: 500, but only a few of an array on "
                              "Amaranth's simulator)")
    command.add_argument("--set", action="append", default=[], metavar="PARAM=VALUE",
                         dest="settings", help="parameter of the unit, one unit only")
    _add_common(command)
    command.set_defaults(act=_cosim)

    options = parser.parse_args(arguments)
    try:
        if not 0 <= options.stalls < 1:
            raise ValueError(f"--stalls must be at least 0 and below 1, not {options.stalls}")
        if options.vcd and not options.vcd.parent.is_dir():
            raise ValueError(f"--vcd must lie in a folder that exists, not {options.vcd.parent}")
        return options.act(options)
    except (OSError, ValueError, SimulationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _add_common(command):
    command.add_argument("--stalls", type=float, default=0.0, metavar="P",
                         help="probability that an end of a stream pauses (default: 0)")
    command.add_argument("--seed", type=int, default=0, help="of stimuli and stalls (default: 0)")
    command.add_argument("--engine", default="auto", choices=("auto", "amaranth", *ENGINES),
                         help="simulator; auto compiles where that pays (default: auto)")
    command.add_argument("--vcd", type=Path, metavar="FILE",
                         help="write waveforms; with several units, to FILE's name with the "
                              "unit's name before the ending")


def _lockstep(options):
    data = smollm2.load()
    for name, value, most in (("--tokens", options.tokens, len(data.activations)),
                              ("--rows", options.rows, len(data.weights))):
        if not 1 <= value <= most:
            raise ValueError(f"{name} must be within 1 and {most}, not {value}")
    return report_lockstep(data, tokens=options.tokens, rows=options.rows, stalls=options.stalls,
                           seed=options.seed, vcd=options.vcd, engine=options.engine)


def report_lockstep(data, *, tokens, rows, stalls=0.0, seed=0, vcd=None, engine="auto"):
    """Runs a slice's first tokens and rows in lockstep and prints the outcome.

    Returns
    -------
    int
        Exit status: 0 without mismatches.
    """
    activations, weights = data.activations[:tokens], data.weights[:rows]
    print(f"SmolLM2-135M, {data.tensor}: {tokens} tokens x {rows} rows x K = "
          f"{activations.shape[1]} (reference: dequantized Q4_1)")
    bars = {}

    def progress(unit, received, total):
        if unit not in bars:
            bars[unit] = tqdm(total=total, desc=unit, unit="group", disable=None, leave=False)
        bars[unit].update(received - bars[unit].n)

    result = lockstep(activations, weights, stalls=stalls, seed=seed, engine=engine,
                      progress=progress,
                      vcd=vcd and [_vcd_of(vcd, unit) for unit in
                                   ("quantization_engine", "group_mac")])
    for bar in bars.values():
        bar.close()

    print(f"  quantization_engine: {result.groups} groups, "
          f"{result.group_mismatches} mismatches against golden")
    print(f"  group_mac: {result.products} group dot products, "
          f"{result.product_mismatches} mismatches against golden")
    print("  squared error over float's squares   activations   weights   output")
    for name, errors in result.errors.items():
        x, w, y = errors
        print(f"    {name:<33}{x:>13.5f}{w:>10.5f}{y:>9.5f}")
    return 1 if result.group_mismatches or result.product_mismatches else 0


def _cosim(options):
    names = options.units or list(UNITS)
    if options.settings and len(names) != 1:
        raise ValueError(f"--set must come with one unit, not {len(names)}")
    if options.count is not None and options.count < 1:
        raise ValueError(f"--count must be at least 1, not {options.count}")
    chosen = {name: parameters(name, options.settings) for name in names}
    failed = 0
    for name in names:
        unit = UNITS[name]
        count = _count(name, chosen[name], options)
        inputs = unit.stimuli(np.random.default_rng(options.seed), count, **chosen[name])
        expected = unit.twin(inputs, **chosen[name])
        counts = {port: length(rows) for port, rows in expected.items()}
        total = sum(counts.values())
        engine = compiled.preferred(options.engine, options.vcd) if unit.hierarchical \
            else options.engine
        with tqdm(total=total, desc=name, disable=None, leave=False) as bar:
            outputs = run(build(name, options.settings), inputs,
                          outputs=count if set(counts.values()) == {count} else counts,
                          stalls=options.stalls, seed=options.seed, engine=engine,
                          vcd=options.vcd and _vcd_of(options.vcd, name, alone=len(names) == 1),
                          progress=lambda received, bar=bar: bar.update(received - bar.n))
        wrong = np.flatnonzero(mismatches(outputs, expected))
        first = f", the first is transfer {wrong[0]}" if len(wrong) else ""
        print(f"{name}: {count} transfers, {len(wrong)} mismatches{first}")
        failed += bool(len(wrong))
    return 1 if failed else 0


def _count(name, chosen, options):
    """Transfers of a unit unless told: as many as take seconds."""
    if options.count is not None:
        return options.count
    tiles = UNITS[name].tiles
    slow = options.engine == "amaranth" or options.vcd or not compiler()
    if not tiles or not slow:
        return 500
    # With the tiles grows the time of a cycle, and the number of cycles that new weights take,
    # which every other transfer asks for.
    return min(500, max(1, 2**17 // tiles(**chosen) ** 2))


def _vcd_of(path, unit, *, alone=False):
    return path if alone else path.with_name(f"{path.stem}.{unit}{path.suffix}")


if __name__ == "__main__":
    sys.exit(main())
