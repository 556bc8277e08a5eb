# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Tiles of weights that load in the shadow of the present one."""

import numpy as np
import pytest
from amaranth import Cat, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.shadow_tile import shadow_tile, stationary_weights
from sim.engines.amaranth import Simulated


class Tile(wiring.Component):
    """Shows the present tile, which ``consumed`` ends."""

    def __init__(self, transfers):
        self.transfers = transfers
        super().__init__({"i": In(stream.Signature(8)), "consumed": In(1), "present": Out(1),
                          "o": Out(8 * transfers)})

    def elaborate(self, platform):
        m = Module()
        tile = shadow_tile(m, self.i, self.transfers)
        m.d.comb += [
            self.present.eq(tile.present),
            tile.consumed.eq(self.consumed & tile.present),
            self.o.eq(Cat(stationary_weights(m, self.i.payload, swap=tile.swap,
                                             load=tile.load & (tile.position == n))
                          for n in range(self.transfers))),
        ]
        return m


@pytest.mark.parametrize("transfers", [1, 2, 3, 4])
@pytest.mark.parametrize("offered, used", [(1, 1), (0.5, 1), (1, 0.2), (0.5, 0.3)])
def test_tiles_come_in_order(transfers, offered, used):
    unit, rng = Tile(transfers), np.random.default_rng(transfers)
    sent, seen = [], []

    async def bench(ctx):
        ctx.set(unit.i.payload, 0)
        valid = False
        for _ in range(240):
            valid = valid or rng.random() < offered
            ctx.set(unit.i.valid, valid)
            ctx.set(unit.i.payload, len(sent) % 256)
            consumed = bool(rng.random() < used)
            ctx.set(unit.consumed, consumed)
            _, _, ready, present, tile = await ctx.tick().sample(
                unit.i.ready, unit.present, unit.o)
            if present and consumed:
                seen.append(tile)
            if valid and ready:
                sent.append(len(sent) % 256)
                valid = False

    Simulated(unit).run(bench)
    tiles = [int.from_bytes(bytes(sent[n : n + transfers]), "little")
             for n in range(0, len(sent), transfers)]
    assert len(seen) > 10 and seen == tiles[: len(seen)]
    # Two tiles at most are inside.
    assert len(sent) - len(seen) * transfers <= 2 * transfers
    if offered == used == 1:
        # One transfer loads per cycle: a tile is there every `transfers` cycles, and none waits.
        assert len(seen) >= (240 - 2) // transfers - 1
