# SPDX-License-Identifier: BSD-2-Clause
"""Drives a unit on a board over a serial line and compares its results with golden."""

import argparse
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth import Shape
from amaranth.lib import wiring

from golden import quantize_activations, quantize_weights
from golden.accelerator import planner
from golden.accelerator.accelerator import execute, streams
from golden.codec.numbers import FLOATS
from golden.command import Failure, Parser
from golden.command import run as as_command
from golden.models import smollm2
from hw import registry
from hw.boards import identity
from hw.bus.uart_link import UartLink
from hw.registry import UNITS, add_settings, settings_of
from hw.tools.packing import from_words, length, to_words
from hw.tools.progress import counting

from .accelerator import golden_config
from .engines.build import ENGINES
from .engines.protocol import payload_shape, payload_width
from .line import Noise, SerialLine, SimulatedLine
from .link import Link, ProtocolVersionError
from .runner import mismatches

BAUD = 1_000_000

_FRAME = 256
"""Bytes of payload in a frame, of which a damaged one is sent again as a whole."""

_SILENCE = 50
"""Times in a row that the host sends again before it gives up."""


class NoAnswer(Failure):
    """The board does not answer; the text is one line for the user."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What a unit is to compute.

    Attributes
    ----------
    title : str
    inputs, expected : dict of str to array or dict
        By stream, one row per transfer.
    values : int
        Elements of the operands.
    """

    title: str
    inputs: Mapping[str, Any]
    expected: Mapping[str, Any]
    values: int


class Session:
    """A session with a board: a reset, its identity, and then as many jobs as there are.

    Parameters
    ----------
    line : SerialLine or SimulatedLine
    baud : int
    session : int, optional
        1 to 255; a random one if it is not given.

    Attributes
    ----------
    unit : str
        Name of the unit on the board.
    set : list of str
        Its settings.
    component : wiring.Component
        The unit itself.
    link : sim.link.Link
    sent, got : int
        Bytes of payloads of the last job, to the board and back.

    Raises
    ------
    NoAnswer
        If nothing comes back.
    ToolError
        If the board has a unit that this version does not know.
    """

    def __init__(self, line: Any, *, baud: int, session: int | None = None) -> None:
        self.line = line
        self.baud = baud
        # The reset has an answer of a few bytes, and the identity is shorter than a frame.
        self.link = Link(session or 1 + secrets.randbelow(255), frame=_FRAME, ahead=_FRAME,
                         timeout=line.late + 4 * _FRAME * 10 / baud)
        self._until(lambda: self.link.ready)
        self._until(lambda: identity.END in self.link.received(0))
        found = identity.decode(bytes(self.link.received(0)))
        self.unit, self.set = found["unit"], found["set"]
        self.parameters = registry.parameters(self.unit, self.set)
        self.component: wiring.Component = registry.build(self.unit, self.set)
        largest = len(self._ports) * (found["buffer"] + _FRAME)
        self.link.timeout = line.late + 2 * largest * 10 / baud
        self.sent = self.got = 0
        self.link.frame = min(_FRAME, found["buffer"] // 4)

    @property
    def _ports(self):
        """The streams of the unit with their numbers, in the link's order."""
        return dict(enumerate(self.component.signature.members.items(), 1))

    def _until(self, done: Callable[[], bool], progress: Callable[[], object] = lambda: None,
               ) -> None:
        """Lets the line work until ``done()``; raises `NoAnswer` if nothing new comes."""
        last = self.line.now
        while not done():
            now = self.line.now
            data = b"" if self.line.waiting >= _FRAME else self.link.poll(now)
            came = self.line.exchange(data)
            before = self._progress()
            try:
                self.link.receive(came, self.line.now)
            except ProtocolVersionError as error:
                raise NoAnswer(str(error)) from None
            if self._progress() != before:
                last = self.line.now
                progress()
            elif self.line.now - last > _SILENCE * self.link.timeout:
                raise NoAnswer(f"no answer from the board for {self.line.now - last:.0f} s: "
                               "is it the right port and --baud, and is the bitstream loaded?")

    def _progress(self):
        link = self.link
        return link.ready, link.new, link.taken

    def run(self, job: Job, progress: Callable[[int, int], object] = lambda done, total: None,
            ) -> tuple[dict[str, Any], float]:
        """Runs a job; returns its outputs in the form of ``job.expected``, and the seconds."""
        start = self.line.now
        totals = {}
        before, self.sent = self.link.taken, 0
        for number, (name, port) in self._ports.items():
            if port.flow == wiring.In:
                given = to_bytes(payload_shape(port), job.inputs[name], name)
                self.link.send(number, given)
                self.sent += len(given)
            else:
                totals[number] = length(job.expected[name]) * -(-payload_width(port) // 8)
                self.link.received(number).clear()
        self.got = sum(totals.values())

        def done():
            return sum(min(len(self.link.received(n)), count) for n, count in totals.items())

        self._until(lambda: done() >= self.got,
                    lambda: progress(min(self.link.taken - before, self.sent) + done(),
                                     self.sent + self.got))
        seconds = self.line.now - start
        outputs = {}
        for number, count in totals.items():
            name, port = self._ports[number]
            outputs[name] = from_bytes(payload_shape(port), bytes(self.link.received(number)))
            if len(self.link.received(number)) > count:
                raise NoAnswer(f"the board sent more on {name} than the {count} bytes expected")
        return outputs, seconds


def to_bytes(shape: Any, rows: Any, name: str) -> bytes:
    """Payloads as the line carries them: whole bytes each, least significant first."""
    words = to_words(shape, rows, name)
    size = -(-_width(shape) // 8)
    return words.view(np.uint8).reshape(len(words), 4 * words.shape[1])[:, :size].tobytes()


def from_bytes(shape: Any, data: bytes) -> Any:
    """The inverse of `to_bytes`; what is left of a payload at the end is dropped."""
    size = -(-_width(shape) // 8)
    rows = len(data) // size
    planes = np.zeros((rows, -(-size // 4) * 4), np.uint8)
    planes[:, :size] = np.frombuffer(data[: rows * size], np.uint8).reshape(rows, size)
    return from_words(shape, planes.view(np.uint32))


def _width(shape):
    return Shape.cast(shape).width


def job_of(unit: str, parameters: Mapping[str, Any], *, tokens: int, rows: int, count: int,
           seed: int) -> Job:
    """What a unit is given: a layer of a real model, or random stimuli for other units.

    Parameters
    ----------
    unit : str
    parameters : dict of str to object
    tokens, rows : int
        Rows of activations and of weights of the layer.
    count, seed : int
        Of random stimuli.

    Returns
    -------
    Job
    """
    data = smollm2.load()
    reference = UNITS[unit].reference
    x, w = data.activations[:tokens], data.weights[:rows]
    layer = f"SmolLM2-135M, {data.tensor}"
    if unit == "quantization_engine":
        kind = np.dtype(FLOATS[parameters["input"]])
        groups = x.reshape(-1, 32).astype(kind)
        inputs = {"i": groups.view(f"u{kind.itemsize}")}
        return Job(title=f"{layer}: {tokens} tokens x K = {x.shape[1]} in {parameters['input']}",
                   inputs=inputs, expected=reference(inputs, **parameters), values=groups.size)
    if unit == "accelerator":
        config = golden_config(parameters["config"])
        command = {"m": tokens, "k": x.shape[1], "n": rows, "result": planner.VALUES_OUT,
                   "w": quantize_weights(w, encoding=config.weight_encoding)}
        if config.input is None:
            command |= {"source": planner.RECORDS,
                        "a": quantize_activations(x, encoding=config.encoding)}
        else:
            command |= {"source": planner.VALUES, "x": x.astype(FLOATS[config.input])}
        executed = execute(config, [command])
        if executed[0][0] != planner.DONE:
            raise ValueError(f"--tokens and --rows must be such that config "
                             f"{parameters['config']} can run them, not {tokens} and {rows}")
        inputs, expected = streams(config, [command], executed)
        return Job(title=f"{layer}: {tokens} tokens x {rows} rows x K = {x.shape[1]}",
                   inputs=inputs, expected=expected, values=x.size + w.size)
    inputs = UNITS[unit].stimuli(np.random.default_rng(seed), count, **parameters)
    return Job(title=f"{count} random transfers", inputs=inputs,
               expected=reference(inputs, **parameters),
               values=sum(map(length, inputs.values())))


def simulated(unit: str, words: Sequence[str], *, baud: int, cycles_per_bit: int = 8,
              engine: str = "auto", noise: Callable[[bytes], bytes] | None = None,
              buffer: int = 512) -> SimulatedLine:
    """The line to a simulated board with a unit.

    Parameters
    ----------
    unit : str
    words : list of str
        Settings.
    baud : int
        As `SimulatedLine` takes it.
    cycles_per_bit : int
        Fewer make the simulation faster.
    engine, noise
        As `SimulatedLine` takes them.
    buffer : int
        Bytes of each buffer on the board.
    """
    parameters = registry.parameters(unit, words)
    count = len(registry.build(unit, words).signature.members)
    link: UartLink = identity.link(
        unit, parameters, divisor=cycles_per_bit, buffer=buffer,
        timeout=20 * cycles_per_bit * (2 * count * buffer + _FRAME))
    return SimulatedLine(link, baud=baud, engine=engine, noise=noise)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to a parser."""
    parser.add_argument("port", metavar="PORT", nargs="?",
                        help="serial port of the board, such as /dev/ttyUSB1 or COM3")
    parser.add_argument("--simulate", action="store_true",
                        help="simulate the board, in place of PORT, bit by bit on the line")
    parser.add_argument("--unit", metavar="UNIT",
                        help="of --simulate (default: quantization_engine), the accelerator with "
                             "config lite unless --config names another; a board tells itself "
                             "what it has")
    add_settings(parser)
    parser.add_argument("--baud", type=int, default=BAUD,
                        help="rate of the line (default: 1000000)")
    parser.add_argument("--tokens", type=int, default=32, metavar="M",
                        help="rows of activations, 1 to 32 (default: 32)")
    parser.add_argument("--rows", type=int, default=16, metavar="N",
                        help="rows of weights, 1 to 256 (default: 16)")
    parser.add_argument("--count", type=int, default=100, metavar="N",
                        help="random transfers to a unit that has no part of the layer "
                             "(default: 100)")
    parser.add_argument("--noise", type=float, default=0.0, metavar="P",
                        help="of --simulate: probability that a byte on the line is damaged, lost "
                             "or doubled (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="of noise and stimuli (default: 0)")
    parser.add_argument("--engine", default="auto", choices=("auto", "amaranth", *ENGINES),
                        help="of --simulate; auto compiles if it can (default: auto)")


def act(options: argparse.Namespace) -> int:
    """Runs the command with its options; returns the exit status."""
    if bool(options.port) == options.simulate:
        raise ValueError("PORT or --simulate must be given" + ", not both" * bool(options.port))
    if options.baud < 1:
        raise ValueError(f"--baud must be at least 1, not {options.baud}")
    if not 0 <= options.noise < 1:
        raise ValueError(f"--noise must be at least 0 and below 1, not {options.noise:g}")
    if options.count < 1:
        raise ValueError(f"--count must be at least 1, not {options.count}")
    data = smollm2.load()
    for option, value, most in (("--tokens", options.tokens, len(data.activations)),
                                ("--rows", options.rows, len(data.weights))):
        if not 1 <= value <= most:
            raise ValueError(f"{option} must be within 1 and {most}, not {value}")
    words = settings_of(options)
    noise = Noise(options.noise, options.seed)
    if options.simulate:
        unit = options.unit or "quantization_engine"
        if unit == "accelerator" and not any(word.startswith("config=") for word in words):
            words = ["config=lite", *words]
        line: Any = simulated(unit, words, baud=options.baud, engine=options.engine,
                              noise=noise if options.noise else None)
    else:
        for option, given in (("--unit", options.unit), ("--set", words),
                              ("--noise", options.noise)):
            if given:
                raise ValueError(f"{option} needs --simulate: a board has its unit and its line")
        line = SerialLine(options.port, options.baud)
    try:
        return _drive(line, options)
    finally:
        line.close()


def _drive(line, options):
    session = Session(line, baud=options.baud)
    where = f"simulated by {line.engine}" if options.simulate else f"at {options.port}"
    print(f"{session.unit} {' '.join(session.set)}, {where}, {options.baud:,} baud", flush=True)
    job = job_of(session.unit, session.parameters, tokens=options.tokens, rows=options.rows,
                 count=options.count, seed=options.seed)
    print(f"  {job.title}", flush=True)
    with counting("uart", "byte") as progress:
        outputs, seconds = session.run(job, progress)
    wrong = 0
    for name, expected in job.expected.items():
        if length(expected):
            differ = int(mismatches(outputs[name], expected).sum())
            wrong += differ
            print(f"  {name}: {length(expected):,} transfers, {differ} mismatches against golden")
    sent, got = session.sent, session.got
    print(f"  {job.values:,} values in {seconds:.2f} s: {job.values / seconds:,.0f} values/s")
    print(f"  payload: {sent:,} bytes to the board, "
          f"{sent * 10 / seconds / options.baud:.0%} of the line; {got:,} bytes back, "
          f"{got * 10 / seconds / options.baud:.0%}")
    print(f"  line: {session.link.repeated:,} bytes sent again, {session.link.dropped} pieces "
          "dropped by the host")
    return 1 if wrong else 0


@as_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, see ``--help``, and returns the exit status."""
    parser = Parser(prog="python -m sim.uart", description=__doc__)
    add_options(parser)
    return act(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
