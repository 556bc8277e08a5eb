# SPDX-License-Identifier: BSD-2-Clause
"""Published figures of others: the paper's, and those of open RTL that we synthesized once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .sweep import Point


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper beside the unit of ours that does the same.

    Attributes
    ----------
    name : str
    unit : str
        "um2" for an area, "mW" for a power.
    value : float
        In the paper, 28 nm.
    ours : Point
    share : float
        How many such units do the same.
    """

    name: str
    unit: str
    value: float
    ours: Point
    share: float = 1

    @property
    def label(self) -> str:
        """Our unit in a text."""
        return self.ours.label + ("" if self.share == 1 else f", {self.share:g} of it")

    def measured(self, measured: Mapping[Point, dict[str, Any]]) -> float:
        """Our figure in the same unit: area A, or power under real activity."""
        result = measured[self.ours]
        if self.unit == "um2":
            return self.share * result["area_um2"]
        return result["power"]["real"]["total_uw"] / 1000

    @property
    def is_tile(self) -> bool:
        """Whether it is the area of a PE tile. Ratios of these can be compared across nodes."""
        return self.name.startswith("PE tile") and self.unit == "um2"


PAPER = (
    PaperFigure("PE tile, MXFP4", "um2", 2057.6, Point("pe_tile", ("metadata=False",))),
    # A group of NVFP4 has 16 elements, which one tile takes at once.
    PaperFigure("PE tile, NVFP4", "um2", 2104.7, Point("nvfp4_pe_tile", ("lanes=16",)), 1 / 2),
    PaperFigure("PE tile, M2XFP", "um2", 2140.1, Point("pe_tile", ())),
    PaperFigure("top-1 decode unit", "um2", 82.91, Point("top1_decode", ())),
    PaperFigure("quantization engine", "um2", 2451.47, Point("quantization_engine", ())),
    PaperFigure("PE tile, M2XFP", "mW", 0.211, Point("pe_tile", ())),
    PaperFigure("quantization engine", "mW", 0.663, Point("quantization_engine", ())),
)
"""Hu et al., M2XFP, ASPLOS 2026. The first tile is the one that ratios are to."""


@dataclass(frozen=True)
class OpenRtl:
    """RTL that others have published, synthesized by our recipes.

    Attributes
    ----------
    name : str
    area_um2, delay_ns : float
        Area A and delay T, without clock-to-output and setup.
    remark : str
        What our tests of it found.
    """

    name: str
    area_um2: float
    delay_ns: float
    remark: str


OPEN_RTL = (
    OpenRtl("paper's authors: top-1 detection", 172.9, 0.57, "ties between +x and -x go wrong"),
    OpenRtl("paper's authors: encode unit, 1 subgroup", 419.5, 0.96,
            "no bias and clamp: 85 % of subgroups read back wrong"),
    OpenRtl("paper's authors: quantization engine, 32 lanes, 4 encode units, combinational",
            6886, 3.2, "17 % of FP4 codes wrong (subnormal range), no NaN"),
    OpenRtl("paper's authors: PE tile with FP32 add", 7387, 5.28,
            "missing multiplier filled in; FP32 adder, multiplier and pipeline wrong"),
    OpenRtl("the same for NVFP4", 6848, 4.84, ""),
    OpenRtl("NVFP4 quantization engine, 32 lanes", 134387, 26, ""),
    OpenRtl("cv32e40x-mxdotp M2XFP4 engine, 16 MACs, fused FP32, 5 stages", 12747, 2.62,
            "6373 um2 per 8 MACs; exact on 20,000 vectors; no NaN scale; "
            "flushes subnormal results"),
    OpenRtl("the same, MXFP4", 10046, 2.08, "5023 um2 per 8 MACs"),
    OpenRtl("MX-for-FPGA exact FP4 dot product, 8 lanes", 927, 1.04, "no metadata, integer out"),
    OpenRtl("MX-for-FPGA bfloat16 to MXFP4, 32 lanes", 9433, 2.29, ""),
    OpenRtl("nvfp4 16-lane dot product to FP32", 3562, 2.41, "formally verified; UE4M3 scales"),
)
"""Measured once with Yosys 0.70 and Nangate 45 nm, and quoted here."""
