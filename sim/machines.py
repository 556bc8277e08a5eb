# SPDX-License-Identifier: BSD-2-Clause
"""The accelerator's RTL as a machine of `sim.driver`: one simulation for all commands."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from golden.accelerator import accelerator as golden_accelerator
from golden.accelerator import planner
from hw.accelerator.accelerator import Accelerator
from hw.accelerator.config import Config, configuration
from hw.bus.axi_accelerator import AxiAccelerator
from hw.tools.packing import from_words, to_words

from .accelerator import golden_config
from .driver import Layer, Progress
from .engines.protocol import payload_shape
from .engines.session import Session
from .runner import SimulationError

_COMMAND = ("m", "k", "n", "source", "result")


class Compiled:
    """The compiled RTL of an accelerator, with its streams at the host.

    It is a context manager, which ends the simulation.

    Parameters
    ----------
    config : Config or str
    engine : str
        As `sim.engines.session.Session` takes it.
    """

    def __init__(self, config: Config | str, engine: str = "auto") -> None:
        self.config = configuration(config)
        self.cycles = 0
        self._sizes = golden_config(config)
        self._component = self._built()
        self._session = Session(self._component, engine)

    def _built(self):
        return Accelerator(config=self.config)

    def __enter__(self) -> "Compiled":
        self._session.restart()
        return self

    def __exit__(self, *error: object) -> None:
        self._session.__exit__()

    def restart(self) -> None:
        """Resets the machine; it keeps nothing."""
        self._session.restart()

    def run(self, command: dict[str, Any], layer: Layer, executed: tuple[int, Any, Any],
            progress: Progress | None) -> dict[str, Any]:
        """Sends a command with its operands; takes results and status. See `sim.driver.Machine`."""
        counts = self._counts(command, executed) | {"o_status": 1}
        sent = {"i_command": self._words("i_command", {
            name: np.array([command[name]]) for name in _COMMAND})}
        outputs = self._exchange(sent | self._operands(command, layer, executed[1]), counts,
                                 executed[1], progress)
        self.cycles = self._session.cycles
        return outputs

    def _exchange(self, sent, counts, plan, progress):
        """Runs until the results have come; gives them by port."""
        total = sum(counts.values())
        words = self._session.run(
            sent, counts, patience=_patience(plan),
            progress=progress and (lambda done: progress(done, total)))
        return {name: from_words(self._shape(name), rows) for name, rows in words.items()}

    def _counts(self, command, executed):
        """Rows of results by port."""
        name = {planner.VALUES_OUT: "o", planner.RECORDS_OUT: "o_record"}.get(command["result"])
        return {} if name is None else {name: command["m"] * executed[1].tiles}

    def _operands(self, command, layer, plan):
        """Words of the operands' streams, in the order of the plan."""
        sent = {"i_weight": self._weights(layer, plan)}
        if command["source"] == planner.RECORDS:
            records = golden_accelerator.activation_records(plan, command["a"])
            sent["i_activation"] = self._operand("i_activation", "record", records)
        elif command["source"] == planner.VALUES:
            groups = golden_accelerator.value_groups(self._sizes, plan, command["x"])
            sent["i_value"] = self._operand("i_value", "values",
                                            groups.view(f"u{groups.itemsize}"))
        return sent

    def _weights(self, layer, plan):
        """The weight's stream: that of a block, which is planned once, for each block."""
        blocks = [self._block(layer, plan, block) for block in plan.blocks]
        if not self.config.framed:
            return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        marked = np.concatenate(blocks)
        bit = self.config.record.size * self.config.weight_width
        marked[-1, bit // 32] |= np.uint32(1 << bit % 32)
        return marked

    def _block(self, layer, plan, block):
        key = self._sizes, planner.interleave(len(block))
        if key not in layer.streams:
            alone = replace(plan, blocks=[block])
            records = golden_accelerator.weight_transfers(self._sizes, alone, layer.decoded.q)
            layer.streams[key] = self._operand("i_weight", "records", records, marked=False)
        return layer.streams[key]

    def _operand(self, name, field, rows, marked=True):
        if self.config.framed:
            count = len(rows["scale"] if isinstance(rows, Mapping) else rows)
            last = (np.arange(count) == count - 1) & marked
            rows = {field: rows, "last": last.astype(np.uint8)}
        return self._words(name, rows)

    def _words(self, name, rows):
        return to_words(self._shape(name), rows, name)

    def _shape(self, name):
        return payload_shape(self._component.signature.members[name])


def _patience(plan):
    """Cycles that can pass without a transfer."""
    return 1000 + plan.groups * plan.tiles * max(len(plan.blocks[0]), plan.transfers, 8)


class Axi(Compiled):
    """The compiled RTL behind its AXI4-Lite registers (specification section 15).

    The host writes M, K, N and COMMAND, moves operands and results, reads RESULT until it is valid
    and writes POP. `cycles` is what the counter of cycles says.
    """

    def _built(self):
        component = AxiAccelerator(config=self.config)
        self._offsets = {register.name: register.offset
                         for register in component.registers.registers}
        return component

    def run(self, command: dict[str, Any], layer: Layer, executed: tuple[int, Any, Any],
            progress: Progress | None) -> dict[str, Any]:
        """Sends a command with its operands; takes results and code. See `sim.driver.Machine`."""
        before = self._counter()
        start = {"M": command["m"], "K": command["k"], "N": command["n"],
                 "COMMAND": command["source"] | command["result"] << 4}
        counts = self._counts(command, executed)
        outputs = self._exchange(
            self._writes(start) | self._operands(command, layer, executed[1]),
            counts | {"o_b": len(start)}, executed[1], progress)
        self._check(outputs.pop("o_b"))
        while not (result := self._read("RESULT")) >> 31:
            pass
        self._check(self._exchange(self._writes({"POP": 1}), {"o_b": 1}, executed[1],
                                   None)["o_b"])
        self.cycles = self._counter() - before
        return outputs | {"o_status": np.array([result & 15], np.uint8)}

    def _writes(self, values):
        """Words of writes of registers, in their order."""
        addresses = np.array([self._offsets[name] for name in values])
        strobes = np.full(len(values), 15)
        return {"i_aw": self._words("i_aw", {"addr": addresses, "prot": 0 * addresses}),
                "i_w": self._words("i_w", {"data": np.array([*values.values()], np.uint32),
                                           "strb": strobes})}

    def _read(self, name):
        address = np.array([self._offsets[name]])
        words = self._session.run(
            {"i_ar": self._words("i_ar", {"addr": address, "prot": 0 * address})}, {"o_r": 1})
        found = from_words(self._shape("o_r"), words["o_r"])
        self._check(found)
        return int(found["data"][0])

    def _counter(self):
        low = self._read("CYCLES_LOW")
        return low | self._read("CYCLES_HIGH") << 32

    def _check(self, found):
        """Raises SimulationError unless all responses are OKAY."""
        if found["resp"].any():
            raise SimulationError("the registers must answer OKAY, not "
                                  f"{', '.join(map(str, found['resp']))}")
