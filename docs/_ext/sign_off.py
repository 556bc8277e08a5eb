# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The sign-off list: what each unit has reached, from the tree and from ``docs/evidence``.

``python docs/_ext/sign_off.py --refresh`` emits all designs again and renews what is still true of
them. ``--keep mutants FILE`` takes over what ``python -m tests.mutate --json FILE`` wrote, and
``--keep proofs FILE`` a list of proofs, each with its "unit", "name" and "verdict".
"""

import argparse
import hashlib
import inspect
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import unit_tables  # noqa: E402

from hw import registry  # noqa: E402
from hw.tools.files import write  # noqa: E402
from sim import evidence, soak  # noqa: E402

FOLDER = ROOT / "docs" / "evidence"
COVERAGE_KINDS = ("lines", "branches", "states", "toggles")
SOAK_CYCLES = 10**8
KILLED = 0.99


@dataclass(frozen=True)
class Found:
    """What was found for a criterion.

    Attributes
    ----------
    state : str
        "yes", "hole", "stale", or "" where the criterion is not about the unit.
    text : str
        What there is, or what is missing.
    """

    state: str
    text: str = ""


@dataclass(frozen=True)
class Criterion:
    """What a stage demands.

    Attributes
    ----------
    stage : str
    demand : str
        In words.
    find : callable
        Takes the name of a unit and returns a `Found`.
    """

    stage: str
    demand: str
    find: object


@cache
def load(kind):
    """What ``docs/evidence`` has of a kind, or None."""
    path = FOLDER / f"{kind}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def fresh(entry):
    """Whether a run was with the present sources, or with others that emit the same Verilog."""
    return entry["sources"] == evidence.sources()


def entries(kind, name):
    """Entries of a kind that are of one unit."""
    return [entry for entry in load(kind) or () if entry["unit"] == name]


def judged(stale, text, missing):
    """A `Found`: what is missing is a hole; what is stale does not count."""
    if missing:
        return Found("hole", missing)
    return Found("stale", text) if stale else Found("yes", text)


def specified(name):
    component = registry.offered()[name].component
    texts = [inspect.getdoc(component) or "", sys.modules[component.__module__].__doc__ or ""]
    if name in registry.UNITS:
        texts.append(inspect.getdoc(registry.UNITS[name].reference) or "")
    page = ROOT / "docs" / "units" / f"{name}.md"
    if not page.exists():
        return Found("hole", "it has no page")
    texts.append(page.read_text(encoding="utf-8"))
    if not any(re.search(r"[Ss]pecification|specification/", text) for text in texts):
        return Found("hole", "nothing names its section of the specification")
    return Found("yes", f"`docs/units/{name}.md`")


def synthesised(name):
    figures = unit_tables.report()["units"].get(name)
    if figures is None:
        return Found("hole", "no figures of synthesis")
    return Found("yes", f"{figures['area_um2']:,.0f} um²")


def equivalent(name):
    found = [*(["`.ci/run`"] if any(name in shlex.split(command)
                                    for command in unit_tables.proofs()) else []),
             *(["`tests/hw/test_generate.py`"] if name in unit_tables.test_proofs() else [])]
    return Found("yes", ", ".join(found)) if found else Found("hole", "nothing proves its Verilog")


def reset(name):
    component = registry.offered()[name].component
    chosen = registry.parameters(name, units=registry.offered())
    if not component(**chosen).latency:
        return Found("", "no clock")
    # Those of one stream in and one out are reset by a test over the registry.
    everywhere = {"test_valid_does_not_wait_and_reset_empties"} & {
        *unit_tables.tests(ROOT / "tests/hw/test_registry.py")}
    ports = component(**chosen).signature.members
    if everywhere and {*ports} == {"i", "o"}:
        return Found("yes", "`tests/hw/test_registry.py`")
    paths = [*sorted((ROOT / "tests" / "hw").rglob(f"test_{name}.py")),
             ROOT / "tests" / "hw" / "test_reset.py"]
    for path in paths:
        own = path.name == f"test_{name}.py" or f'"{name}": ' in path.read_text(encoding="utf-8")
        if own and any("reset" in test for test in unit_tables.tests(path)):
            return Found("yes", f"`{path.relative_to(ROOT)}`")
    return Found("hole", "no test of its own resets it in flight")


def compared(name):
    paths = sorted((ROOT / "tests" / "hw").rglob(f"test_{name}.py"))
    if name in registry.ASSEMBLIES:
        paths += sorted((ROOT / "tests" / "hw" / "bus").glob("test_axi_lite.py"))
    if not paths:
        return Found("hole", "it has no file of tests")
    count = sum(len(unit_tables.tests(path)) for path in paths)
    return Found("yes", f"{count} tests")


def parameter_sets(name):
    """Settings of which cosimulation or coverage has a run that is still true."""
    return [entry["settings"] for kind in ("cosim", "coverage") for entry in entries(kind, name)
            if fresh(entry)]


def cosimulated(name):
    wanted = [[], *registry.each_alone(name)]
    known = [entry["settings"] for kind in ("cosim", "coverage") for entry in entries(kind, name)]
    now = parameter_sets(name)
    missing = [settings for settings in wanted if settings not in known]
    text = f"{sum(settings in now for settings in wanted)} of {len(wanted)} sets"
    return judged(any(settings not in now for settings in wanted), text,
                  missing and "no run against golden of " + ", ".join(
                      " ".join(settings) or "the defaults" for settings in missing))


def covered(name):
    found = entries("coverage", name)
    if not found:
        return Found("hole", "coverage was not measured")
    missed = [place for entry in found for place in entry["missed"]]
    figures = totals(found)
    text = ", ".join(f"{kind} {cell}" for kind, cell in figures.items() if cell)
    return judged(not all(map(fresh, found)), text,
                  missed and f"{len(missed)} points are missed: {'; '.join(missed)}")


def waived(name):
    found = [place for entry in entries("coverage", name) for place in entry["waived"]]
    open_ones = [place for place in found if place.endswith(" Not proven.")]
    if not found:
        return Found("", "nothing is waived")
    return Found("hole", f"waived without proof: {'; '.join(open_ones)}") if open_ones \
        else Found("yes", f"{len(found)} waivers, all proven")


def proven(name):
    kept = load("proofs")
    rows = [row for row in (kept or {}).get("rows", ()) if row["unit"] == name]
    if not rows:
        return Found("hole", "no claim about it is proven")
    bad = [row["name"] for row in rows if not row.get("good", row["verdict"] == "proven")]
    return judged(not fresh(kept), f"{len(rows)} claims",
                  bad and f"not proven: {', '.join(bad)}")


def modules(name):
    """Source files of a unit, without those that units share."""
    own = Path(inspect.getsourcefile(registry.offered()[name].component)).relative_to(ROOT)
    pattern = {"accelerator": "hw/accelerator/*.py", "axi_accelerator": "hw/bus/axi_*.py"}.get(
        name, own.as_posix())
    # A file without logic has no faults.
    return [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob(pattern))
            if "def elaborate" in path.read_text(encoding="utf-8")]


def attacked(name):
    kept = load("mutants") or {"rows": (), "modules": {}}
    rows = [row for row in kept["rows"] if row["verdict"] != "not tried"]
    files = modules(name)
    missing = [file for file in files if not any(row["module"] == file for row in rows)]
    if missing:
        return Found("hole", "no faults were put into " + ", ".join(f"`{f}`" for f in missing))
    rows = [row for row in rows if row["module"] in files]
    alive = sum(row["verdict"] == "alive" for row in rows)
    real = sum(row["verdict"] != "equivalent" for row in rows)
    text = f"{real - alive} of {real} faults killed"
    return judged(any(kept["modules"].get(file) != file_digest(file) for file in files), text,
                  real - alive < KILLED * real and text)


def soaked(name):
    if name != "accelerator":
        return Found("")
    kept = load("soak")
    if kept is None:
        return Found("hole", "no soak was run")
    cycles = sum(machine["cycles"] for machine in kept["machines"].values())
    text = f"{cycles:,} cycles, seed {kept['seed']}"
    return judged(not fresh(kept), text, cycles < SOAK_CYCLES and
                  f"{text}, of {SOAK_CYCLES:,} wanted")


def toggled(name):
    found = entries("coverage", name)
    if not found:
        return Found("hole", "toggles were not counted")
    return judged(not all(map(fresh, found)),
                  ", ".join(filter(None, [totals(found)["toggles"]])), "")


CRITERIA = (
    Criterion("D1", "specified: a section of the specification, and a page", specified),
    Criterion("D2", "built: figures of synthesis", synthesised),
    Criterion("D3", "Verilog proven equivalent to what is simulated", equivalent),
    Criterion("D3", "reset in flight is tested", reset),
    Criterion("V1", "tests against a golden reference", compared),
    Criterion("V2", "every offered value of every parameter ran against golden", cosimulated),
    Criterion("V2", "all lines, branches and states are covered or waived", covered),
    Criterion("V3", "bits that toggled are counted", toggled),
    Criterion("V3", "every waiver is proven", waived),
    Criterion("V3", "claims are proven for all inputs", proven),
    Criterion("V3", f"at least {KILLED:.0%} of the faults in its module are killed", attacked),
    Criterion("V3", f"a soak of at least {SOAK_CYCLES:,} cycles", soaked),
)


def totals(found):
    """Points seen of those that are not waived, by kind, over modules and settings."""
    sums = {kind: [0, 0, 0] for kind in COVERAGE_KINDS}
    for entry in found:
        for cells in entry["modules"].values():
            for kind in COVERAGE_KINDS:
                sums[kind] = [a + b for a, b in zip(sums[kind], cells[kind], strict=True)]
    return {kind: f"{seen:,} of {total - waived:,}" if total else ""
            for kind, (seen, waived, total) in sums.items()}


def stage(name, letter):
    """The last stage of "D" or "V" of which a unit meets all demands, and those before."""
    reached = f"{letter}0"
    for number in (1, 2, 3):
        found = [criterion.find(name) for criterion in CRITERIA
                 if criterion.stage == f"{letter}{number}"]
        if any(one.state in ("hole", "stale") for one in found):
            break
        reached = f"{letter}{number}"
    return reached


def stages():
    """Table of the stages that the units have reached."""
    lines = ["| unit | design | verification | verified parameter sets |", "|---|---|---|---|"]
    for name in registry.offered():
        sets = [" ".join(settings) or "defaults" for settings in parameter_sets(name)]
        lines.append(f"| {{doc}}`{name} <units/{name}>` | {stage(name, 'D')} | {stage(name, 'V')} "
                     f"| {', '.join(f'`{one}`' for one in dict.fromkeys(sets)) or 'none'} |")
    return "\n".join(lines)


def demands():
    """Table of what each stage demands."""
    return "\n".join(["| stage | demand |", "|---|---|",
                      *(f"| {each.stage} | {each.demand} |" for each in CRITERIA)])


def details():
    """A table of what there is for each unit and demand."""
    lines = ["| unit | stage | demand | met | what there is |", "|---|---|---|---|---|"]
    for name in registry.offered():
        for each in CRITERIA:
            found = each.find(name)
            if found.state or found.text:
                text = "see the holes" if found.state == "hole" else found.text
                lines.append(f"| `{name}` | {each.stage} | {each.demand} | "
                             f"{found.state or 'not needed'} | {unit_tables.cell(text)} |")
    return "\n".join(lines)


def holes():
    """List of what is missing, and of what is stale."""
    lines = []
    for name in registry.offered():
        for each in CRITERIA:
            found = each.find(name)
            if found.state in ("hole", "stale"):
                what = found.text if found.state == "hole" else f"stale: {found.text}"
                lines.append(f"- **{name}**, {each.stage}: {unit_tables.cell(what)}")
    return "\n".join(lines) or "There are none."


def coverage():
    """Table of what was covered."""
    lines = ["| unit | results compared | lines | branches | states | toggles | waived |",
             "|---|---|---|---|---|---|---|"]
    for entry in load("coverage") or ():
        cells = totals([entry])
        title = " ".join([entry["unit"], *entry["settings"]])
        lines.append(f"| `{title}`{'' if fresh(entry) else ' (stale)'} | {entry['transfers']:,} | "
                     + " | ".join(cells[kind] or "none" for kind in COVERAGE_KINDS)
                     + f" | {len(entry['waived'])} |")
    return "\n".join(lines) if len(lines) > 2 else "Nothing was measured."


def waivers():
    """List of the waivers in use."""
    lines = [f"- `{entry['unit']}`, {unit_tables.cell(place)}"
             for entry in load("coverage") or () for place in entry["waived"]]
    return "\n".join(dict.fromkeys(lines)) or "There are none."


def untoggled():
    """Bits that did not toggle, by unit and module."""
    lines = []
    for entry in load("coverage") or ():
        for module, bits in entry["untoggled"].items():
            title = " ".join([entry["unit"], *entry["settings"]])
            lines.append(f"- `{title}`, `{module}`: `{bits}`")
    return "\n".join(lines) or "There are none."


def soak_table():
    """Table of the soak."""
    kept = load("soak")
    if kept is None:
        return "No soak was run."
    lines = [f"`{kept['command']}`, {kept['date']}{'' if fresh(kept) else ' (stale)'}:", "",
             "| machine | cycles | commands | failed as they must | timed | results compared |",
             "|---|---|---|---|---|---|"]
    machines = kept["machines"]
    for name, one in machines.items():
        config = soak.MACHINES.get(name)
        columns = f", {config.columns} column{'s' * (config.columns > 1)}" if config else ""
        lines.append(f"| {name}{columns} | {one['cycles']:,} | {one['commands']:,} | "
                     f"{one['commands'] - one['statuses'].get('DONE', 0):,} | {one['timed']:,} | "
                     f"{one['rows']:,} |")
    total = {key: sum(one[key] for one in machines.values())
             for key in ("cycles", "commands", "timed", "rows", "simulated_s", "total_s")}
    failed = total["commands"] - sum(one["statuses"].get("DONE", 0) for one in machines.values())
    lines.append(f"| together | {total['cycles']:,} | {total['commands']:,} | {failed:,} | "
                 f"{total['timed']:,} | {total['rows']:,} |")
    share = total["simulated_s"] / max(total["total_s"], 1e-9)
    return "\n".join([*lines, "", f"No output, status or number of cycles differed from golden's. "
                                  f"{share:.0%} of the time was simulation."])


def mutants_table():
    """Table of the faults that were put into each module, and those that no test finds."""
    kept = load("mutants")
    if kept is None:
        return "No faults were tried."
    counts = {}
    for row in kept["rows"]:
        counts.setdefault(row["module"], Counter())[row["verdict"]] += 1
    lines = [f"`{kept['command']}`, {kept['date']}:", "",
             "| module | faults | killed | equivalent | alive | share killed |",
             "|---|---:|---:|---:|---:|---:|"]
    for module, found in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
        real = found["killed"] + found["alive"]
        stale = module != "all" and kept["modules"][module] != file_digest(module)
        share = f"{found['killed'] / real:.1%}" if real else ""
        lines.append(f"| {module if module == 'all' else f'`{module}`'}{' (stale)' * stale} | "
                     f"{found.total()} | {found['killed']} | {found['equivalent']} | "
                     f"{found['alive']} | {share} |")
    alive = [f"- `{row['module']}`, {unit_tables.cell(row['fault'])}" for row in kept["rows"]
             if row["verdict"] == "alive"]
    return "\n".join([*lines, "", "Alive:" if alive else "None is alive.", "", *alive])


KINDS = {"stages": stages, "demands": demands, "details": details, "holes": holes,
         "mutants": mutants_table, "coverage": coverage, "waivers": waivers,
         "untoggled": untoggled, "soak": soak_table}


def file_digest(path):
    return hashlib.sha256((ROOT / path).read_bytes()).hexdigest()


def keep(kind: str, path: Path, command: str) -> None:
    """Takes over the JSON of another command as evidence."""
    given = json.loads(path.read_text(encoding="utf-8"))
    seed = given.get("seed", 0) if isinstance(given, dict) else 0
    rows = given["faults"] if isinstance(given, dict) else given
    kept = evidence.head(kind, command=command, seed=seed) | {"rows": rows}
    if kind == "mutants":
        kept["modules"] = {module: file_digest(module) for module in
                           sorted({row["module"] for row in rows})}
    else:
        kept["verilog"] = {name: evidence.unit_digest(name)
                           for name in sorted({row["unit"] for row in rows})
                           if name in registry.offered()}
    FOLDER.mkdir(exist_ok=True)
    write(FOLDER / f"{kind}.json", json.dumps(kept, indent=1) + "\n")


def refresh(kinds: Iterable[str] = ("coverage", "cosim", "soak", "proofs")) -> list[str]:
    """Emits the designs of stale evidence again; returns what has really changed."""
    changed = []
    for kind in kinds:
        kept = load(kind)
        if kept is None:
            continue
        for entry in kept if isinstance(kept, list) else [kept]:
            if fresh(entry):
                continue
            if kind == "soak":
                same = entry["verilog"] == soak.digests(entry["verilog"])
            elif kind == "proofs":
                same = entry["verilog"] == {name: evidence.unit_digest(name)
                                            for name in entry["verilog"]}
            else:
                same = entry["verilog"] == evidence.unit_digest(entry["unit"], entry["settings"])
            if same:
                entry["sources"] = evidence.sources()
            else:
                changed.append(entry["command"])
        write(FOLDER / f"{kind}.json", json.dumps(kept, indent=1) + "\n")
    return changed


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--refresh", action="store_true",
                        help="emit the designs of stale evidence again and renew what still holds")
    parser.add_argument("--keep", nargs=2, metavar=("KIND", "FILE"),
                        help="take over proofs or mutants from a file")
    parser.add_argument("--command", default="", help="the command that wrote the file of --keep")
    options = parser.parse_args(arguments)
    if options.keep:
        kind, path = options.keep
        if kind not in ("proofs", "mutants"):
            parser.error(f"--keep must be of proofs or mutants, not {kind}")
        keep(kind, Path(path), options.command)
    if options.refresh:
        for command in refresh():
            print(f"changed since: {command}")


if __name__ == "__main__":
    main()
