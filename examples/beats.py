# SPDX-License-Identifier: BSD-2-Clause
"""Writes out a product on the AXI machine beat by beat: ``python examples/beats.py [M K N]``.

Prints what crosses each interface of ``axi_accelerator_axi`` of configuration tiny, in hexadecimal
as Verilog has it, the highest bits first. The data are random, with a fixed seed. All is golden's;
the test of the driver in C compares it with a simulated machine, pin by pin.
"""

import sys

import numpy as np

from golden import command as command_line
from golden import quantize_activations, quantize_weights
from golden.accelerator.accelerator import execute, streams
from golden.accelerator.planner import CONFIGS, RECORDS, VALUES_OUT

MACHINE = CONFIGS["tiny"]
SIZES = 3, 40, 6


def command(m, k, n):
    """A command with operands."""
    rng = np.random.default_rng(16)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (n, k)))
    return {"m": m, "k": k, "n": n, "source": RECORDS, "result": VALUES_OUT,
            "a": quantize_activations(x), "w": quantize_weights(w)}


def record(stream, index):
    """A record in hexadecimal: scale, metadata, elements from 31 down to 0."""
    digits = "".join(f"{code:x}" for code in stream["elements"][index][::-1])
    metadata = sum(int(code) << 2 * i for i, code in enumerate(stream["metadata"][index]))
    return f"{stream['scale'][index]:02x}{metadata:02x}{digits}"


def beats(command):
    """Beats of each stream in their order, as text, and the bits of ``tlast``."""
    executed = execute(MACHINE, [command])
    inputs, outputs = streams(MACHINE, [command], executed)
    weight, rows = inputs["i_weight"], outputs["o"]
    count, width = weight["scale"].shape
    return {
        "s_axis_activation": [record(inputs["i_activation"], i)
                              for i in range(len(inputs["i_activation"]["scale"]))],
        "s_axis_weight": ["_".join(record(weight, (i, j)) for j in reversed(range(width)))
                          for i in range(count)],
        "m_axis": ["_".join(f"{bits:08x}" for bits in row[::-1]) for row in rows["values"]],
    }, rows["last"].tolist()


def accesses(m, k, n):
    """What the driver does with the registers: access, name, address, data, why."""
    return [
        ("read", "ID", 0x00, 0x4D325846, "M2XF: it is this machine"),
        ("read", "VERSION", 0x04, 0x00010005, "1.5: the driver knows these registers"),
        ("read", "CONFIG", 0x08, 0x00050420,
         "32 columns, 4 weight records per beat, takes float32, quantizes results, no `tlast` on "
         "operands"),
        ("read", "ACTIVATIONS", 0x0C, MACHINE.activations, "records in the activation buffer"),
        ("read", "WEIGHTS", 0x10, 64, "records in the weight buffer"),
        ("read", "ROWS", 0x14, MACHINE.rows, "rows in the output buffer"),
        ("read", "STATUS", 0x30, 0x00000004, "four commands are free, none is on its way"),
        ("read", "HALT_ON", 0x54, 0x00000003, "a failure and a wrong mark halt the machine"),
        ("write", "INTERRUPT_MASK", 0x4C, 0x00000005, "`done` and `failed` raise the line"),
        ("write", "M", 0x20, m, ""),
        ("write", "K", 0x24, k, ""),
        ("write", "N", 0x28, n, ""),
        ("write", "COMMAND", 0x2C, 0, "source RECORDS, result VALUES: the command begins"),
        ("read", "INTERRUPT_PENDING", 0x48, 0x00000003,
         "after `irq` has risen: a result waits, and commands are free"),
        ("read", "RESULT", 0x34, 0x80000000, "one waits, and its code is 0: DONE"),
        ("write", "POP", 0x38, 1, "makes way for the next one; `irq` falls"),
    ]


def floats(text):
    """The values of a beat of results that are not beyond N, column 0 first."""
    bits = np.array([int(word, 16) for word in text.split("_")[::-1]], np.uint32)
    return bits.view(np.float32)


def page(m, k, n):
    """All of it as Markdown."""
    streams, last = beats(command(m, k, n))
    lines = [f"### Registers, {m} x {k} x {n}", "",
             "| access | register | address | data | |", "|---|---|---|---|---|"]
    lines += [f"| {kind} | `{name}` | `{address:03x}` | `{data:08x}` | {why} |"
              for kind, name, address, data, why in accesses(m, k, n)]
    for name, given in streams.items():
        lines += ["", f"### {name}", "", "```text"]
        lines += [f"{number}: {text}" + (f" tlast={last[number]}" if name == "m_axis" else "")
                  for number, text in enumerate(given)]
        lines.append("```")
    lines += ["", "The results are these values:", "", "```text"]
    lines += [f"{number}: " + " ".join(f"{value:.9g}" for value in floats(text)[:n])
              for number, text in enumerate(streams["m_axis"])]
    return "\n".join([*lines, "```"])


@command_line.run
def main(arguments=None):
    parser = command_line.Parser(prog="beats.py", description="Writes out a product.")
    parser.add_argument("sizes", metavar="SIZE", nargs="*", type=int,
                        help=f"M, K and N (default: {' '.join(map(str, SIZES))})")
    sizes = parser.parse_args(arguments).sizes or SIZES
    if len(sizes) != 3 or min(sizes) < 1 or max(sizes) > 256 or sizes[2] > MACHINE.columns:
        raise ValueError("sizes must be M, K and N, each from 1 to 256, and N at most "
                         f"{MACHINE.columns}, not {' '.join(map(str, sizes))}")
    print(page(*sizes))


if __name__ == "__main__":
    sys.exit(main())
