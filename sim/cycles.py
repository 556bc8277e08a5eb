"""How many cycles a command takes, in closed form."""

from golden.accelerator.planner import check, interleave, plan
from hw.accelerator.accelerator import RESULT_ENGINE_DEPTH
from hw.accelerator.loop_nest import LoopNest
from hw.accelerator.planner import SIZE, Planner, Status
from hw.units.mac_array import MacArray

from .accelerator import golden_config

# In the order of `hw.accelerator.planner.Source` and `Result`.
SOURCES = "records", "values", "kept"
RESULTS = "values", "records", "keep"

# Cycles from a command's being offered until tiles of weights are read from their buffer, and
# one of the array's transfers of them is taken; and then until they are present.
_WEIGHTS = Planner.latency + LoopNest.latency + 1
_PRESENT = 1

# The same until activations arrive, and until the first of them, or one that is there already, may
# enter the tiles: the plan's register, its way into the buffer and out of it, the array's register.
_ARRIVALS = Planner.latency + 1 + LoopNest.latency
_KEPT = _ARRIVALS + 2
_ARRIVED = _KEPT + 1

# From there to the result, which has a register of its own.
_RESULT = MacArray.latency - 1 + 1

# From a partial sum's activation to the next one's of the same sum: through the array and back.
_BACK = MacArray.latency + 2


def cycles(config, m, k, n, *, source="values", result="values"):
    """Cycles of a command, from its being offered to its status, both included.

    Exactly those of the RTL, for a machine that has nothing else to do and an environment that
    never pauses.

    An activation meets a tile of weights in every cycle, but for three waits. The command is
    planned and its first tile loaded. A tile takes ``columns / weight_width`` cycles to load,
    behind the one before: with r rows it lasts D = max(r, that). And a partial sum is back 7
    cycles after it was used, so the G groups of a bundle of T tiles follow each other after
    P = max(7, T * D). A bundle thus takes (G - 1) * P + T * D, less what the next tile's
    weights load while sums are waited for. A result that is kept may have to wait, once, until
    all of the command's own activations have arrived.

    Parameters
    ----------
    config : Config or str
        As of `hw.accelerator.accelerator.Accelerator`.
    m, k, n : int
        1 to 2**20 - 1.
    source, result : str
        "records" or "values" or, as the source, "kept"; "values", "records" or "keep".

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If there is no such configuration, source or result, or the command cannot run.
    """
    for name, size in (("m", m), ("k", k), ("n", n)):
        if type(size) is not int or not 1 <= size < 1 << SIZE:
            raise ValueError(f"{name} must be an integer within 1 and {(1 << SIZE) - 1}, "
                             f"not {size!r}")
    for name, value, offered in (("source", source, SOURCES), ("result", result, RESULTS)):
        if value not in offered:
            raise ValueError(f"{name} must be one of {', '.join(offered)}, not {value!r}")
    sizes = golden_config(config)
    code = Status(check(sizes, m, k, n, SOURCES.index(source), RESULTS.index(result), (m, k)))
    if code != Status.DONE:
        raise ValueError(f"The command ends with code {code.value}, {code.name}, on {config}")
    divided = plan(sizes, m, k, n)

    # Blocks come in at most two sizes.
    sizes = [len(block) for block in divided.blocks]
    load = divided.transfers
    start = total = max(_KEPT if source == "kept" else _ARRIVED, _WEIGHTS + load + _PRESENT)
    for rows in {*sizes}:
        width = interleave(rows)
        whole, rest = divmod(divided.tiles, width)
        for tiles, count in ((width, whole), (rest, min(rest, 1))):
            total += sizes.count(rows) * count * _bundle(divided.groups, tiles, rows, load)[0]
    # The last tile of all ends with its last row.
    last = divided.tiles % interleave(sizes[-1]) or interleave(sizes[-1])
    tail = _bundle(divided.groups, last, sizes[-1], load)[1]
    total += sizes[-1] - tail
    if result != "values":
        total += RESULT_ENGINE_DEPTH
    if result == "keep" and source != "kept":
        # What is kept follows the command's own activations into the buffer.
        first = (start + (divided.groups - 1) * max(sizes[0], load) + _RESULT
                 + RESULT_ENGINE_DEPTH)
        total += max(0, _ARRIVALS + divided.groups * sizes[0] - first)
    # The status follows in the next cycle; the last cycle counts.
    return total - 1 + _RESULT + 1 + 1


def _bundle(groups, tiles, rows, load):
    """Cycles of a bundle to the start of the next, and those of its last tile alone."""
    tile = max(rows, load)
    idle = max(0, _BACK - tiles * tile)
    last = max(rows, tile - (groups - 1) * idle)
    return (groups - 1) * max(_BACK, tiles * tile) + (tiles - 1) * tile + last, last


def utilisation(config, m, k, n, cycles):
    """Products of elements over those that the array could do in so many cycles."""
    return m * k * n / (32 * golden_config(config).columns * cycles)


def scale_sim(m, k, n, *, columns=32):
    """Cycles that SCALE-Sim 3.0.0 gives an array of 32 x ``columns``, by its closed forms.

    They agree with the traces that it writes. It loads, computes and drains one tile after the
    other.

    Parameters
    ----------
    m, k, n : int
    columns : int

    Returns
    -------
    dict of str to int
        By dataflow.
    """
    rows, groups, tiles = -(-m // 32), -(-k // 32), -(-n // columns)
    return {"output-stationary": rows * tiles * (k + 30 + columns) - 1,
            "weight-stationary": groups * tiles * (m + 62 + columns) - 1}
