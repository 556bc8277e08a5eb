# SPDX-License-Identifier: BSD-2-Clause
"""The chips that the model knows: sizes, memories, and the cost of what they do."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hw.accelerator.config import CONFIGS, Config, configuration

from .settings import Choice, Number, Ranges, Text, checked, merged, packaged, read

SCALE_BITS = 0.25
"""Per element, of a scale of eight bits for 32 elements."""

_ENERGY = Number(0, 1e6)

# Sizes of the accelerator that may be given in place of a name; its class checks them.
_SIZES = {name: Number(1, 1 << 31, whole=True) for name in (
    "columns", "activations", "weights", "rows", "weight_width", "activation_banks",
    "weight_banks", "output_banks")}

RANGES: Ranges = {
    "accelerator": {"config": Choice(tuple(CONFIGS)), "format": Text(),
                    "arrays": Number(1, 4096, whole=True), "clock_mhz": Number(1, 10_000),
                    **_SIZES},
    "traffic": {"result_bits": Number(1, 64), "scores": Choice(("dram", "chip"))},
    "attention": {"causal": Choice((True, False)), "scores_bits": Choice((4, 8)),
                  "values_bits": Choice((4, 8))},
    "dram": {"bandwidth_gbs": Number(0.001, 1e6), "latency_ns": Number(0, 1e6),
             "read_pj": _ENERGY, "write_pj": _ENERGY, "background_mw": _ENERGY},
    "sram": {f"{kind}_{what}": _ENERGY for kind in ("operand", "output")
             for what in ("read_pj", "write_pj", "leakage_mw", "mm2")},
    "chips": {"count": Number(1, 4096, whole=True), "link_gbs": Number(0.001, 1e6),
              "link_ns": Number(0, 1e6), "link_pj": _ENERGY},
    "format": {"bits": Number(1, 64), "array_uw": _ENERGY, "leakage_uw": _ENERGY,
               "clock_uw": _ENERGY, "array_um2": Number(0, 1e9), "engine_fj": _ENERGY,
               "engine_um2": Number(0, 1e9)},
}
"""Tables of a machine's TOML file, their fields and ranges."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What the array and the engine of a format cost, as synthesized.

    Attributes
    ----------
    bits : float
        Per element, with metadata and scales.
    array_uw : float
        Power of an array of 32 x 32 multipliers at full speed and `Machine.REFERENCE_MHZ`.
    leakage_uw, clock_uw : float
        Of that, the leakage, and what the clock takes though nothing toggles.
    array_um2 : float
    engine_fj : float
        Energy of the encoder for a value.
    engine_um2 : float
        Area of encoders for one group of 32 values per cycle.
    """

    bits: float
    array_uw: float
    leakage_uw: float
    clock_uw: float
    array_um2: float
    engine_fj: float
    engine_um2: float

    def scaled(self, power: float, *, bits: float, engine_fj: float) -> "Hardware":
        """Hardware with an array of other power, other bits and another encoder."""
        return replace(self, bits=bits, engine_fj=engine_fj,
                       **{name: power * getattr(self, name)
                          for name in ("array_uw", "leakage_uw", "clock_uw")})


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A chip, or several, with one format.

    Attributes
    ----------
    name : str
    config : Config
        Of each of its accelerators.
    format : str
    arrays : int
        Accelerators on a chip.
    clock_mhz : float
    hardware : Hardware
    shared : mapping
        Costs that the formats share, see ``data/hardware.toml``.
    traffic, attention, dram, sram, chips : mapping
        The tables of ``data/machine.toml``.
    """

    name: str
    config: Config
    format: str
    arrays: int
    clock_mhz: float
    hardware: Hardware
    shared: Mapping[str, float]
    traffic: Mapping[str, Any]
    attention: Mapping[str, Any]
    dram: Mapping[str, float]
    sram: Mapping[str, float]
    chips: Mapping[str, Any]

    REFERENCE_MHZ = 500.0
    """Clock of the stored powers."""

    LANES = 32
    """Elements of a group, and rows of the array."""

    @property
    def slots(self) -> int:
        """Multiplications that an array can do per cycle."""
        return self.LANES * self.config.columns

    @property
    def peak(self) -> int:
        """Multiplications that all arrays of a chip can do per cycle."""
        return self.arrays * self.slots

    @property
    def bits_per_cycle(self) -> float:
        """Of DRAM bandwidth of a chip."""
        return 8e3 * self.dram["bandwidth_gbs"] / self.clock_mhz

    @property
    def part(self) -> float:
        """Columns of its arrays over those of the one that was measured."""
        return self.config.columns / 32

    @property
    def step_pj(self) -> float:
        """Dynamic energy of a cycle in which an array works."""
        of = self.hardware
        return (of.array_uw - of.leakage_uw) * self.part / self.REFERENCE_MHZ

    @property
    def idle_pj(self) -> float:
        """Dynamic energy of a cycle in which an array waits: its clock's."""
        return self.hardware.clock_uw * self.part / self.REFERENCE_MHZ

    @property
    def kilobytes(self) -> tuple[float, float]:
        """KB of operand and of output buffers of an accelerator."""
        operands = 18 * (self.config.activations + self.config.weights)
        return operands / 1024, 4 * self.config.columns * self.config.rows / 1024

    @property
    def leakage_mw(self) -> dict[str, float]:
        """Leakage of all arrays and of all buffers of a chip."""
        operands, outputs = self.kilobytes
        buffers = (operands * self.sram["operand_leakage_mw"]
                   + outputs * self.sram["output_leakage_mw"])
        return {"array": 1e-3 * self.arrays * self.hardware.leakage_uw * self.part,
                "sram": self.arrays * buffers}

    @property
    def area_mm2(self) -> dict[str, float]:
        """Area of a chip by part."""
        operands, outputs = self.kilobytes
        parts = {"arrays": 1e-6 * self.hardware.array_um2 * self.part,
                 "engines": 1e-6 * 2 * self.hardware.engine_um2,
                 "control": 1e-6 * self.shared["control_um2"],
                 "sram": operands * self.sram["operand_mm2"] + outputs * self.sram["output_mm2"]}
        return {name: self.arrays * area for name, area in parts.items()}

    def with_format(self, name: str) -> "Machine":
        """The same machine with the array and the engine of another format."""
        return replace(self, format=name, hardware=_hardware(name, {}), name=name)


    def wide(self) -> "Machine":
        """The machine while it multiplies 8 bits: 16 x 16 products per cycle instead of 32 x 32.

        A group of 32 elements of 8 bits is as long as two of 4 bits, and takes two cycles. So a
        product with ``k`` of 8 bits is one with ``2 * k`` halves of elements, on half the columns,
        at the same power. Buffers hold as many bits as before.

        Raises
        ------
        ValueError
            If there is a single column.
        """
        config = self.config
        if config.columns < 2:
            raise ValueError(f"accelerator.columns must be at least 2 for products of 8 bits, "
                             f"not {config.columns}")
        columns = config.columns // 2
        return replace(self, config=replace(
            config, columns=columns, rows=2 * config.rows,
            weight_width=min(config.weight_width, columns)),
            # The encoder takes a value, of which a product has two halves.
            hardware=self.hardware.scaled(2, bits=(8 + SCALE_BITS) / 2,
                                          engine_fj=self.hardware.engine_fj / 2))


def formats() -> dict[str, dict[str, Any]]:
    """Stored figures of each format, by name; see ``data/hardware.toml``."""
    return packaged("hardware")["formats"]


def _hardware(name: str, given: Mapping[str, Any]) -> Hardware:
    known = formats()
    if name not in known:
        raise ValueError(f"accelerator.format must be one of {', '.join(known)}, not {name!r}")
    figures = {field: known[name][field] for field in Hardware.__dataclass_fields__}
    return Hardware(**{**figures, **given})


def find_machine(config: str, changes: Mapping[str, Any] | None = None) -> Machine:
    """A machine by the name of a configuration, or from a TOML file.

    Parameters
    ----------
    config : str
        One of `hw.accelerator.config.CONFIGS`, or a name that ends in ``.toml``.
    changes : mapping, optional
        Tables whose fields replace those of the file.

    Raises
    ------
    ValueError
        If there is no such configuration, or a field is wrong.
    """
    if config.endswith(".toml"):
        given = checked(read(Path(config), "--config"), RANGES)
    elif config in CONFIGS:
        given = {"accelerator": {"config": config}}
    else:
        raise ValueError(f"--config must be FILE.toml or one of {', '.join(CONFIGS)}, "
                         f"not {config!r}")
    given = merged(given, checked(changes or {}, RANGES))
    tables = merged(packaged("machine"), given)
    of = tables["accelerator"]
    sizes = {name: of[name] for name in _SIZES if name in of}
    try:
        chosen = replace(configuration(of["config"]), **sizes)
    except ValueError as error:
        raise ValueError(f"accelerator.{error}") from None
    return Machine(name=Path(config).stem, config=chosen, format=of["format"],
                   arrays=of["arrays"], clock_mhz=of["clock_mhz"],
                   hardware=_hardware(of["format"], tables.get("format", {})),
                   shared=packaged("hardware")["shared"],
                   **{name: tables[name]
                      for name in ("traffic", "attention", "dram", "sram", "chips")})
