# SPDX-License-Identifier: BSD-2-Clause
"""Commands that simulate.

``python -m sim {lockstep,cosim,coverage,gemm,cycles,layer,perf,generate,perplexity,soak,uart}``.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from golden.accelerator import planner
from golden.command import Failure, Parser, check_output, check_plot
from golden.command import run as as_command
from golden.models import smollm2
from hw.accelerator.planner import SIZE, Status
from hw.registry import (
    UNITS,
    add_settings,
    build,
    each_alone,
    offered,
    parameters,
    select,
    settings_of,
    unique,
)
from hw.tools.files import write
from hw.tools.packing import length
from hw.tools.progress import busy, counting

from . import coverage, evidence, gemm, generate, layer, plot, soak, uart
from .accelerator import golden_config
from .cycles import cycles, scale_sim
from .driver import closed_form
from .engines.build import ENGINES, compiler, preferred
from .engines.waveform import save_file
from .lockstep import lockstep
from .perf import command as perf
from .runner import mismatches, run

_LARGEST = (1 << SIZE) - 1

# Of Amaranth's simulator with a waveform, on one core: cycles times columns of an accelerator, and
# groups or dot products of a lockstep.
_CYCLES_PER_SECOND = 200
_TRANSFERS_PER_SECOND = 30

_SOURCES = {"records": planner.RECORDS, "values": planner.VALUES}
_RESULTS = {"values": planner.VALUES_OUT, "records": planner.RECORDS_OUT}


@as_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see ``--help``. Returns the exit status."""
    parser = Parser(prog="python -m sim", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser(
        "lockstep", help="a layer of a real model through quantization engine and "
                          "dot-product unit")
    command.add_argument("--tokens", type=int, default=32, metavar="M",
                         help="rows of activations, 1 to 32 (default: 32)")
    command.add_argument("--rows", type=int, default=16, metavar="N",
                         help="rows of weights, 1 to 256 (default: 16)")
    _add_common(command)
    command.set_defaults(act=_lockstep)

    command = commands.add_parser(
        "cosim", help="units against their golden references, with random stimuli")
    command.add_argument("units", nargs="*", metavar="UNIT", help="default: all")
    command.add_argument("--count", type=int, metavar="N",
                         help="transfers per unit (default: 500; fewer for an array on "
                              "Amaranth's simulator)")
    command.add_argument("--each", action="store_true",
                         help="also each other value that the registry offers, with defaults of "
                              "the other parameters")
    command.add_argument("--json", type=Path, metavar="FILE",
                         help="also note what was run; what the file has of other units stays")
    add_settings(command)
    _add_common(command)
    command.set_defaults(act=_cosim)

    command = commands.add_parser(
        "coverage", help="lines, branches, toggles and states of units' Verilog that their "
                         "stimuli reach")
    command.add_argument("units", nargs="*", metavar="UNIT", help="default: all, with small arrays")
    command.add_argument("--count", type=int, default=500, metavar="N",
                         help="transfers of each of three rounds; an accelerator runs a tenth as "
                              "commands (default: 500)")
    command.add_argument("--seed", type=int, default=0, help="of the stimuli (default: 0)")
    command.add_argument("--json", type=Path, metavar="FILE",
                         help="also write the figures; what the file has of other units stays")
    add_settings(command)
    command.set_defaults(act=_coverage, stalls=0.0, vcd=None)

    command = commands.add_parser(
        "gemm", help="a product of random matrices on the whole accelerator")
    _add_sizes(command)
    command.add_argument("--source", default="records", choices=_SOURCES,
                         help="activations as group records, or quantized on the way in "
                              "(default: records)")
    command.add_argument("--result", default="values", choices=_RESULTS,
                         help="results as float32, or quantized on the way out "
                              "(default: values)")
    _add_accelerator(command)
    command.set_defaults(act=_gemm)

    command = commands.add_parser(
        "cycles", help="cycles of a product in closed form, next to those of other models")
    _add_sizes(command)
    add_settings(command, parameter="config.FIELD")
    command.set_defaults(act=_cycles, stalls=0.0, vcd=None)

    command = commands.add_parser(
        "layer", help="a real MLP's up and down projection on the whole accelerator")
    command.add_argument("--tokens", type=int, default=32, metavar="M",
                         help="rows of activations, 1 to 32 (default: 32)")
    _add_accelerator(command)
    command.set_defaults(act=_layer)

    command = commands.add_parser(
        "generate", help="a language model that speaks through the accelerator")
    generate.add_generate(command)
    command.set_defaults(act=generate.generate)

    command = commands.add_parser(
        "perplexity", help="a language model's perplexity through the accelerator")
    generate.add_perplexity(command)
    command.set_defaults(act=generate.measure_perplexity)

    command = commands.add_parser(
        "perf", help="what a language model would take on a chip: cycles, traffic and energy")
    perf.add_options(command)
    command.set_defaults(act=perf.act, stalls=0.0, vcd=None)

    command = commands.add_parser(
        "soak", help="random commands on accelerators against golden, for millions of cycles")
    command.add_argument("--cycles", type=int, default=1_000_000, metavar="N",
                         help="cycles of all machines together (default: 1000000)")
    command.add_argument("--config", action="append", default=[], choices=soak.MACHINES,
                         metavar="NAME", help="machine (repeatable): "
                         f"{', '.join(soak.MACHINES)}; default: "
                         f"{', '.join(f'{n} {s} %%' for n, s in soak.SHARES.items())}")
    command.add_argument("--seed", type=int, default=0, help="of all that is random (default: 0)")
    command.add_argument("--minutes", type=float, metavar="N",
                         help="begin nothing after this time")
    command.add_argument("--round", type=int, metavar="N",
                         help="run this one round of one machine, as a mismatch names it")
    command.add_argument("--json", type=Path, metavar="FILE",
                         help="also write what was run, after each minute and at the end")
    command.add_argument("--resume", action="store_true",
                         help="go on from what the file of --json says was run")
    command.set_defaults(act=_soak, stalls=0.0, vcd=None)

    command = commands.add_parser(
        "uart", help="a unit on a board, or on a simulated one, over a serial line")
    uart.add_options(command)
    command.set_defaults(act=uart.act, stalls=0.0, vcd=None)

    options = parser.parse_args(arguments)
    if not 0 <= options.stalls < 1:
        raise ValueError(f"--stalls must be at least 0 and below 1, not {options.stalls}")
    if options.command in ("gemm", "cycles", "layer"):
        # Its text is the name in what is printed.
        words = settings_of(options)
        options.config_name = " ".join([options.config or "paper", *options.set])
        options.config = parameters("accelerator", words)["config"]
    if options.vcd:
        _check_vcd(options.vcd)
    if getattr(options, "plot", None):
        check_plot(options.plot)
    return options.act(options)


def _add_sizes(command):
    for name, help in (("m", "rows of activations"), ("k", "columns of both"),
                       ("n", "rows of weights")):
        command.add_argument(f"--{name}", type=int, required=True, metavar=name.upper(),
                             help=f"{help}, 1 to {_LARGEST}")


def _add_common(command):
    command.add_argument("--stalls", type=float, default=0.0, metavar="P",
                         help="probability that an end of a stream pauses (default: 0)")
    command.add_argument("--seed", type=int, default=0, help="of stimuli and stalls (default: 0)")
    command.add_argument("--engine", default="auto", choices=("auto", "amaranth", *ENGINES),
                         help="simulator; auto compiles where that pays (default: auto)")
    command.add_argument("--vcd", type=Path, metavar="FILE",
                         help="write waveforms; with several units, to FILE's name with the "
                              "unit's name before the ending")


def _add_accelerator(command):
    add_settings(command, parameter="config.FIELD")
    command.add_argument("--plot", type=Path, metavar="FILE",
                         help="draw utilisation and activity over time, as PNG or SVG (extra plot)")
    _add_common(command)


def _lockstep(options):
    data = smollm2.load()
    for name, value, most in (("--tokens", options.tokens, len(data.activations)),
                              ("--rows", options.rows, len(data.weights))):
        if not 1 <= value <= most:
            raise ValueError(f"{name} must be within 1 and {most}, not {value}")
    return report_lockstep(data, tokens=options.tokens, rows=options.rows, stalls=options.stalls,
                           seed=options.seed, vcd=options.vcd, engine=options.engine)


def report_lockstep(data: smollm2.Slice, *, tokens: int, rows: int, stalls: float = 0.0,
                    seed: int = 0, vcd: Path | None = None, engine: str = "auto",
                    processes: int = 1) -> int:
    """Runs the first tokens and rows of a layer in lockstep and prints the outcome.

    Returns
    -------
    int
        Exit status: 0 without mismatches.
    """
    activations, weights = data.activations[:tokens], data.weights[:rows]
    print(f"SmolLM2-135M, {data.tensor}: {tokens} tokens x {rows} rows x K = "
          f"{activations.shape[1]} (reference: dequantized Q4_1)")
    def report(unit, transfers, wrong):
        what = "groups" if unit == "quantization_engine" else "group dot products"
        with tqdm.external_write_mode(file=sys.stdout):
            print(f"  {unit}: {transfers} {what}, {wrong} mismatches against golden", flush=True)

    if vcd:
        _announce(tokens * -(-activations.shape[1] // 32) * (rows + 1), "transfers",
                  _TRANSFERS_PER_SECOND)
    files = [_vcd_of(vcd, unit) for unit in ("quantization_engine", "group_mac")] if vcd else None
    for file in files or ():
        _check_vcd(file)
    with counting("lockstep", "transfer") as count:
        result = lockstep(activations, weights, stalls=stalls, seed=seed, engine=engine, vcd=files,
                          progress=lambda unit, received, total: count(received, total),
                          report=report, processes=processes)
    print("  squared error over float's squares   activations   weights   output")
    for name, errors in result.errors.items():
        x, w, y = errors
        print(f"    {name:<33}{x:>13.5f}{w:>10.5f}{y:>9.5f}")
    return 1 if result.group_mismatches or result.product_mismatches else 0


def _gemm(options):
    sizes = m, k, n = options.m, options.k, options.n
    for name, value in zip("mkn", sizes, strict=True):
        if not 1 <= value <= _LARGEST:
            raise ValueError(f"--{name} must be within 1 and {_LARGEST}, not {value}")
    chosen = golden_config(options.config)
    source, result = _SOURCES[options.source], _RESULTS[options.result]
    # A config without the engine that source or result needs cannot run the command.
    match planner.check(chosen, *sizes, source, result, None):
        case planner.BAD_SOURCE:
            raise ValueError(f"--source must be records with config {options.config_name}, "
                             f"not {options.source}")
        case planner.BAD_RESULT:
            raise ValueError(f"--result must be values with config {options.config_name}, "
                             f"not {options.result}")
    needed, there = gemm.memory(chosen, *sizes, source, result), gemm.physical_memory()
    if there and needed > there / 2:
        raise ValueError(f"--m, --k and --n must be such that operands and streams fit half of "
                         f"this computer's {there / 1e9:.0f} GB, not {m} x {k} x {n}, which takes "
                         f"about {needed / 1e9:,.0f} GB")
    with busy("operands"):
        command = gemm.random_product(*sizes, config=options.config, source=source, result=result,
                                      seed=options.seed)
    title = f"M x K x N = {m} x {k} x {n} on config {options.config_name}"
    print(f"{title}: {options.source} in, {options.result} out", flush=True)
    return _report(_measure([command], options), ["command"], title, options)


def _layer(options):
    mlp = smollm2.load_mlp()
    commands = layer.commands(mlp, tokens=options.tokens, config=options.config)
    kind = golden_config(options.config).input
    print(f"SmolLM2-135M, MLP of layer {mlp.layer}: {options.tokens} tokens on config "
          f"{options.config_name}\n"
          f"  down takes up's result: the model multiplies by its gate in between, which this "
          f"does not\n"
          f"  activations: {kind}{', rounded from float32,' * (kind != 'float32')} quantized on "
          f"the way in")
    measured = _measure(commands, options)
    names = [f"{name} {command['m']} x {command['k']} x {command['n']}"
             for name, command in zip(("up", "down"), commands, strict=True)]
    status = _report(measured, names, f"SmolLM2-135M's MLP, {options.tokens} tokens, on config "
                                      f"{options.config_name}", options)
    if measured.products[1].y is not None:
        errors = layer.errors(mlp, commands[0]["x"], measured.products[1].y)
        print("  squared error over float64's squares: "
              + ", ".join(f"{name} {error:.5f}" for name, error in errors.items()))
    return status


def _measure(commands, options):
    """Runs commands and shows the outputs received in a progress bar."""
    if options.vcd:
        chosen = golden_config(options.config)
        _announce(sum(closed_form(options.config, command) or 0 for command in commands),
                  "cycles", 32 * _CYCLES_PER_SECOND / (chosen.group * chosen.columns))
    with counting(options.command, "output") as progress:
        return gemm.measure(commands, config=options.config, trace=bool(options.plot),
                            engine=options.engine, stalls=options.stalls, seed=options.seed,
                            vcd=options.vcd, progress=progress)


def _announce(number, what, rate):
    """Tells before a waveform that it takes long: it is Amaranth's simulator that writes it.

    The rates were measured on one core of a server.
    """
    seconds = number / rate
    if seconds > 60:
        print(f"note: --vcd is of Amaranth's simulator, which takes about {seconds / 60:,.0f} min "
              f"for {number:,} {what}", file=sys.stderr, flush=True)


def _report(measured, names, title, options):
    """Prints the results of commands and draws the plot asked for; returns the exit status."""
    print(f"  engine {measured.engine}, built or loaded in {measured.build_s:.1f} s")
    starts = [0, *measured.ends[:-1]]
    shares = []
    for name, command, product, start, end in zip(
            names, measured.commands, measured.products, starts, measured.ends, strict=True):
        code = Status(product.code).name
        rows = f"{product.rows:,} rows of results" if product.rows else "result kept"
        share = gemm.utilisation(measured.config, [command], int(end - start))
        shares.append(f"{name}: {100 * share:.1f} %")
        cycles = f", {end - start:,} cycles" if len(names) > 1 else ""
        print(f"  {name}: {code}, {rows}, {product.mismatches} mismatches against golden{cycles}")
    print(f"  {measured.cycles:,} cycles, utilisation {100 * measured.utilisation:.1f} % of "
          f"{measured.peak} MACs per cycle")
    print(f"  simulated in {measured.run_s:.2f} s, "
          f"{measured.cycles / measured.run_s:,.0f} cycles/s")
    if options.plot:
        windows = plot.windows(measured.times, *gemm.tiles(measured.config, measured.commands),
                               cycles=measured.cycles, peak=measured.peak)
        plot.draw(options.plot, windows, ends=measured.ends.tolist(),
                  names=shares if len(shares) > 1 else (),
                  title=f"{title}: utilisation {100 * measured.utilisation:.1f} %")
        print(f"  plot in {options.plot}")
    return 1 if measured.mismatches else 0


def _cycles(options):
    sizes = {name: getattr(options, name) for name in "mkn"}
    for name, size in sizes.items():
        if not 1 <= size <= _LARGEST:
            raise ValueError(f"--{name} must be within 1 and {_LARGEST}, not {size}")
    chosen = golden_config(options.config)
    peak = chosen.group * chosen.columns
    found = {
        "ideal": -(-options.m * options.k * options.n // peak),
        f"this accelerator, {options.config_name}": cycles(options.config, **sizes),
        **{f"SCALE-Sim, {dataflow}": count for dataflow, count
           in scale_sim(**sizes, columns=chosen.columns, rows=chosen.group).items()},
    }
    print(f"M x K x N = {options.m} x {options.k} x {options.n} on "
          f"{chosen.group} x {chosen.columns}")
    width = max(30, *map(len, found)) + 2
    for name, count in found.items():
        share = options.m * options.k * options.n / (peak * count)
        print(f"  {name:<{width}}{count:>15,} cycles, utilisation {share:.4%}")
    return 0


def _soak(options):
    machines = unique(options.config)
    if options.cycles < 1:
        raise ValueError(f"--cycles must be at least 1, not {options.cycles}")
    if options.minutes is not None and not options.minutes > 0:
        raise ValueError(f"--minutes must be above 0, not {options.minutes}")
    if options.round is not None and (options.round < 0 or len(machines) != 1):
        raise ValueError(f"--round must be at least 0, with one --config, not {options.round} "
                         f"with {len(machines)}")
    if options.json:
        check_output(options.json, "--json")
    if not compiler():
        raise Failure("soak needs a C++ compiler: set CXX, or install g++ or clang++")
    if options.resume and not (options.json and options.json.exists()):
        raise ValueError("--resume needs a file that is there, --json FILE")
    if options.round is not None:
        tallies = {machines[0]: soak.Tally()}
        with busy("soak"):
            soak.run_round(machines[0], options.round, options.seed, tallies[machines[0]])
        print(soak.table(tallies))
        return 0
    words = ["python -m sim soak", *(f"--config {name}" for name in machines),
             f"--cycles {options.cycles}", f"--seed {options.seed}"]
    names, digests, before = machines or [*soak.SHARES], {}, None
    if options.json:
        with busy("machines"):
            digests = soak.digests(names)
    if options.resume:
        before = soak.resumed(json.loads(options.json.read_text(encoding="utf-8")), names,
                              options.seed)

    def keep(tallies):
        if options.json:
            found = soak.evidence(tallies, seed=options.seed, words=" ".join(words),
                                  verilog=digests)
            write(options.json, json.dumps(found, indent=1) + "\n")

    with counting("soak", "cycle") as progress:
        tallies = soak.soak(machines, least=options.cycles, seed=options.seed,
                            minutes=options.minutes, before=before, progress=progress, keep=keep)
    keep(tallies)
    print(soak.table(tallies))
    print(f"{sum(tally.cycles for tally in tallies.values()):,} cycles, seed {options.seed}: "
          "every output, status and timed command is golden's")
    return 0


def _coverage(options):
    settings = settings_of(options)
    chosen = select(options.units or offered(), settings, units=offered())
    if options.count < 1:
        raise ValueError(f"--count must be at least 1, not {options.count}")
    if options.json:
        check_output(options.json, "--json")
    missed = 0
    for name in chosen:
        own = settings or coverage.SMALL.get(name, [])
        with counting(f"coverage of {name}", "round") as progress:
            found = coverage.measure(name, own, count=options.count, seed=options.seed,
                                     progress=progress)
        print(coverage.table([found]), flush=True)
        missed += len(found.missed("lines", "branches", "states"))
        if options.json:
            evidence.keep(options.json, [coverage.evidence(
                found, count=options.count, seed=options.seed)])
    print(f"{missed} lines, branches and states are missed and not waived")
    return 1 if missed else 0


def _cosim(options):
    settings = settings_of(options)
    chosen = select(options.units or UNITS, settings)
    if options.count is not None and options.count < 1:
        raise ValueError(f"--count must be at least 1, not {options.count}")
    if options.each and (settings or options.vcd):
        raise ValueError(f"--each must be without --vcd and --set, not with {settings[0]!r}"
                         if settings else "--each must be without --vcd")
    if options.json:
        check_output(options.json, "--json")
    for name in chosen if options.vcd else ():
        _check_vcd(_vcd_of(options.vcd, name, alone=len(chosen) == 1))
    points = [(name, settings) for name in chosen]
    if options.each:
        points = [(name, own) for name in chosen for own in ([], *each_alone(name))]
    failed = 0
    for name, own in points:
        wrong, count = _cosim_one(name, own, options, alone=len(points) == 1)
        first = f", the first is transfer {wrong[0]}" if len(wrong) else ""
        print(f"{' '.join([name, *own])}: {count} transfers, {len(wrong)} mismatches{first}",
              flush=True)
        failed += bool(len(wrong))
        if options.json and not len(wrong):
            words = " ".join(["python -m sim cosim", name, *(f"--set {word}" for word in own),
                              f"--count {count} --stalls {options.stalls} --seed {options.seed}"])
            evidence.keep(options.json, [evidence.head(
                "cosim", command=words, seed=options.seed) | {
                "unit": name, "settings": own, "transfers": count,
                "verilog": evidence.unit_digest(name, own)}])
    return 1 if failed else 0


def _cosim_one(name, settings, options, *, alone):
    """Runs one point; returns the transfers that differ, and the number of all."""
    unit, chosen = UNITS[name], parameters(name, settings)
    count = _count(name, chosen, options)
    inputs = unit.stimuli(np.random.default_rng(options.seed), count, **chosen)
    expected = unit.reference(inputs, **chosen)
    counts = {port: length(rows) for port, rows in expected.items()}
    total = sum(counts.values())
    engine = preferred(options.engine, options.vcd) if unit.hierarchical else options.engine
    with counting(name, "transfer") as progress:
        outputs = run(build(name, settings), inputs,
                      outputs=count if set(counts.values()) == {count} else counts,
                      stalls=options.stalls, seed=options.seed, engine=engine,
                      vcd=options.vcd and _vcd_of(options.vcd, name, alone=alone),
                      progress=lambda received: progress(received, total))
    return np.flatnonzero(mismatches(outputs, expected)), count


def _count(name, chosen, options):
    """Transfers of a unit: those of ``--count``, else so many that the run takes seconds."""
    if options.count is not None:
        return options.count
    tiles = UNITS[name].tiles
    slow = options.engine == "amaranth" or options.vcd or not compiler()
    if not tiles or not slow:
        return 500
    # The time of a cycle grows with the number of tiles, and so does the number of cycles in which
    # new weights load, for every other transfer.
    return min(500, max(1, 2**17 // tiles(**chosen) ** 2))


def _check_vcd(path):
    for file in (path, save_file(path)):
        check_output(file, "--vcd")


def _vcd_of(path, unit, *, alone=False):
    return path if alone else path.with_name(f"{path.stem}.{unit}{path.suffix}")


if __name__ == "__main__":
    sys.exit(main())
