# SPDX-License-Identifier: BSD-2-Clause
"""The number of cycles that a command takes, in closed form."""

from golden.accelerator.planner import check, interleave, plan
from hw.accelerator.config import Config, configuration
from hw.accelerator.loop_nest import LoopNest
from hw.accelerator.planner import SIZE, Planner, Status

from .accelerator import golden_config

# In the order of `hw.accelerator.planner.Source` and `Result`.
SOURCES = "records", "values", "kept"
RESULTS = "values", "records", "keep"

# Cycles from the offer of a command until the array takes the first transfer of weights; then from
# the last transfer of a tile until the tile is present.
_WEIGHTS = Planner.latency + LoopNest.latency + 1
_PRESENT = 1

# Cycles from the offer of a command until activations arrive; until an activation that is in the
# buffer already may enter the array; and until one that arrives may. They pass through the plan's
# register, into the buffer and out of it. The array's registers before the tiles follow.
_ARRIVALS = Planner.latency + 1 + LoopNest.latency
_KEPT = _ARRIVALS + 1
_ARRIVED = _KEPT + 1


class NoClosedForm(ValueError):
    """An engine holds a command back in a way that no closed form is known of."""


def cycles(config: Config | str, m: int, k: int, n: int, *, source: str = "values",
           result: str = "values") -> int:
    """Cycles of a command, from its offer to its status, both included.

    The number is exactly that of the RTL, if the accelerator has nothing else to do and the
    environment never pauses.

    An activation meets a tile of weights in every cycle, except during three waits. First, the
    command is planned and its first tile loads. Second, a tile takes ``columns / weight_width``
    cycles to load while the tile before is in use, so a tile with r rows lasts D = max(r, that)
    cycles. Third, a partial sum is back B cycles after its use, 2 more than the array's latency: 7
    at its default depth. So the G groups of a bundle of T tiles follow each other after
    P = max(B, T * D) cycles. A bundle therefore takes
    (G - 1) * P + T * D cycles, less the cycles in which the next tile's weights load while sums
    are on their way. A result that is kept may have to wait once, until all of the command's own
    activations have arrived.

    An engine that takes C > 1 cycles for a group holds back the last group of each tile, whose r
    results take C cycles each: (r - 1) (C - 1) more. Values that arrive through it hold back the
    first tile. This is only known of tiles that nothing else holds back, so of blocks of at least
    max(8, B, columns / weight_width) rows, and of values only where there is one block.

    Parameters
    ----------
    config : Config or str
        As `hw.accelerator.accelerator.Accelerator` takes it.
    m, k, n : int
        1 to 2**20 - 1.
    source, result : str
        Source: "records", "values" or "kept"; result: "values", "records" or "keep".

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If there is no such configuration, source or result, or it cannot run the command.
    NoClosedForm
        If an engine holds it back in a way that no closed form is known of: a ValueError, too.
    """
    for name, size in (("m", m), ("k", k), ("n", n)):
        if type(size) is not int or not 1 <= size < 1 << SIZE:
            raise ValueError(f"{name} must be an integer within 1 and {(1 << SIZE) - 1}, "
                             f"not {size!r}")
    for name, value, offered in (("source", source, SOURCES), ("result", result, RESULTS)):
        if value not in offered:
            raise ValueError(f"{name} must be one of {', '.join(offered)}, not {value!r}")
    chosen = golden_config(config)
    code = Status(check(chosen, m, k, n, SOURCES.index(source), RESULTS.index(result), (m, k)))
    if code != Status.DONE:
        raise ValueError(f"The command ends with code {code.value}, {code.name}, on {config}")
    divided = plan(chosen, m, k, n)
    machine = configuration(config)
    # From entering the tiles to the result, which has a register of its own.
    way_out = machine.array_latency - machine.entry + 1
    back = machine.round_trip

    # There are at most two sizes of blocks.
    sizes = [len(block) for block in divided.blocks]
    load = divided.transfers
    # Behind each loop nest, and behind the activation buffer.
    queue = int(machine.queued)
    present = _WEIGHTS + queue + load + _PRESENT
    start = total = max((_KEPT if source == "kept" else _ARRIVED) + 2 * queue + machine.entry,
                        present)
    if divided.tiles > 1 and (divided.groups == 1 or divided.tiles <= interleave(sizes[0])):
        # While the first tile waits for an activation, the second one loads. A second bundle waits
        # for its weights in any case, unless there is a single group.
        total -= max(sizes[0], load) - max(sizes[0], load - (start - present))
    for rows in {*sizes}:
        width = interleave(rows)
        whole, rest = divmod(divided.tiles, width)
        for tiles, count in ((width, whole), (rest, min(rest, 1))):
            total += sizes.count(rows) * count * _bundle(divided.groups, tiles, rows, load, back)[0]
    # The last tile ends with its last row.
    last = divided.tiles % interleave(sizes[-1]) or interleave(sizes[-1])
    tail = _bundle(divided.groups, last, sizes[-1], load, back)[1]
    total += sizes[-1] - tail
    # Cycles between records that arrive, and between results, as far as an engine holds them back.
    coming = machine.engine_pace if source == "values" else 1
    going = machine.engine_pace if result != "values" else 1
    if max(coming, going) > 1:
        least = max(8, back, load)
        if min(sizes) < least or coming > 1 and len(sizes) > 1:
            raise NoClosedForm(
                f"no closed form is known of {m} x {k} x {n} with an engine of "
                f"{machine.engine_cycles} cycles: only of blocks of at least {least} rows, and of "
                "one block where values are quantized")
        total += _held(sizes, divided, going)
    # The first tile ends when the last activation is there, at the latest.
    arrived = _ARRIVED + 2 * queue + machine.entry + (divided.groups * sizes[0] - 1) * coming
    whole = start + divided.groups * max(sizes[0], load) - 1 + (sizes[0] - 1) * (going - 1)
    if coming > 1:
        total += max(0, arrived - whole)
    if result != "values":
        total += machine.engine_latency
    if result == "keep" and source != "kept":
        # Kept results enter the buffer after the command's own activations.
        first = start + (divided.groups - 1) * max(sizes[0], load)
        if coming > 1:
            first = max(first, arrived - (sizes[0] - 1) * coming)
        total += max(0, _ARRIVALS + queue + (divided.groups * sizes[0] - 1) * coming + 1
                     - first - way_out - machine.engine_latency)
    # The status follows in the next cycle; the last cycle counts.
    return total - 1 + way_out + 1 + 1


def _held(sizes, divided, pace):
    """Cycles by which an engine holds back the results of all tiles."""
    # Of each row but the last one of a tile, and between tiles that follow each other sooner.
    rows = sum(divided.tiles * (size - 1) for size in sizes) * (pace - 1)
    gaps = [max(0, pace - 1 - (divided.groups - 1) * size) for size in sizes]
    return rows + sum(divided.tiles * gap for gap in gaps) - gaps[0]


def _bundle(groups, tiles, rows, load, back):
    """Cycles from a bundle to the next one, and cycles of the bundle's last tile."""
    tile = max(rows, load)
    idle = max(0, back - tiles * tile)
    last = max(rows, tile - (groups - 1) * idle)
    return (groups - 1) * max(back, tiles * tile) + (tiles - 1) * tile + last, last


def utilisation(config: Config | str, m: int, k: int, n: int, cycles: int) -> float:
    """Useful multiplications over those that the array could do in the given cycles.

    Raises
    ------
    ValueError
        If there are no cycles.
    """
    if cycles < 1:
        raise ValueError(f"cycles must be at least 1, not {cycles!r}")
    chosen = golden_config(config)
    return m * k * n / (chosen.group * chosen.columns * cycles)


def scale_sim(m: int, k: int, n: int, *, columns: int = 32, rows: int = 32) -> dict[str, int]:
    """Cycles of an array of ``rows`` x ``columns`` by the closed forms of SCALE-Sim 3.0.0.

    The closed forms agree with the traces that SCALE-Sim writes. Its array loads, computes and
    drains one tile after the other.

    Parameters
    ----------
    m, k, n : int
    columns, rows : int

    Returns
    -------
    dict of str to int
        By dataflow.

    Raises
    ------
    ValueError
        If a size is not an integer of at least 1.
    """
    for name, size in (("m", m), ("k", k), ("n", n), ("columns", columns), ("rows", rows)):
        if type(size) is not int or size < 1:
            raise ValueError(f"{name} must be an integer of at least 1, not {size!r}")
    blocks, groups, tiles = -(-m // rows), -(-k // rows), -(-n // columns)
    return {"output-stationary": blocks * tiles * (k + rows + columns - 2) - 1,
            "weight-stationary": groups * tiles * (m + 2 * rows + columns - 2) - 1}
