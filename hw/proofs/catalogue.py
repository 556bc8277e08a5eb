# SPDX-License-Identifier: BSD-2-Clause
"""All proofs, and what is not proven."""

from . import (
    accumulation,
    bus,
    codes,
    control,
    quantization,
    selection,
    streams,
    tiles,
    weights,
    wrapper,
)
from .proof import Proof

PROOFS: dict[str, Proof] = {}
for _module in (selection, codes, quantization, weights, tiles, accumulation, streams, control,
                bus, wrapper):
    for _proof in _module.PROOFS:
        if _proof.name in PROOFS:
            raise ValueError(f"There are two proofs {_proof.name}")
        PROOFS[_proof.name] = _proof

HOLES: dict[str, str] = {
    "quantization_engine": "Other rules and input types, records without metadata and the depths "
                           "2, 3 and 8 are tested.",
    "decoder": "Records in Sg-special and Sg-special64 are tested.",
    "weight_encoder": "Only the codes of a subgroup are proven, as a stage by itself: the places "
                      "of values, what a factor gains, the choice of factors and of scales, the "
                      "encoding sg-threshold and the sequence of steps are tested.",
    "nvfp4_quantizer": "Its rounding is tested.",
    "nvfp4_array": "It is tested.",
    "sg_engine": "Its scales, errors and choices are tested.",
    "group_dot": "It is tested.",
    "sg_pe_tile": "The tile with a register and special values are tested.",
    "group_accumulator": "Operands more than 32 binades apart are compared with the larger one, "
                         "not with their exact sum; the wider sums of Sg-special and Sg-special64 "
                         "are tested.",
    "sg_group_dot": "The group's sum for activations with subgroup factors is tested.",
    "wide_group_dot": "The sum of a group of 64 is tested.",
    "pipelines": "Arithmetic behind registers is proven with inputs that stay and an output that "
                 "is always taken; that a result belongs to its input under stalls is for the "
                 "stream rules.",
    "group_mac": "That it is its group_dot and group_accumulator behind each other is tested.",
    "mac_array": "That its columns are those of group_mac, and that a tile stays until the last "
                 "activation has met it, is tested.",
}
"""What is not proven, by unit and subject, one sentence each."""
for _holes in (streams.HOLES, control.HOLES, bus.HOLES):
    HOLES.update(_holes)
