# SPDX-License-Identifier: BSD-2-Clause
"""Kills the commands that write, and spoils their caches: ``python -m tests.kill --help``.

Whatever happens to a command, its outputs are whole or absent, and the same command run again gives
exactly what an undisturbed run gives.
"""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
from tqdm import tqdm

from golden import command, interrupts
from golden.cache import checksum
from hw.tools import cache
from hw.tools.files import write
from tests.support.checkpoints import raw
from tests.support.disturbed import TRACEBACK, Fault, Running, call, run

OUT = "out"
"""Folder of a case's outputs, below that in which it runs."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command that writes.

    Attributes
    ----------
    words : list of str or callable
        Module and arguments; outputs lie below `OUT`.
    before : list of str or callable, optional
        What wrote the outputs that are there beforehand, in half of the points.
    inputs : callable, optional
        Makes the inputs in the current folder.
    mark : str
        The output that vouches for the others: with it, all are of one run.
    cold : tuple of str
        Patterns of entries of the cache that are removed beforehand, so that they are made anew.
    between : callable, optional
        Says whether an output's bytes are those of a run that stopped and goes on.
    varies : callable, optional
        Reduces an output's bytes to what does not vary between runs.
    modules : tuple of str
        What is imported before the command runs.
    """

    words: list[str] | Callable
    before: list[str] | Callable | None = None
    inputs: Callable | None = None
    mark: str = ""
    cold: tuple[str, ...] = ()
    between: Callable = field(default=lambda content: False)
    varies: Callable = field(default=lambda name, content: content)
    modules: tuple[str, ...] = ()


def _checkpoint():
    rng = np.random.default_rng(0)
    raw(Path("in.safetensors"), {
        f"a{i}.weight": ("F32", rng.standard_normal((64, 96)).astype("<f4")) for i in range(3)})


def _large():
    rng = np.random.default_rng(0)
    raw(Path("in.safetensors"), {"a.weight": ("F32", rng.standard_normal((512, 512), "f4"))})


def _shards():
    rng = np.random.default_rng(0)
    Path("in").mkdir()
    names = {}
    for i in range(2):
        names[f"a{i}.weight"] = shard = f"model-0000{i + 1}-of-00002.safetensors"
        raw(Path("in", shard),
            {f"a{i}.weight": ("F32", rng.standard_normal((32, 64)).astype("<f4"))})
    Path("in", "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": names}))
    Path("in", "config.json").write_text('{"hidden_size": 64}')


def _planes():
    _checkpoint()
    return call(["golden", "convert", "in.safetensors", "planes.safetensors"])


def _record(scale=1):
    from golden.models.accuracy import Record
    record = Record(Path(OUT, "accuracy.json"), {"scale": scale})
    for number in range(4):
        if not record.has(f"f{number}"):
            record.add(f"f{number}", scale * number)
    record.save(results=1)


def _begun(content):
    figures = json.loads(content)["figures"]
    return [*figures] == [f"f{number}" for number in range(len(figures))]


def _quantized(seed=0):
    from golden import quantize_weights
    rng = np.random.default_rng(seed)
    quantize_weights(rng.standard_normal((16, 64)).astype("f4")).save(Path(OUT, "q.safetensors"))


def _calibrated(seed=0):
    from golden import quantize_weights
    from golden.checkpoint import planes
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((8, 64)).astype("f4")
    planes.write(Path(OUT, "c.safetensors"), {"w": (values, quantize_weights(values))},
                 {"norm": values[0]}, beside={
                     Path(OUT, "c.safetensors.calibration.json"): b"%d\n" % seed})


def _bitstream(seed=0):
    from hw.boards import __main__ as boards
    from hw.boards.flow import Bitstream
    made = Bitstream(files={".bit": bytes([seed]) * 9000, ".svf": bytes([seed]) * 99},
                     log=f"log {seed}\n", used={}, available={}, fmax=1e6)
    boards._write(made, {"seed": seed}, Path(OUT), "board")


def _kept(*units):
    """What ``python -m hw`` does with the Verilog of a unit."""
    from hw import generate, kit
    for unit in units:
        if not generate.write_kept(unit, Path(OUT)):
            generate.generate_and_keep(unit, Path(OUT))
    kit.bender(Path(OUT))


def _page(number=0):
    from hw.tools.files import write
    write(Path(OUT, "report.html"), f"<p>{number}" * 9999)


def _plot(height=2):
    from matplotlib.figure import Figure

    from golden.output import save_figure
    figure = Figure()
    figure.subplots().plot([0, height])
    save_figure(figure, Path(OUT, "a.png"))


def _figures_alone(name, content):
    """The keys of a benchmark's figures: the figures are times."""
    return json.dumps(sorted(json.loads(content))).encode() if name.endswith(".json") else content


def _without_times(name, content):
    return b"\n".join(line for line in content.splitlines() if b'"synthesis_s"' not in line)


def _without_places(name, content):
    """A waveform without the date of its making, and the folder of its GTKWave file.

    Amaranth's simulator writes the changes of one time in any order.
    """
    lines = content.splitlines()
    return b"\n".join(line for line in sorted(lines) if b"date" not in line
                      and b"[dumpfile" not in line and not line.startswith(b"[*]"))


_GENERATE = ("hw.generate",)
CASES = {
    "hw.generate --axi": Case(
        words=["hw.generate", "decoder", "--axi", "-o", OUT],
        before=["hw.generate", "decoder", "--set", "kind=weight", "--axi", "-o", OUT],
        mark="decoder.json", modules=_GENERATE),
    "hw.generate --split --sram --testbench": Case(
        words=["hw.generate", "decoder", "--split", "--sram", "--testbench", "5",
               "--reset", "async", "--reset-level", "low", "--name", "unit", "-o", OUT],
        before=["hw.generate", "decoder", "--split", "--testbench", "9", "--name", "unit",
                "-o", OUT], mark="unit.json", modules=_GENERATE),
    "hw.generate, two units": Case(
        words=["hw.generate", "top1", "top1_decode", "-o", OUT],
        before=["hw.generate", "top1", "--set", "lanes=4", "-o", OUT], modules=_GENERATE),
    "hw, its files": Case(
        words=lambda: _kept("top1", "top1_decode"),
        before=["hw.generate", "top1", "--set", "lanes=4", "-o", OUT],
        modules=_GENERATE, cold=("files",)),
    "hw.synth --json": Case(
        words=["hw.synth", "top1", "--json", f"{OUT}/a.json"],
        before=["hw.synth", "top1_decode", "--json", f"{OUT}/a.json"], modules=("hw.synth",),
        varies=_without_times),
    "hw.synth --fresh": Case(
        words=["hw.synth", "top1", "--fresh", "--json", f"{OUT}/a.json"],
        before=["hw.synth", "top1_decode", "--json", f"{OUT}/a.json"], modules=("hw.synth",),
        varies=_without_times),
    "hw.synth --power": Case(
        words=["hw.synth", "top1_decode", "--power", "--json", f"{OUT}/a.json"],
        before=["hw.synth", "top1", "--json", f"{OUT}/a.json"], modules=("hw.synth",),
        varies=_without_times),
    "hw.synth --sweep": Case(
        words=["hw.synth", "top1", "--sweep", "lanes=4,8", "--csv", f"{OUT}/a.csv", "--plot",
               f"{OUT}/a.png", "--json", f"{OUT}/a.json"],
        before=["hw.synth", "top1", "--sweep", "lanes=2,4", "--csv", f"{OUT}/a.csv", "--plot",
                f"{OUT}/a.png", "--json", f"{OUT}/a.json"], modules=("hw.synth",),
        varies=_without_times),
    "hw.synth --fpga": Case(
        words=["hw.synth", "top1", "--fpga", "ice40", "--json", f"{OUT}/a.json"],
        before=["hw.synth", "top1_decode", "--json", f"{OUT}/a.json"], modules=("hw.synth",),
        varies=_without_times),
    "hw.synth --report, its page": Case(words=_page, before=lambda: _page(1)),
    "hw.boards, its files": Case(words=_bitstream, before=lambda: _bitstream(1),
                                 mark="board_board.json", modules=("hw.boards.__main__",)),
    "sim cosim --vcd": Case(
        words=["sim", "cosim", "top1", "group_accumulator", "--count", "9", "--vcd",
               f"{OUT}/a.vcd"],
        before=["sim", "cosim", "top1", "--count", "3", "--vcd", f"{OUT}/a.top1.vcd"],
        modules=("sim.__main__",), varies=_without_places),
    "sim perf --export": Case(
        words=["sim", "perf", "--export", f"{OUT}/costs"], modules=("sim.perf.export",)),
    "sim perf --report": Case(
        words=["sim", "perf", "--model", "smollm2-135m", "--sweep", "batch=1,2", "--report",
               f"{OUT}/a.html"],
        before=["sim", "perf", "--model", "smollm2-135m", "--sweep", "batch=1", "--report",
                f"{OUT}/a.html"], modules=("sim.perf.command", "matplotlib.figure")),
    "--plot of all commands, its file": Case(
        words=_plot, before=lambda: _plot(1), modules=("matplotlib.figure",)),
    "sim cosim --engine verilator": Case(
        words=["sim", "cosim", "top1", "--engine", "verilator", "--count", "50"],
        modules=("sim.__main__",), cold=("unit.so",)),
    "sim cosim --engine cxxrtl": Case(
        words=["sim", "cosim", "top1", "--engine", "cxxrtl", "--count", "50"],
        modules=("sim.__main__",), cold=("unit.so",)),
    "golden convert": Case(
        words=["golden", "convert", "in.safetensors", f"{OUT}/a.safetensors", "--verify"],
        before=["golden", "convert", "in.safetensors", f"{OUT}/a.safetensors", "--rule", "ceil"],
        inputs=_checkpoint, mark="a.safetensors.json", modules=("golden.checkpoint.convert",)),
    "golden convert, kernel compiled": Case(
        words=["golden", "convert", "in.safetensors", f"{OUT}/a.safetensors", "--format", "mxfp4"],
        inputs=_large, mark="a.safetensors.json", modules=("golden.checkpoint.convert",),
        cold=("kernel",)),
    "golden convert, folder": Case(
        words=["golden", "convert", "in", f"{OUT}/m"], inputs=_shards,
        modules=("golden.checkpoint.convert",)),
    "golden convert --dequantize": Case(
        words=["golden", "convert", "planes.safetensors", f"{OUT}/a.safetensors", "--dequantize"],
        before=["golden", "convert", "in.safetensors", f"{OUT}/a.safetensors"],
        inputs=_planes, modules=("golden.checkpoint.convert",)),
    "golden accuracy --json, its record": Case(
        words=_record, before=lambda: _record(2), between=_begun,
        modules=("golden.models.accuracy",)),
    "golden calibrate, its files": Case(
        words=_calibrated, before=lambda: _calibrated(1), mark="c.safetensors.json",
        modules=("golden.checkpoint.planes",)),
    "Quantized.save": Case(words=_quantized, before=lambda: _quantized(1)),
    "benchmarks.codec --json": Case(
        words=["benchmarks.codec", "--size", "16x32", "--runs", "1", "--formats", "none", "--json",
               f"{OUT}/a.json"],
        before=lambda: write(Path(OUT, "a.json"), "{}\n"), modules=("benchmarks.codec",),
        varies=_figures_alone),
}
"""Every command that writes, by what its users call it."""

KINDS = ("kill", "time", "tear", "refuse", "short", "damage", "two", "tmpfs")
"""Disturbances: those of `Fault`; an entry of the cache that is damaged; the command twice at once;
and a file system that is full, where one can be mounted."""


@command.run
def main(arguments=None):
    """Command line; see ``--help``. Returns the exit status."""
    parser = command.Parser(
        prog="python -m tests.kill",
        description="Kills commands that write, fills their disk and damages their cache, and says "
                    "whether outputs are whole and the next run gives the same.")
    parser.add_argument("cases", metavar="COMMAND", nargs="*", help="as --list says; default: all")
    parser.add_argument("--kind", metavar="KIND", action="append", choices=KINDS,
                        help=f"only these disturbances, repeatable: {', '.join(KINDS)}")
    parser.add_argument("--points", metavar="N", type=int, default=200,
                        help="points of all commands together (default: 200)")
    parser.add_argument("--seed", metavar="N", type=int, default=0,
                        help="of the choice (default: 0)")
    parser.add_argument("--minutes", metavar="N", type=float,
                        help="stop after this time; what was not tried is said")
    parser.add_argument("--list", action="store_true", help="list the commands, and try none")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as JSON")
    options = parser.parse_args(arguments)
    if os.name != "posix":
        raise ValueError("python -m tests.kill needs POSIX")
    for name in options.cases:
        if name not in CASES:
            raise ValueError(f"COMMAND must be one of {'; '.join(CASES)}, not {name}")
    for name in ("points", "minutes"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name} must be above 0, not {value}")
    if options.list:
        print("\n".join(CASES))
        return
    if options.json:
        command.check_output(options.json, "--json")
    print(f"{options.points} points, seed {options.seed}", flush=True)
    rows = try_all(options.cases or [*CASES], options.kind or KINDS, options.points, options.seed,
                   options.minutes)
    print(table(rows))
    wrong = [*filter(_is_wrong, rows)]
    for row in wrong:
        print(f"{row['case']}: {row['point']}: {row['verdict']}")
    if options.json:
        write(options.json, json.dumps({"seed": options.seed, "points": rows}, indent=1) + "\n")
    if wrong:
        raise command.Failure(f"{len(wrong)} points are wrong")


def _is_wrong(row):
    return row["verdict"] not in ("good", "not tried")


def table(rows):
    """Points by command and kind, as a table in Markdown."""
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    lines = ["| command | " + " | ".join(kinds) + " | verdict |",
             "|---|" + "---:|" * len(kinds) + "---|"]
    for name in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == name]
        counts = Counter(row["kind"] for row in own if row["verdict"] != "not tried")
        wrong = sum(map(_is_wrong, own))
        lines.append(f"| {name} | " + " | ".join(str(counts[kind]) for kind in kinds)
                     + f" | {f'{wrong} wrong' if wrong else 'good'} |")
    return "\n".join(lines)


def try_all(names, kinds, points, seed, minutes=None):
    """What became of each point, as dictionaries."""
    limit = time.monotonic() + 60 * minutes if minutes else None
    generator = random.Random(seed)
    rows = []
    with (tempfile.TemporaryDirectory(prefix="kill.") as scratch,
          tqdm(total=points, desc="points", disable=None) as bar):
        # In turn, so that each has its share of the points when the time is over.
        for position, name in enumerate(names):
            share = points // len(names) + (position < points % len(names))
            if not share:
                continue
            if limit and time.monotonic() > limit:
                rows.append({"case": name, "kind": "", "point": "", "verdict": "not tried"})
                continue
            tried = Tried(name, Path(scratch) / str(position))
            for number in range(share):
                kind = tried.kind(kinds[number % len(kinds)])
                if limit and time.monotonic() > limit:
                    point, verdict = "", "not tried"
                else:
                    point, verdict = tried.point(kind, generator)
                rows.append({"case": name, "kind": kind, "point": point, "verdict": verdict})
                bar.update()
            shutil.rmtree(tried.folder)
            own = [row for row in rows if row["case"] == name]
            print(f"{name}: {share} points, {sum(map(_is_wrong, own))} wrong", file=sys.stderr,
                  flush=True)
    return rows


class Tried:
    """A case with what undisturbed runs of it give.

    Parameters
    ----------
    name : str
    folder : Path
        For all its runs.
    """

    def __init__(self, name, folder):
        self.case = CASES[name]
        self.folder = folder
        for module in self.case.modules:
            import_module(module)
        folder.mkdir()
        self._number = 0
        # What is there beforehand: nothing, or the outputs of another run.
        self.starts = {"empty": self._start(None)}
        if self.case.before:
            self.starts["old"] = self._start(self.case.before)
        self.right, self.changes, self.seconds, self.largest = {}, {}, {}, 1
        for start in self.starts:
            place = self._place(start)
            outcome = run(self.case.words, place)
            if outcome.status:
                raise command.Failure(f"{name} fails undisturbed: {outcome.error.strip()}")
            if outcome.followed:
                raise command.Failure(f"{name} opens {outcome.followed[0]} for writing, which may "
                                      "be a link that others have planted")
            self.right[start] = self._outputs(place)
            self.changes[start], self.seconds[start] = outcome.changes, outcome.seconds
            self.largest = max([self.largest, *(
                path.stat().st_size for path in (place / OUT).rglob("*") if path.is_file())])
            if start == "empty":
                self.warm = place / "cache"
            else:
                shutil.rmtree(place)
        self.old = self._outputs(self.starts["old"]) if "old" in self.starts else {}

    def _start(self, before):
        """A folder as it is before the command runs, with its cache but for what is made anew."""
        place = self._new()
        for name in OUT, "tmp", "cache":
            (place / name).mkdir(mode=0o700)
        # The command itself fills the cache.
        for words in (self.case.inputs, self.case.words, before):
            if words is None:
                continue
            shutil.rmtree(place / OUT)
            (place / OUT).mkdir()
            outcome = run(words, place)
            if outcome.status:
                raise command.Failure(f"preparation fails: {outcome.error.strip()}")
        if not before:
            shutil.rmtree(place / OUT)
            (place / OUT).mkdir()
        shutil.rmtree(place / "tmp")
        (place / "tmp").mkdir()
        self._cool(place / "cache")
        return place

    def _cool(self, folder):
        for pattern in self.case.cold:
            for path in folder.glob(f"{pattern}-*.so") if pattern == "kernel" else ():
                path.unlink()
            for path in folder.glob(f"*/{pattern}*"):
                shutil.rmtree(path.parent)

    def _new(self):
        self._number += 1
        place = self.folder / str(self._number)
        place.mkdir()
        return place

    def _place(self, start):
        """A copy of what there is beforehand."""
        place = self._new()
        shutil.copytree(self.starts[start], place, dirs_exist_ok=True)
        return place

    def _outputs(self, place):
        """Outputs by name; of temporary files, whose names begin with a dot, the names only."""
        found = {}
        for path in sorted((place / OUT).rglob("*")):
            if path.is_file():
                name = path.relative_to(place / OUT).as_posix()
                found[name] = (None if path.name.startswith(".")
                               else self._content(name, path.read_bytes()))
        return found

    def _content(self, name, content):
        try:
            return self.case.varies(name, content)
        except ValueError:
            return b"not whole: " + content

    def kind(self, kind):
        """Another disturbance where the cache has nothing that can be damaged."""
        return "kill" if kind == "damage" and not self._kept(self.warm) else kind

    def _kept(self, folder):
        return sorted(path for path in folder.rglob("*")
                      if path.is_file() and path.parent.name != "locks")

    def point(self, kind, generator):
        """Tries one point; returns what it was and the verdict."""
        start = generator.choice([*self.starts])
        place = self._place(start)
        fault = None
        try:
            if kind == "damage":
                point, entry = self._damage(place, generator)
                # One that the command has no need for stays, and is taken by nobody.
                verdict = self._again(place, start, entry)
            elif kind == "two":
                point, verdict = self._two(place, start, generator)
            elif kind == "tmpfs":
                point, verdict = self._tmpfs(place, start, generator)
            else:
                fault = self._fault(kind, start, generator)
                point, verdict = str(fault), self._disturbed(place, start, fault)
        except (TimeoutError, OSError) as error:
            point, verdict = str(fault or kind), f"{type(error).__name__}: {error}"
        shutil.rmtree(place, ignore_errors=True)
        return f"{start}, {point}", verdict or "good"

    def _fault(self, kind, start, generator):
        at = generator.randint(1, max(1, self.changes[start]))
        group = generator.random() < 0.5
        if kind == "kill":
            return Fault("kill", at, group)
        if kind == "time":
            return Fault("time", generator.randint(0, int(1000 * self.seconds[start])), group)
        if kind == "refuse":
            error = generator.choice([errno.ENOSPC, errno.EROFS, errno.EACCES])
            return Fault("refuse", at, place=generator.choice([OUT, "cache"]), error=error)
        return Fault(kind, generator.randint(0, self.largest))

    def _disturbed(self, place, start, fault):
        outcome = run(self.case.words, place, fault)
        if fault.kind in ("refuse", "short"):
            if problem := self._told(outcome):
                return problem
        elif outcome.status not in (0, -9, -25):
            # Compilers and Yosys, too, end when a file is too large.
            if fault.kind != "tear" or self._told(outcome):
                return f"exit status {outcome.status}: {outcome.error.strip()[-300:]}"
        return self._whole(place, start) or self._again(place, start)

    def _told(self, outcome):
        """Whether a failure is not told in one line."""
        if outcome.status == TRACEBACK or "Traceback" in outcome.error:
            return f"traceback: {outcome.error.strip()[-300:]}"
        lines = [line for line in outcome.error.splitlines() if line.startswith("error: ")]
        if outcome.status not in (0, 1) or outcome.status == 1 and len(lines) != 1:
            return f"exit status {outcome.status}: {outcome.error.strip()[-300:]}"
        return None

    def _whole(self, place, start):
        """Whether an output is neither the old one nor the new one, or a set of both."""
        new, old = self.right[start], self.old if start == "old" else {}
        found = {name: content for name, content in self._outputs(place).items()
                 if not any(part.startswith(".") for part in Path(name).parts)}
        for name, content in found.items():
            if content not in (new.get(name), old.get(name)) and not self.case.between(content):
                return f"{name} is not whole ({content!r:.80})"
        if self.case.mark in found:
            for whole in new, old:
                if found[self.case.mark] == whole.get(self.case.mark) and all(
                        found.get(name) == content for name, content in whole.items()
                        if name != "Bender.yml" and not name.startswith(".")):
                    break
            else:
                return f"{self.case.mark} is there, and the others are not its own"
        return None

    def _again(self, place, start, damaged=None):
        """Whether the same command now gives something else than undisturbed."""
        outcome = run(self.case.words, place)
        # A folder is not replaced; the first run has made it.
        if outcome.status and not _there(outcome):
            return f"fails when run again: {outcome.error.strip()[-300:]}"
        return self._same(place, start, damaged)

    def _same(self, place, start, damaged=None):
        found, right = self._outputs(place), self.right[start]
        if found != right:
            wrong = [name for name in found | right if found.get(name) != right.get(name)]
            return f"when run again, other outputs: {', '.join(wrong)}"
        # Whoever makes an entry next removes what was left.
        interrupts._remove_left.__wrapped__(place / "cache")
        for path in (place / "cache").iterdir():
            if path.name.startswith("m2xfp."):
                return f"the cache keeps {path.name}"
            if path == damaged:
                continue
            if (path / "sha256").exists():
                file, = (file for file in path.iterdir() if file.name != "sha256")
                if not cache.intact(file):
                    return f"the cache keeps {file.name}, which is damaged"
            elif (path.suffix == ".so" and path.is_file()
                  and not path.name.endswith(f"-{checksum(path)}.so")):
                return f"the cache keeps {path.name}, which is damaged"
        return None

    def _damage(self, place, generator):
        """Damages a file of a cache that an undisturbed run has filled."""
        shutil.rmtree(place / "cache")
        shutil.copytree(self.warm, place / "cache")
        path = generator.choice(self._kept(place / "cache"))
        content = bytearray(path.read_bytes())
        how = generator.choice(["cut off", "a bit flipped", "emptied", "removed", "a folder"])
        position = generator.randrange(max(1, len(content)))
        path.unlink()
        if how == "cut off":
            path.write_bytes(content[:position])
        elif how == "a bit flipped" and content:
            content[position] ^= 1 << generator.randrange(8)
            path.write_bytes(content)
        elif how == "emptied":
            path.write_bytes(b"")
        elif how == "a folder":
            path.mkdir()
        point = f"{path.name.partition('-')[0]}: {how} at {position}"
        return point, path if path.parent == place / "cache" else path.parent

    def _two(self, place, start, generator):
        """The command twice at once; in half of the points one is killed."""
        killed = generator.random() < 0.5
        fault = self._fault("kill", start, generator) if killed else Fault()
        first = Running(self.case.words, place, fault)
        time.sleep(generator.random() * 0.2 * self.seconds[start])
        second = Running(self.case.words, place)
        outcomes = first.end(), second.end()
        point = f"two at once{f', one: {fault}' if killed else ''}"
        for outcome, may_fail in zip(outcomes, (killed, False), strict=True):
            if outcome.status and not may_fail and not _there(outcome):
                return point, f"exit status {outcome.status}: {outcome.error.strip()[-300:]}"
        return point, (self._whole(place, start) or self._again(place, start) if killed
                       else self._same(place, start))

    def _tmpfs(self, place, start, generator):
        """Outputs, or the cache, on a file system that is full."""
        where = generator.choice([OUT, "cache"])
        used = sum(path.stat().st_size for path in (place / where).rglob("*") if path.is_file())
        size = used // 4096 + generator.randint(1, max(2, self.largest // 2048))
        point = f"{where} of {4 * size} KiB"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4 * size}k,mode=0700", "tmpfs",
                           str(place / where)], capture_output=True, check=False).returncode:
            return point, "not tried"
        try:
            if subprocess.run(["cp", "-a", f"{self.starts[start] / where}/.", str(place / where)],
                              capture_output=True, check=False).returncode:
                return f"{point}, too small", None
            outcome = run(self.case.words, place)
            verdict = self._told(outcome) or self._whole(place, start)
            if not verdict:
                subprocess.run(["mount", "-o", "remount,size=1g", str(place / where)], check=True)
                verdict = self._again(place, start)
        finally:
            subprocess.run(["umount", "-l", str(place / where)], check=True)
        return point, verdict


def _there(outcome):
    """Whether a command says that its new folder is there already."""
    return "File exists" in outcome.error or ", which exists" in outcome.error


if __name__ == "__main__":
    sys.exit(main())
