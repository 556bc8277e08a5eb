# SPDX-License-Identifier: BSD-2-Clause
"""Configurations of the accelerator: the sizes that it is built with.

Specification section 8.14.
"""

from dataclasses import dataclass

from ..lib.formats import ENCODINGS, GROUP, check_encoding, group_of, record_of
from ..units.mac_array import ENTRIES, LATENCIES, MacArray
from ..units.sg_engine import CYCLES

SIZE = 20
"""Bits of M, K and N, and of all that the planner divides."""

ENGINES = {"elem-em": (), "sg-em": ("sg-threshold", "sg-em"), "sg-special": ("sg-special",),
           "sg-special64": ("sg-special64",)}
"""By encoding, what `hw.units.SgEngine` offers for it."""

LEAST_ACTIVATIONS = 64
"""Records of the smallest activation buffer."""

MOST_WEIGHTS = 1 << 31
"""Records of the largest weight buffer: the register WEIGHTS has 32 bits."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of an accelerator.

    Attributes
    ----------
    columns : int, power of two, at most 32; at most 64 in "sg-special64"
        Columns of the array. With as many as a group has elements a row of results is a group, so
        results can be quantized, and kept as the activations of the next command. With fewer they
        cannot.
    activations : int, power of two, 64 to 2^19
        Group records (18 bytes; 36 in "sg-special64") that the activation buffer holds.
    weights : int, power of two, at most 2^31
        Group records that the weight buffer holds.
    rows : int, 16 to 2^20 - 1
        Rows of ``columns`` float32 partial sums that the output buffer holds.
    weight_width : int, power of two, at most ``columns``
        Weight records per cycle, into the accelerator and into the array.
    activation_banks, weight_banks, output_banks : int, power of two
        Memories that each buffer consists of.
    input : str or None
        Type of the values that are quantized on the way in: "float32", "bfloat16" or "float16".
        None leaves that quantization engine out; activations then come as records only.
    framed : bool
        Whether the operand streams mark the last transfer of a command, ``tlast`` in AXI. The
        machine then checks the marks, which change no result.
    array_depth : int
        Pipeline registers of the array, see `hw.units.MacArray`.
    engine_depth : int
        Pipeline registers of the quantization engines, see `hw.units.QuantizationEngine`.
    encoding : str
        That of the activations, see `hw.units.MacArray`: "elem-em", "sg-em", "sg-special" or
        "sg-special64", in which groups have 64 elements.
    engine : str or None
        What encodes values and results in the latter three, see `hw.units.SgEngine`: "sg-threshold"
        or "sg-em" in the encoding "sg-em", "sg-special" in "sg-special", "sg-special64" in
        "sg-special64". Without it ``input`` is None, and results are float32. In "elem-em" it is
        None, and `hw.units.QuantizationEngine` does it.
    engine_cycles : int, 1, 2, 4 or 8
        Cycles that such an engine takes for a group; that of "sg-special64" not 1. An engine of
        results takes a row of each tile in turn, so the last products of a tile wait for it.

    Raises
    ------
    ValueError
        If a value is not offered.
    """

    columns: int = GROUP
    activations: int
    weights: int
    rows: int
    weight_width: int = 1
    activation_banks: int = 1
    weight_banks: int = 1
    output_banks: int = 1
    input: str | None = "float32"
    framed: bool = False
    array_depth: int = MacArray.latency
    engine_depth: int = 2
    encoding: str = ENCODINGS[0]
    engine: str | None = None
    engine_cycles: int = 4

    def __post_init__(self):
        check_encoding(self.encoding)
        for name in ("columns", "activations", "weights", "weight_width", "activation_banks",
                     "weight_banks", "output_banks"):
            value = getattr(self, name)
            if type(value) is not int or value < 1 or value.bit_count() != 1:
                raise ValueError(f"{name} must be a power of two, not {value!r}")
        if self.columns > self.group:
            raise ValueError(f"columns must be at most {self.group}, not {self.columns}")
        if self.weight_width > self.columns:
            raise ValueError(f"weight_width must be at most the {self.columns} columns, "
                             f"not {self.weight_width}")
        if self.activations < LEAST_ACTIVATIONS:
            raise ValueError(f"activations must be at least {LEAST_ACTIVATIONS}, "
                             f"not {self.activations}")
        # The planner divides the activations by a number of groups.
        if self.activations >= 1 << SIZE:
            raise ValueError(f"activations must be at most {1 << SIZE - 1}, "
                             f"not {self.activations}")
        if self.weights > MOST_WEIGHTS:
            raise ValueError(f"weights must be at most {MOST_WEIGHTS}, not {self.weights}")
        # A bundle of several tiles has up to 14 sums: two tiles of 7 rows.
        if type(self.rows) is not int or self.rows < 16:
            raise ValueError(f"rows must be an integer of at least 16, not {self.rows!r}")
        # It divides M by them.
        if self.rows >= 1 << SIZE:
            raise ValueError(f"rows must be at most {(1 << SIZE) - 1}, not {self.rows}")
        for rows, banks in (("activations", self.activation_banks), ("rows", self.output_banks),
                            ("weights", self.weight_banks * self.weight_width)):
            if getattr(self, rows) % banks or getattr(self, rows) < 2 * banks:
                raise ValueError(f"{rows} must be a multiple of {banks}, at least twice, "
                                 f"not {getattr(self, rows)}")
        if self.input not in (None, "float32", "bfloat16", "float16"):
            raise ValueError("input must be None, 'float32', 'bfloat16' or 'float16', "
                             f"not {self.input!r}")
        if type(self.framed) is not bool:
            raise ValueError(f"framed must be true or false, not {self.framed!r}")
        for name, offered in (("array_depth", tuple(LATENCIES)), ("engine_depth", (2, 3, 8)),
                              ("engine_cycles", CYCLES[:-1])):
            if type(value := getattr(self, name)) is not int or value not in offered:
                raise ValueError(f"{name} must be one of {', '.join(map(str, offered))}, "
                                 f"not {value!r}")

        engines = (None, *ENGINES[self.encoding])
        if self.engine not in engines:
            raise ValueError(f"engine must be {' or '.join(map(repr, engines))} with the encoding "
                             f"{self.encoding!r}, not {self.engine!r}")
        if self.engine == "sg-special64" and self.engine_cycles < 2:
            raise ValueError("engine_cycles must be at least 2 with the engine 'sg-special64', "
                             f"not {self.engine_cycles}")
        if self.input is not None and not self.encodes:
            raise ValueError(f"input must be None with the encoding {self.encoding!r} and without "
                             f"an engine, not {self.input!r}")

    @property
    def group(self):
        """Elements per group, of activations and of weights."""
        return group_of(self.encoding)

    @property
    def record(self):
        """Layout of a group's record, of activations and of weights."""
        return record_of(self.encoding)

    @property
    def array_latency(self):
        """Cycles from an activation to its results in the array."""
        return LATENCIES[self.array_depth][0]

    @property
    def acc_latency(self):
        """Cycles from an activation to the accumulators that the array takes."""
        return LATENCIES[self.array_depth][1]

    @property
    def entry(self):
        """Registers of an activation in the array before it meets the weights."""
        return ENTRIES[self.array_depth]

    @property
    def queued(self):
        """Whether queues of two cut the control's paths, as in the deepest pipeline, for FPGAs.

        There is one behind each `LoopNest`, and one behind the activation buffer, as a block RAM
        gives its row late in the cycle.
        """
        return self.array_depth == 17

    @property
    def round_trip(self):
        """Cycles between two products of the same sum: to the array, through it and back."""
        return self.queued + self.array_latency + 2

    @property
    def engine_latency(self):
        """Cycles of a group in an engine, from values that are offered to a record."""
        return self.engine_depth if self.engine is None else self.engine_cycles + 2

    @property
    def engine_pace(self):
        """Cycles from one group to the next in an engine."""
        return 1 if self.engine is None else self.engine_cycles

    @property
    def encodes(self):
        """Whether there is an engine that writes records in the array's encoding."""
        return self.encoding == ENCODINGS[0] or self.engine is not None

    @property
    def quantizes(self):
        """Whether results can be quantized: a row is a group, and there is an engine."""
        return self.columns == self.group and self.encodes

    @property
    def memory_bits(self):
        """Bits of all three buffers together."""
        return (self.record.size * (self.activations + self.weights)
                + 32 * self.columns * self.rows)


def configuration(config):
    """A `Config`, given as such or by its name in `CONFIGS`.

    Parameters
    ----------
    config : Config or str

    Returns
    -------
    Config

    Raises
    ------
    TypeError
        If it is neither a configuration nor a name.
    ValueError
        If there is no configuration of that name.
    """
    if isinstance(config, Config):
        return config
    if not isinstance(config, str):
        raise TypeError(f"config must be a Config or one of {', '.join(CONFIGS)}, not {config!r}")
    if config not in CONFIGS:
        raise ValueError(f"Config must be one of {', '.join(CONFIGS)}, not {config!r}")
    return CONFIGS[config]


CONFIGS = {
    # The paper's buffers: 144 KB, 144 KB and 36 KB.
    "paper": Config(activations=8192, weights=8192, rows=288,
                    activation_banks=4, weight_banks=4),
    # For one token at a time, where weights limit the speed: 8 records, 1152 bits, per cycle.
    "decode": Config(activations=2048, weights=4096, rows=64, weight_width=8, input="bfloat16"),
    # For small FPGAs; results are float32 only.
    "lite": Config(columns=4, activations=1024, weights=256, rows=256),
    # For tests: every limit is close.
    "tiny": Config(activations=64, weights=64, rows=16, weight_width=4, activation_banks=2),
}
