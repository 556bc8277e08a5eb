# SPDX-License-Identifier: BSD-2-Clause
"""Tiles of weights that stay in an array while the next one loads."""

from types import SimpleNamespace

from amaranth import *


def check_columns(columns, weight_width):
    """Raises ValueError unless an array can have these columns, and weights in these transfers."""
    if type(columns) is not int or columns < 1:
        raise ValueError(f"Columns must be a positive integer, not {columns!r}")
    if type(weight_width) is not int or weight_width < 1 or columns % weight_width:
        raise ValueError(f"Weight width must be a divisor of {columns} columns, "
                         f"not {weight_width!r}")


def stationary_weights(m, weight, *, load, swap, beside=None):
    """A column's part of both tiles.

    Parameters
    ----------
    m : Module
    weight : View
        Goes into the shadow's register with ``load``.
    load, swap : Value
        ``swap`` makes what the shadow has the present weights.
    beside : callable, optional
        Makes of the shadow's weights what is held beside the present ones.

    Returns
    -------
    Signal, or a pair of them with ``beside``
        The present weights.
    """
    shadow = Signal.like(weight, name="shadow", reset_less=True)
    stationary = Signal.like(weight, name="stationary", reset_less=True)
    with m.If(load):
        m.d.sync += shadow.eq(weight)
    with m.If(swap):
        m.d.sync += stationary.eq(shadow)
    if beside is None:
        return stationary
    held = Signal.like(beside(shadow), name="beside", reset_less=True)
    with m.If(swap):
        m.d.sync += held.eq(beside(shadow))
    return stationary, held


def shadow_tile(m, weights, transfers):
    """Fills a shadow tile from a stream, and says when it takes over from the present tile.

    The shadow tile fills from its first transfer on. It takes over when the present one has met its
    last activation, or at once if there is none. The next tile's first transfer may follow in the
    cycle in which the shadow takes over.

    Parameters
    ----------
    m : Module
    weights : stream, taken from
        Only its handshake is used.
    transfers : int, at least 1
        Transfers per tile.

    Returns
    -------
    SimpleNamespace of Signal
        One bit each but ``position``. ``present``: there is a present tile; ``load``: a transfer
        goes into the shadow, as number ``position`` of its tile; ``swap``: the shadow takes over.
        The caller sets ``consumed``: the present tile meets its last activation in this cycle.
    """
    present = Signal()
    full = Signal()
    position = Signal(range(transfers))
    consumed = Signal()
    swap = Signal()
    load = Signal()
    load_last = Signal()
    # Weights: the shadow tile fills from column 0 on. It takes over when the present one
    # has met its last activation, or at once if there is none.
    m.d.comb += [
        swap.eq(full & (~present | consumed)),
        weights.ready.eq(~full | swap),
        load.eq(weights.valid & weights.ready),
        load_last.eq(load & (position == transfers - 1)),
    ]
    m.d.sync += [
        full.eq(load_last | (full & ~swap)),
        present.eq(swap | (present & ~consumed)),
    ]
    with m.If(load):
        m.d.sync += position.eq(Mux(load_last, 0, position + 1))
    return SimpleNamespace(present=present, load=load, position=position, swap=swap,
                           consumed=consumed)
