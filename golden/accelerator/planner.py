# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the accelerator's planner (specification sections 14.3 and 14.6 to 14.8).

`check` gives the status of a command. `plan` divides a product into blocks of rows, tiles and
bundles of tiles, and its `Plan` gives the order in which the streams carry operands and results.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..codec.numbers import SPECIAL_ENCODINGS, default_group

SOURCES = RECORDS, VALUES, KEPT = range(3)
RESULTS = VALUES_OUT, RECORDS_OUT, KEEP = range(3)
STATUSES = DONE, BAD_SIZE, BAD_SOURCE, BAD_RESULT, NOT_KEPT, TOO_LARGE = range(6)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The sizes of an accelerator that decide how it divides a product.

    Attributes
    ----------
    columns : int
        Columns of the array. Results can be quantized only if a row of them is a group.
    activations : int
        Records that the activation buffer holds.
    rows : int
        Rows that the output buffer holds.
    weight_width : int
        Weight records per transfer.
    input : str or None
        Type of the values that are quantized on the way in; None if the accelerator takes records
        only.
    framed : bool
        Whether the operand streams mark the last transfer of a command.
    encoding : str
        That of the activations: "elem-em", "sg-em", "sg-special" or "sg-special64". Weights are
        in the same encoding with the last two, else in Sg-EM.
    engine : str or None
        What quantizes values and results in the latter three, as `golden.units.sg_engine` takes it:
        "sg-threshold", "sg-em", "sg-special" or "sg-special64". None if nothing does.
    """

    columns: int = 32
    activations: int
    rows: int
    weight_width: int = 1
    input: str | None = "float32"
    framed: bool = False
    encoding: str = "elem-em"
    engine: str | None = None

    @property
    def group(self):
        """Elements per group."""
        return default_group(self.encoding)

    @property
    def quantizes(self):
        """Whether results can be quantized: a row is a group, and there is an engine."""
        return self.columns == self.group and (self.encoding == "elem-em"
                                               or self.engine is not None)

    @property
    def weight_encoding(self):
        """That of the weights."""
        return self.encoding if self.encoding in SPECIAL_ENCODINGS else "sg-em"


CONFIGS = {
    "paper": Config(activations=8192, rows=288),
    "decode": Config(activations=2048, rows=64, weight_width=8, input="bfloat16"),
    "lite": Config(columns=4, activations=1024, rows=256),
    "tiny": Config(activations=64, rows=16, weight_width=4),
}


def configuration(config: Any) -> "Config":
    """A configuration, given by its name in `CONFIGS` or as anything that has its attributes.

    The hardware's own configurations, which have more attributes, are so accepted.
    """
    if isinstance(config, str):
        return CONFIGS[config]
    if isinstance(config, Config):
        return config
    return Config(**{field.name: getattr(config, field.name) for field in fields(Config)})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a product is divided (specification section 14.6).

    The rows of the result form blocks, and its columns form tiles of as many columns as the array
    has. Bundles are runs of consecutive tiles. The order of all work is::

        for block in blocks:
            for bundle in bundles(len(block)):
                for group in range(groups):         # along K
                    for tile in bundle:
                        for row in block: one step of the array

    A bundle has as many tiles as it takes to have at least eight rows between two sums of the
    same element.

    Attributes
    ----------
    blocks : list of range
        Rows of each block.
    groups, tiles : int
        Groups along K and tiles along N.
    resident : bool
        Whether the activations of a block come once and stay in the buffer. Otherwise they come
        again for each bundle.
    transfers : int
        Transfers of weights per whole tile.
    last_transfers : int
        Transfers of weights of the last tile along N, which may be a partial tile.
    """

    blocks: list
    groups: int
    tiles: int
    resident: bool
    transfers: int
    last_transfers: int

    def bundles(self, rows):
        """Ranges of tiles that form the bundles of a block with this number of rows."""
        width = interleave(rows)
        return [range(start, min(start + width, self.tiles))
                for start in range(0, self.tiles, width)]

    def weight_order(self):
        """Tile and group of every load of weights into the array, in order, as two arrays."""
        orders = {rows: self._tiles(rows) for rows in {len(block) for block in self.blocks}}
        order = [orders[len(block)] for block in self.blocks]
        return tuple(np.concatenate(parts) for parts in zip(*order, strict=True))

    def _tiles(self, rows):
        bundles = self.bundles(rows)
        tile = np.concatenate([np.tile(np.arange(b.start, b.stop), self.groups) for b in bundles])
        group = np.concatenate([np.repeat(np.arange(self.groups), len(b)) for b in bundles])
        return tile, group

    def activation_order(self):
        """Row and group of every incoming activation record, in order, as two arrays."""
        rows, groups = [], []
        for block in self.blocks:
            times = 1 if self.resident else len(self.bundles(len(block)))
            rows.append(np.tile(np.arange(block.start, block.stop), self.groups * times))
            groups.append(np.tile(np.repeat(np.arange(self.groups), len(block)), times))
        return np.concatenate(rows), np.concatenate(groups)

    def result_order(self):
        """Row and tile of every outgoing row of results, in order, as two arrays."""
        rows = [np.tile(np.arange(b.start, b.stop), self.tiles) for b in self.blocks]
        tiles = [np.repeat(np.arange(self.tiles), len(b)) for b in self.blocks]
        return np.concatenate(rows), np.concatenate(tiles)


def interleave(rows):
    """Tiles per bundle of a block with this number of rows: at least eight rows together."""
    return 1 if rows >= 8 else 2 if rows >= 4 else 4 if rows >= 2 else 8


def plan(config, m, k, n):
    """Divides an M x K by K x N product (specification section 14.6).

    Parameters
    ----------
    config : Config
    m, k, n : int
        At least 1.

    Returns
    -------
    Plan
    """
    groups, tiles = -(-k // config.group), -(-n // config.columns)
    fit = config.activations // groups
    transfers = config.columns // config.weight_width
    resident = m <= fit or fit >= transfers
    limit = min(fit, config.rows) if resident else config.rows
    count = -(-m // limit)
    rows, larger = divmod(m, count)
    starts = np.cumsum([0] + [rows + (i < larger) for i in range(count)]).tolist()
    last = n - config.columns * (tiles - 1)
    return Plan(blocks=[range(a, b) for a, b in zip(starts, starts[1:], strict=False)],
                groups=groups, tiles=tiles, resident=resident, transfers=transfers,
                last_transfers=-(-last // config.weight_width))


def check(config, m, k, n, source, result, kept):
    """Status with which a command ends: the first that applies, see specification section 14.3.

    Parameters
    ----------
    config : Config
    m, k, n, source, result : int
        Fields of the command.
    kept : tuple of int or None
        Rows and columns of the result that the command before kept, None if it kept none.

    Returns
    -------
    int
        One of `STATUSES`.
    """
    quantizes = config.quantizes
    if not (m and k and n):
        return BAD_SIZE
    if source not in SOURCES or source == VALUES and config.input is None \
            or source == KEPT and not quantizes:
        return BAD_SOURCE
    if result not in RESULTS or result != VALUES_OUT and not quantizes:
        return BAD_RESULT
    if source == KEPT and kept != (m, k):
        return NOT_KEPT
    together = -(-k // config.group) + -(-n // config.group)
    if result == KEEP and (m > config.rows or m * together > config.activations):
        return TOO_LARGE
    return DONE
