# SPDX-License-Identifier: BSD-2-Clause
"""What a driver or a neighbour must know of a unit, for its JSON description."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from amaranth.lib import wiring

from ..accelerator.config import Config
from ..lib.formats import SUBGROUP

_ORDERS = {
    "i_weight": "Per block of rows, bundle of tiles, group along K and tile: the records of the "
                "tile's columns in ascending order, weight_width per transfer, the first in the "
                "lowest bits. Records beyond N only fill the last transfer of a tile",
    "i_activation": "Source RECORDS. Per block of rows, and again per bundle of tiles unless the "
                    "block is resident: per group along K, the rows of the block in ascending "
                    "order",
    "i_value": "Source VALUES. As i_activation, with {group} values in place of each record, "
               "filled up with +0 beyond K",
    "o": "Result VALUES. Per block of rows and tile: the rows of the block in ascending order. "
         "Columns beyond N are +0. last is 1 in the last row of the command",
    "o_record": "Result RECORDS. As o, with a record in place of each row",
    "o_status": "One status per command, in the order of the commands",
    "i_command": "One command per product",
    "o_misframed": "Marks of operands that are missing or too early (section 14.9)",
}

# Streams whose last transfer of a command is marked in a framed configuration.
_MARKED = ("i_weight", "i_activation", "i_value")
_MARK = ". last is 1 in the command's last transfer on this stream"


def machine(component: wiring.Component) -> dict[str, Any] | None:
    """Sizes of a machine and the order of its operands; None for a unit without a configuration.

    Returns
    -------
    dict or None
        "sizes" are the fields of `hw.accelerator.config.Config`, and sizes of the format. "order"
        has a text for each stream, and where there is a function that computes the order.
    """
    config = getattr(component, "config", None)
    if not isinstance(config, Config):
        return None
    streams = component.signature.members
    marked = _MARKED if dataclasses.asdict(config)["framed"] else ()
    return {
        "sizes": dataclasses.asdict(config) | {
            "group": config.group, "subgroup": SUBGROUP,
            # In memory: elements, metadata and scale, the first in the lowest byte.
            "record_bytes": config.record.size // 8},
        "order": {
            "streams": {name: text.format(group=config.group) + _MARK * (name in marked)
                        for name, text in _ORDERS.items() if name in streams},
            "function": "m2xfp_order",
            "where": "docs/driving.md, The order of operands (C99)",
            "driver": "examples/driver/m2xfp.c, m2xfp_walk_next and m2xfp_pack_... (C99)",
            "specification": "docs/specification/14-commands.md, sections 14.6 to 14.8",
        },
    }


def lanes(description: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The place of every number in the payload of each stream, and in each plain port.

    Returns
    -------
    dict of str to list of dict
        By stream or port: "field" is the path of its name, empty for a plain number. The number
        with the indices i, j, ... is in the bits ``lsb + i * stride_i + j * stride_j + ... +:
        width``, where "dimensions" has count and stride of each index. Lane 0 is always lowest.
    """
    ports = {port["name"]: port for port in description["ports"]}
    of_streams = {stream[part] for stream in description["streams"]
                  for part in ("payload", "valid", "ready")}
    found = {stream["name"]: _leaves(ports[stream["payload"]])
             for stream in description["streams"] if stream["payload"]}
    return found | {name: _leaves(port) for name, port in ports.items() if name not in of_streams}


def _leaves(shape, path="", lsb=0, dimensions=()):
    """The numbers in a shape as `hw.generate.describe` describes it."""
    if "fields" in shape:
        return [leaf for field in shape["fields"] for leaf in _leaves(
            field, f"{path}.{field['name']}".lstrip("."), lsb + field["lsb"], dimensions)]
    if "length" in shape:
        element = shape["element"]
        index = {"count": shape["length"], "stride": element["width"]}
        return _leaves(element, path, lsb, (*dimensions, index))
    return [{"field": path, "lsb": lsb, "width": shape["width"], "signed": shape["signed"],
             "dimensions": list(dimensions)}]


def reset_contract(description: Mapping[str, Any]) -> dict[str, Any] | None:
    """The reset of a clocked unit with its contract, specification section 16.3."""
    reset = description["reset"]
    if reset is None:
        return None
    if reset["synchronous"]:
        edges = {"cycles": 1, "assertion": "Sampled at the rising edge; one edge suffices"}
    else:
        edges = {"cycles": 0, "assertion": "At once, without a clock edge; the release must be "
                                           "synchronous to the clock"}
    return reset | edges | {
        "before": "All state and outputs are undefined; no register has an initial value",
        "clears": "Every valid of an output stream, all control and all registers; operands that "
                  "were taken are discarded",
        "keeps": "Payload registers and memories, whose contents never reach a valid output",
        "during": "Hold valid at 0: a transfer at an edge with reset is lost",
    }
