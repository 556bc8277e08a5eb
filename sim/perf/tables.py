# SPDX-License-Identifier: BSD-2-Clause
"""The model's results as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from hw.report.text_tables import aligned

from . import paper
from .machine import Machine
from .predict import ENERGIES, Layer, Prediction
from .rivals import Entry
from .validate import Check
from .workload import Job


def prediction(one: Prediction) -> str:
    """The layers of a prediction, its totals, and its energy by part."""
    lines = [title(one.job, one.machine), *aligned(layers(one), left=(0, 1, 4))]
    if one.link_cycles:
        lines.append(f"link: {one.link_cycles:,} cycles")
    if one.job.attention:
        lines.append(f"attention: {one.attention:.1%} of the cycles")
    low, high = one.bounds
    lines += [
        f"{one.cycles:,} cycles, {_time(one.seconds)}, {one.tokens_per_second:,.1f} tokens/s, "
        f"use {one.utilisation:.1%} of {one.machine.peak:,} MACs per cycle and chip",
        f"array and DRAM: {low:,} cycles if all overlapped, {high:,} if nothing did",
        f"{one.joules:.4g} J, {1e12 * one.joules / one.macs:.3g} pJ per MAC, "
        f"{one.joules / one.job.rows:.3g} J per token, {_energy(one.energy)}"]
    return "\n".join(lines)


def layers(one: Prediction) -> list[list[str]]:
    """Two rows of headings, and a row for each layer."""
    return [["layer", "M x K x N", "times", "cycles", "limit", "use", "DRAM", "MACs per byte"],
            ["", "", "", "", "", "", "MB", ""],
            *(_layer(layer, one.machine) for layer in by_name(one.layers))]


def title(job: Job, machine: Machine) -> str:
    """One line that says what is predicted, and for what."""
    what = (f"prefill of {job.seq} tokens" if job.phase == "prefill"
            else f"decoding with {job.seq} tokens in the cache")
    with_ = [name for name, on in (("attention", job.attention), ("the head", job.head)) if on]
    layers = f"linear layers{''.join(f' and {name}' for name in with_)}"
    chips = machine.chips["count"]
    return (f"{job.model.name}, {what}, batch {job.batch}: {layers}\n"
            f"on {machine.name}: {machine.format}, "
            + (f"{chips} chips of " if chips > 1 else "")
            + f"{machine.arrays} x {machine.LANES} x {machine.config.columns} MACs at "
            f"{machine.clock_mhz:g} MHz, {machine.dram['bandwidth_gbs']:g} GB/s")


def by_name(layers: Sequence[Layer]) -> list[Layer]:
    """The layers, with the many products of attention added up by name."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        found.setdefault(layer.gemm.name, []).append(layer)
    return [same[0] if len(same) == 1 else _sum(same) for same in found.values()]


def _sum(layers: Sequence[Layer]) -> Layer:
    largest = max(layers, key=lambda layer: layer.macs)
    fields = {name: sum(getattr(layer, name) for layer in layers)
              for name in ("array_cycles", "memory_cycles", "cycles", "read_bits", "written_bits")}
    # Multiplications are those of the largest product, as often as gives their sum.
    share = sum(layer.macs for layer in layers) / largest.gemm.macs
    return Layer(gemm=largest.gemm, copies=share, **fields,   # type: ignore[arg-type]
                 sram={name: sum(layer.sram[name] for layer in layers) for name in largest.sram},
                 energy={part: sum(layer.energy[part] for layer in layers) for part in ENERGIES})


def _layer(layer: Layer, machine: Machine) -> list[str]:
    gemm = layer.gemm
    times = layer.copies * gemm.count
    limit = "array" if layer.array_cycles >= layer.memory_cycles else "DRAM"
    bytes_ = layer.bits / 8
    return [gemm.name, f"{gemm.m} x {gemm.k} x {gemm.n}",
            f"{times:,}" if times == int(times) else f"{times:,.1f}", f"{layer.cycles:,}", limit,
            f"{layer.macs / (machine.peak * layer.cycles):.1%}", f"{1e-6 * bytes_:,.1f}",
            f"{layer.macs / bytes_:,.1f}" if bytes_ else "-"]


def _energy(energy: Mapping[str, float]) -> str:
    total = sum(energy.values())
    parts = [f"{part} {of / total:.1%}" for part, of in energy.items() if of / total > 0.0005]
    return "of which " + ", ".join(parts) if total else "no energy"


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3f} {unit}"
    return f"{1e6 * seconds:.1f} us"


def sweep(name: str, found: Sequence[tuple[str, Prediction]]) -> str:
    """One line for each value of a sweep and each model."""
    rows = [["model", name, "cycles", "time", "tokens/s", "use", "DRAM GB", "J per token", "link"]]
    rows += [[one.job.model.name, value, f"{one.cycles:,}", _time(one.seconds),
              f"{one.tokens_per_second:,.1f}", f"{one.utilisation:.1%}", f"{1e-9 * one.bytes:.3f}",
              f"{one.joules / one.job.rows:.3g}", f"{one.link_cycles / one.cycles:.1%}"]
             for value, one in found]
    return "\n".join(aligned(rows, left=(0,)))


def check(one: Check) -> str:
    """A product in RTL beside the model."""
    gemm = one.gemm
    return (f"{one.layer}, {gemm.m} x {gemm.k} x {gemm.n}: {one.simulated:,} cycles in RTL, "
            f"{one.predicted:,} predicted; records of weights {one.records[0]:,} and "
            f"{one.expected[0]:,}, of activations {one.records[1]:,} and {one.expected[1]:,}; "
            f"{one.mismatches} mismatches against golden")


def comparison(entries: Mapping[str, Sequence[Entry]], machine: Machine) -> str:
    """Formats and designs beside the first of each model.

    Parameters
    ----------
    entries : mapping
        By model, from `sim.perf.rivals.compare`.
    machine : Machine
    """
    rows = comparison_rows(entries)
    return "\n".join([f"{rows[0][1]} = 1, on {machine.name}; DRAM background "
                      f"{machine.dram['background_mw']:g} mW", *aligned(rows, left=(0,))])


def comparison_rows(entries: Mapping[str, Sequence[Entry]]) -> list[list[str]]:
    """The rows of `comparison`, headings first."""
    names = [entry.name for entry in next(iter(entries.values()))]
    rows = [["model", *names]]
    for what, of in (("time", lambda one: one.cycles), ("energy", lambda one: one.joules),
                     ("DRAM", lambda one: one.traffic)):
        rows.append([what, *[""] * len(names)])
        ratios = {model: [of(one) / of(found[0]) for one in found]
                  for model, found in entries.items()}
        rows += [[f"  {model}", *(f"{ratio:.3f}" for ratio in found)]
                 for model, found in ratios.items()]
        for mean in ("arithmetic", "geometric") if len(ratios) > 1 else ():
            values = (paper.means(column)[mean] for column in zip(*ratios.values(), strict=True))
            rows.append([f"  mean, {mean}", *(f"{value:.3f}" for value in values)])
    return rows + _facts(entries)


def _facts(entries: Mapping[str, Sequence[Entry]]) -> list[list[str]]:
    """Rows with bits, areas and losses, which the models share."""
    first = next(iter(entries.values()))
    own = first[0].array_mm2

    def same_area(place: int) -> str:
        area = first[place].array_mm2
        if area is None or own is None:
            return "-"
        ratios = [found[place].cycles / found[0].cycles for found in entries.values()]
        return f"{paper.means(ratios)['arithmetic'] * area / own:.3f}"

    def text(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return [["bits per weight", *(text(one.bits, 2) for one in first)],
            ["arrays and engines, mm2", *(text(one.array_mm2, 3) for one in first)],
            ["time at the same area", *(same_area(place) for place in range(len(first)))],
            ["KL, nats", *(text(one.kl, 3) for one in first)]]


def assumptions() -> str:
    """The table of the paper's assumptions, its means, and what other assumptions give."""
    found = paper.runs()
    names = paper.machines()
    rows = [["", *names, "static", "DRAM", "buffer", "core"],
            ["", *["latency / energy"] * len(names), *["M2XFP"] * 4]]
    for model, of in found.items():
        base, ours = of[paper.BASE], of[paper.OURS]
        rows.append([model, *(f"{of[name].cycles / base.cycles:.4f} / "
                              f"{of[name].total / base.total:.4f}" for name in names),
                     *(f"{energy / base.total:.4f}" for energy in ours.energy.values())])
    lines = ["The paper's assumptions: 1024 multipliers of 4 bits, MX-OliVe = 1",
             *aligned(rows, left=(0,)), "", *_shares(found, names), ""]
    return "\n".join([*lines, *_means(found, names), "", *_variants(found)])


def _shares(found: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    rows = [["cycles of M2XFP, and share of 8 bits", "M2XFP", *names[:-1]]]
    rows += [[model, f"{of[paper.OURS].cycles:,}",
              *(f"{paper.share(name, model):.4f}" for name in names[:-1])]
             for model, of in found.items()]
    return aligned(rows, left=(0,))


def _means(found: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    rows = [["M2XFP's gain over", *names[:-1]]]
    gains = {name: paper.gains(found, name) for name in names[:-1]}
    for what in ("latency", "energy"):
        for mean in ("arithmetic", "geometric"):
            rows.append([f"{what}, {mean} mean",
                         *(f"{paper.means(of[what])[mean]:.4f}" for of in gains.values())])
    rows.append(["energy, ratio of the normalised means",
                 *(f"{paper.ratio_of_means(found, name):.4f}" for name in names[:-1])])
    return aligned(rows, left=(0,))


def _variants(found: Mapping[str, Any]) -> list[str]:
    rows = [["energy of MicroScopiQ over M2XFP's", "arithmetic", "geometric"]]
    rows += [[name, *(f"{mean:.3f}" for mean in paper.means(ratios).values())]
             for name, ratios in paper.variants(found).items()]
    return aligned(rows, left=(0,))
