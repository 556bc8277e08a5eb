# SPDX-License-Identifier: BSD-2-Clause
"""All that the model says of some models on one page: ``python -m sim perf --report FILE.html``.

The page needs nothing else: no network, no script, no file beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from hw.report import markup

from . import costs, drawings, paper, tables
from .machine import Machine
from .models import PAPER
from .predict import Prediction
from .rivals import Entry
from .workload import Job

SWEEPS: list[tuple[str, dict[str, Any]]] = [
    ("batch=1,2,4,8,16,32,64", {"phase": "decode", "attention": False}),
    ("seq=1024,2048,4096,8192,16384,32768", {"phase": "prefill", "batch": 1, "attention": True}),
    ("dram.bandwidth_gbs=1,2,4,8,16,32,64,128", {}),
    ("accelerator.arrays=1,2,4,8,16", {})]
"""Sweeps of a page without one of its own, and the options that they set."""

Sweep = tuple[str, Sequence[tuple[str, Prediction]]]


def comparable(jobs: Sequence[Job], machine: Machine) -> bool:
    """Whether formats and designs can be compared with these jobs."""
    return machine.chips["count"] == 1 and not any(job.attention or job.head for job in jobs)


def known(jobs: Sequence[Job]) -> bool:
    """Whether the paper's authors have shares of 8 bits for all models."""
    return all(job.model.name in PAPER for job in jobs)


def page(found: Sequence[Prediction], entries: Mapping[str, Sequence[Entry]] | None,
         sweeps: Sequence[Sweep], command: str) -> str:
    """Makes the page.

    Parameters
    ----------
    found : sequence of Prediction
        On one machine, a prediction for each model.
    entries : mapping, optional
        By model, from `sim.perf.rivals.compare`.
    sweeps : sequence of (str, sequence)
        What was swept, and each value with its prediction.
    command : str
        The command line.

    Returns
    -------
    str
        HTML.
    """
    machine = found[0].machine
    sections = [("models", "Models", _models(found, sweeps)), ("layers", "Layers", _layers(found)),
                ("energy", "Energy by part", _energy(found))]
    if entries is not None:
        sections.append(("formats", "Formats and designs", _compared(found, entries)))
    sections += [("scaling", "Scaling", _scaling(sweeps)), ("costs", "Costs and their sources",
                                                             _costs(machine, command))]
    about = (f"{machine.format} on {machine.name}: {machine.arrays} x {machine.LANES} x "
             f"{machine.config.columns} MACs at {machine.clock_mhz:g} MHz, "
             f"{machine.dram['bandwidth_gbs']:g} GB/s"
             + (f", {machine.chips['count']} chips" if machine.chips["count"] > 1 else "")
             + ". Cycles of the array are exact; hardware is synthesized at 45 nm, before layout, "
             "without wires and clock tree. docs/performance.md says what all of it means.")
    return markup.document("m2xfp-rtl: performance model", about, [
        (key, title, "".join(make)) for key, title, make in sections])


def _models(found: Sequence[Prediction], sweeps: Sequence[Sweep]) -> Iterator[str]:
    what = tables.title(found[0].job, found[0].machine).partition(", ")[2].partition("\n")[0]
    yield markup.text(f"{what[0].upper()}{what[1:]}.")
    yield markup.table(
        ("model", "cycles", "s", "tokens/s", "use", "DRAM GB", "J", "pJ per MAC", "mJ per token"),
        [(one.job.model.name, f"{one.cycles:,}", f"{one.seconds:.4g}",
          f"{one.tokens_per_second:,.4g}", f"{one.utilisation:.1%}", f"{1e-9 * one.bytes:,.4g}",
          f"{one.joules:.4g}", f"{1e12 * one.joules / one.macs:.3g}",
          f"{1e3 * one.joules / one.job.rows:.3g}") for one in found], left=(0,))
    # What one model does in batches shows the roof's other side.
    batches = [[one for _, one in of if one.job.model == found[0].job.model]
               for words, of in sweeps if words.startswith("batch=")]
    yield markup.images([drawings.roofline(of) for of in [found, *batches]],
                        "Multiplications per second of each layer over its multiplications per "
                        "byte of DRAM traffic")
    yield markup.text("Each mark is a layer. Left of the roof's corner DRAM limits, right of it "
                      "the array; a mark below the roof has too few rows to hide the loading of "
                      "weights. Many layers lie on each other.")


def _layers(found: Sequence[Prediction]) -> Iterator[str]:
    for one in found:
        low, high = one.bounds
        yield (f"<details{' open' * (one is found[0])}><summary>"
               f"{escape(one.job.model.name)}: {one.cycles:,} cycles</summary>\n")
        head, units, *rows = tables.layers(one)
        yield markup.table([" ".join(filter(None, pair)) for pair in zip(head, units, strict=True)],
                           rows, left=(0, 1, 4))
        yield markup.text(f"Array and DRAM: {low:,} cycles if all overlapped, {high:,} if nothing "
                          "did.") + "</details>\n"


def _energy(found: Sequence[Prediction]) -> Iterator[str]:
    yield markup.images([drawings.breakdown(found)], "Energy of a token by part")
    rows = []
    for one in found:
        energy = drawings.grouped(one.energy)
        total = sum(energy.values())
        rows.append((one.job.model.name, f"{one.joules:.4g}",
                     *(f"{of / total:.1%}" for of in energy.values())))
    yield markup.table(("model", "J", *drawings.PARTS), rows, left=(0,))
    yield markup.text("Light parts stand: they take energy as long as the chip works, whatever it "
                      "does.")


def _compared(found: Sequence[Prediction], entries: Mapping[str, Sequence[Entry]]
              ) -> Iterator[str]:
    machine = found[0].machine
    studies = {drawings.title(machine): drawings.of_entries(entries)}
    if known([one.job for one in found]):
        names = [one.job.model.name for one in found]
        yield markup.images([drawings.normalised({
            "The paper's assumptions: MX-OliVe = 1": drawings.of_paper(names)})],
            "Normalised time and energy under the paper's assumptions", whole=True)
        yield markup.text("The authors' simulator, from the inputs that they publish. A design "
                          "runs layers at 8 bits so that it is as accurate as M2XFP.")
    yield markup.images([drawings.normalised(studies)],
                        "Normalised time and energy on our hardware", whole=True)
    head, *rows = tables.comparison_rows(entries)
    yield markup.table(head, rows, left=(0,))
    yield markup.text("Linear layers, in as many blocks as the paper's authors count of a model. "
                      "MXFP8 and the designs of others are not built here: their figures rest on "
                      "assumptions, see docs/performance.md.")
    if known([one.job for one in found]) and len(found) == len(PAPER):
        runs = paper.runs()
        gains = {name: paper.means(paper.gains(runs, name)["latency"])["arithmetic"]
                 for name in paper.machines() if name != paper.OURS}
        yield markup.text("M2XFP's gain in time, arithmetic mean over the six models: " + ", ".join(
            f"{gain:.3f} over {name}" for name, gain in gains.items()) + ".")


def _scaling(sweeps: Sequence[Sweep]) -> Iterator[str]:
    drawn = []
    for words, found in sweeps:
        name = words.partition("=")[0]
        job = found[0][1].job
        what = [job.phase, *([f"{job.seq} tokens"] if name != "seq" else []),
                *([f"batch {job.batch}"] if name != "batch" else []),
                "linear layers" + " and attention" * job.attention]
        drawn.append(drawings.scaling(name, found, ", ".join(what)))
    yield markup.images(drawn, "Tokens per second, energy of a token and use of the arrays")


def _costs(machine: Machine, command: str) -> Iterator[str]:
    yield markup.text("Command:") + markup.pre(command)
    yield markup.table(
        ("part", "of them", "area um2", "leakage mW", "clock mW", "pJ per action", "source"),
        [(part.name, part.count, f"{part.area_um2:,.0f}", f"{part.leakage_mw:.4g}",
          f"{part.clock_mw:.4g}",
          markup.line(", ".join(f"{name} {energy:.4g}" for name, energy in part.actions.items())),
          part.source) for part in costs.parts(machine)], left=(0, 5, 6))
    yield markup.text("Area, power and energy are of one part. A read or a write moves a record or "
                      "a row. The clock of an array is there also while it waits; a step is what "
                      "comes on top. python -m sim perf --export writes this for other tools.")
    assumed = {**{f"dram.{name}": of for name, of in machine.dram.items()},
               **{f"traffic.{name}": of for name, of in machine.traffic.items()},
               **{f"chips.{name}": of for name, of in machine.chips.items()}}
    yield markup.table(("field", "value"), [(name, f"{of:g}" if isinstance(of, float) else of)
                                            for name, of in assumed.items()], left=(0,))
