# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The specification agrees with the code: tables, examples, numbers of sections, references."""

import doctest
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from golden import Quantized, dequantize, quantize_activations
from golden.codec.numbers import SPECIALS, e2m1_integers, e2m3_integers, round_magnitude
from golden.formats.minifloats import E8M0
from golden.units.top1_decode import DELTAS
from hw import registry

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "specification"
PAGES = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
NUMBERED = [name for name in PAGES if name != "index.md"]
SOURCES = sorted(path for folder in ("benchmarks", "docs", "golden", "hw", "sim", "tests")
                 for path in (ROOT / folder).rglob("*")
                 if path.suffix in (".py", ".c", ".h", ".cpp", ".md")) + [ROOT / "README.md"]
OFFERED = registry.UNITS | registry.ASSEMBLIES

HEADING = re.compile(r"^(#+) (\d+(?:\.\d+)*)\.? +(.+)$", re.M)
HEADINGS = {number: title for text in PAGES.values() for _, number, title in HEADING.findall(text)}


# Sections

def test_numbers_are_consecutive():
    assert [int(name[:2]) for name in NUMBERED] == list(range(1, len(NUMBERED) + 1))
    for name in NUMBERED:
        section = int(name[:2])
        numbers = [(hashes, number) for hashes, number, _ in HEADING.findall(PAGES[name])]
        assert numbers == [("#", str(section))] + [
            ("##", f"{section}.{n}") for n in range(1, len(numbers))]
        assert len(numbers) > 1
        # No heading is without a number.
        without_code = re.sub(r"```.*?```", "", PAGES[name], flags=re.S)
        assert len(re.findall(r"^#", without_code, re.M)) == len(numbers)


def test_index_lists_all_sections():
    listed = re.findall(r"^\| (\d+) \| \[(.+?)\]\((.+?)\)", PAGES["index.md"], re.M)
    assert listed == [(str(int(name[:2])), HEADINGS[str(int(name[:2]))], name)
                      for name in NUMBERED]


# References

_NUMBER = r"\d+(?:\.\d+)?"
REFERENCE = re.compile(rf"\bsections?\s+({_NUMBER}(?:(?:,|,?\s+and|,?\s+or|\s+to)\s+{_NUMBER})*)",
                       re.I)


def references(text):
    """Numbers of all sections that a text refers to; a line's comment sign is no text."""
    text = re.sub(r"\n[ \t]*(?:#|//|\*)?[ \t]*", " ", text)
    return [number for group in REFERENCE.findall(text) for number in re.findall(_NUMBER, group)]


def test_references_are_found():
    assert references("(specification sections 3 and 4.1)") == ["3", "4.1"]
    assert references("Specification\n    sections 3, 5 and 6. 7") == ["3", "5", "6"]
    assert references("# (specification\n# section 7), 8") == ["7"]
    assert references("section 7.2 of the specification; sections 3 to 6") == ["7.2", "3", "6"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_references_resolve(path):
    # The sources speak of sections of no other document.
    given = [] if path == Path(__file__) else references(path.read_text())
    assert [number for number in given if number not in HEADINGS] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_resolve(name):
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[name]):
        if not re.match(r"https?:", target):
            assert (FOLDER / target.partition("#")[0]).is_file(), target


# Examples

@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if "```python" in text])
def test_examples_run(name):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGES[name], re.M | re.S)
    assert all(block.startswith(">>> ") for block in blocks)
    examples = doctest.DocTestParser().get_doctest("\n\n".join(blocks), {}, name, name, 0)
    result = doctest.DocTestRunner(verbose=False).run(examples)
    assert result.attempted > 0
    assert result.failed == 0


# Tables

def tables(number):
    """Tables of a section as lists of rows, each a list of cells without marks of code."""
    page = next(text for text in PAGES.values() if f"\n## {number} " in text)
    text = page.split(f"\n## {number} ")[1].split("\n## ")[0]
    return [[_cells(line) for line in table.strip().split("\n")]
            for table in re.findall(r"(?:^\|.*\n)+", text + "\n", re.M)]


def _cells(line):
    return [cell.strip() for cell in line.replace("`", "").strip("|").split("|")]


def rows(number, *header, which=0):
    """Rows of a table of a section, whose header is this."""
    first, _, *others = tables(number)[which]
    assert first == list(header)
    return others


def leading(cell):
    """The number that a cell begins with."""
    return float(re.match(r"[\d.]+", cell)[0])


def test_tables_are_whole():
    seen = 0
    for number in HEADINGS:
        for table in tables(number) if "." in number else []:
            assert {len(row) for row in table} == {len(table[0])}, number
            seen += 1
    assert seen > 50


def test_e2m1():
    values = e2m1_integers(np.arange(16)) / 2
    assert [[int(code, 2) if i == 1 else float(code) for i, code in enumerate(row)]
            for row in rows("1.1", "c", "bits [2:0]", "value", "code with s = 0",
                            "code with s = 1")] == [
        [c, c, values[c], c, c + 8] for c in range(8)]
    assert (values[8:] == -values[:8]).all()


def test_rounding_to_e2m1():
    values = e2m1_integers(np.arange(8)) / 2
    given = rows("1.2", "decision point", "below it", "at it", "above it")
    assert len(given) == 7
    for c, (point, *cells) in enumerate(given):
        point = float(point)
        assert point == (values[c] + values[c + 1]) / 2
        near = np.array([np.nextafter(point, 0), point, np.nextafter(point, 8)])
        codes = round_magnitude(near, 1).tolist()
        assert [cell.split(",")[0] for cell in cells] == [
            f"{code} ({values[code]:g})" for code in codes]
        assert cells[1].endswith(", up" if codes[1] > codes[0] else ", down")


def test_e2m3():
    values = e2m3_integers(np.arange(32)) / 8
    given = rows("1.4", "code", "e, m", "value", "decision point above", "code at that point")
    assert len(given) == 32
    for c, (code, fields, value, point, at) in enumerate(given):
        assert (int(code), int(fields.replace(" ", ""), 2), float(value)) == (c, c, values[c])
        if c == 31:
            assert round_magnitude(np.array([1e9]), 3) == c
            continue
        point = float(point)
        near = np.array([np.nextafter(point, 0), point, np.nextafter(point, 8)])
        below, there, above = round_magnitude(near, 3).tolist()
        assert (below, above) == (c, c + 1)
        assert at == f"{there}, {'up' if there > c else 'down'}"


def test_e8m0():
    (codes, value), nan = rows("1.5", "code", "value")
    low, high = map(int, codes.split(" to "))
    assert [eval(value.replace("^", "**"), {"X": float(x)}) for x in range(low, high + 1)] \
        == E8M0.values[:255].tolist()
    assert nan == ["255", "NaN"] and np.isnan(E8M0.values[255])


def top1s(v):
    """Code, E2M3 code, metadata and decoded value of top-1s alone in their subgroup, scale 1."""
    x = np.zeros((len(v), 32), np.float32)
    x[:, 0], x[:, 8] = v, 4
    q = quantize_activations(x)
    assert (q.scales == 127).all()
    return (q.elements[:, 0].tolist(), round_magnitude(v, 3).tolist(), q.metadata[:, 0].tolist(),
            dequantize(q)[:, 0].tolist())


def test_metadata_of_elem_em():
    # Every decision point of either code, and what is just above it.
    v = np.arange(0, 8, 1 / 32)
    v = np.concatenate([v, np.nextafter(v.astype(np.float32), np.float32(8))])
    values = e2m3_integers(np.arange(32)) / 8
    given = {tuple(map(leading, row[:3])) + (float(row[3].split("(")[1][:-1]),)
             for row in rows("3.5", "c", "f", "meta", "reads back", "clamp")}
    assert given == set(zip(*top1s(v), strict=True))
    for row in rows("3.5", "c", "f", "meta", "reads back", "clamp"):
        f, back = int(leading(row[1])), int(leading(row[3]))
        assert row[4] == ("raised" if back > f else "lowered" if back < f else "")
        assert float(row[1].split("(")[1][:-1]) == values[f]


def test_decoding_and_refinement_of_elem_em():
    header = ("c", "E2M1 value", "meta 0", "meta 1", "meta 2", "meta 3")
    decoded = np.array(rows("3.6", *header), float)
    refined = np.array(rows("7.3", *header), float)
    plain = e2m1_integers(np.arange(8)) / 2
    for given in (decoded, refined):
        assert given[:, :2].tolist() == np.stack([np.arange(8), plain], 1).tolist()
    assert (refined[:, 2:] == DELTAS).all()
    assert (decoded[:, 2:] == plain[:, None] + DELTAS / 8).all()


def test_decision_points_of_sg_em():
    header, _, *given = tables("4.2")[0]
    points = [leading(cell) for cell in header[1:]]
    for k, (number, *cells) in enumerate(given):
        assert [int(number), *map(int, cells)] == [k, *(4 * p * (4 + k) for p in points)]
    assert [cell.split(", ")[1] for cell in header[1:]] == ["down", "up"] * 3 + ["down"]
    assert len(given) == 4


def test_factors():
    k, factors = np.array(rows("4.1", "k", "factor"), float).T
    ones = Quantized(kind="weight", shape=(1, 32), elements=np.full((1, 32), 2, np.uint8),
                     metadata=np.array([k], np.uint8), scales=np.full((1, 1), 127, np.uint8))
    assert k.tolist() == [0, 1, 2, 3]
    assert dequantize(ones)[0, ::8].tolist() == factors.tolist()


def scales_of(amax_bits, **options):
    x = np.zeros((len(amax_bits), 32), np.float32)
    x[:, 0] = np.array(amax_bits, np.uint32).view(np.float32)
    return quantize_activations(x, **options).scales.ravel().tolist()


def test_scale_rules():
    header, _, *given = tables("5.2")[0]
    offsets = [int(cell.split(" = ")[1].split()[0]) for cell in header[1:]]
    assert offsets == [-1, 0, 1]
    for rule, *ranges in given:
        covered = []
        for offset, cell in zip(offsets, ranges, strict=True):
            if cell:
                ends = [int(end, 16) for end in cell.split(" to ")]
                covered += ends
                for b in (3, 130, 254):
                    assert scales_of([b << 23 | end for end in ends], rule=rule) \
                        == [b - 2 + offset] * 2
        assert (covered[0], covered[-1]) == (0, 0x7FFFFF)
        assert all(after == before + 1
                   for before, after in zip(covered[1:-1:2], covered[2::2], strict=True))
    assert [row[0] for row in given] == ["floor", "ceil", "rtn1", "rtn2"]


def test_scales_of_sg_threshold():
    for _, fields, d in rows("10.1", "m", "f, the mantissa field of amax", "d"):
        ends = [int(end, 16) for end in fields.split(" to ")]
        assert scales_of([130 << 23 | end for end in ends], encoding="sg-threshold") \
            == [128 + int(d)] * 2


def test_special_values():
    assert [(int(selector), int(value)) for selector, value in
            rows("12.1", "selector", "special value")] == list(enumerate(SPECIALS))


# The hardware

def test_every_unit_has_a_contract():
    titles = [title for number, title in HEADINGS.items() if number.startswith("8.")]
    assert set(OFFERED) == set(re.findall(r"`(\w+)`", " ".join(titles)))


def test_latencies():
    given = {}
    for unit, settings, latency, _ in rows("8.2", "unit", "setting", "latency", "rate"):
        component = registry.build(unit, filter(None, settings.split(", ")), units=OFFERED)
        assert component.latency == int(latency), (unit, settings)
        given.setdefault(unit, set()).add(int(latency))
    # No parameter gives another one.
    for unit, entry in OFFERED.items():
        offered = [dict(zip(entry.parameters, values, strict=True))
                   for values in product(*entry.parameters.values())]
        assert given[unit] == {
            entry.component(**chosen).latency for chosen in offered
            if chosen.get("columns", 8) % chosen.get("weight_width", 1) == 0
            and (chosen.get("metadata", True) or chosen.get("encoding", "elem-em") == "elem-em")
            and (chosen.get("encoding") != "sg-special64" or chosen.get("cycles") != 1)}
    assert given.keys() == OFFERED.keys()


def test_configurations():
    fields = ("columns", "activations", "weights", "rows", "weight_width", "input")
    given = {name: values for name, *values in rows("8.14", "configuration", *fields)}
    assert given == {name: [str(getattr(config, field)) for field in fields]
                     for name, config in registry.CONFIGS.items()}


def command_registers(config):
    component = registry.build("axi_accelerator", [f"config={config}"], units=registry.ASSEMBLIES)
    return component.registers.registers


def values_of(register, field):
    """Names of a field's values, by value."""
    table = {r.name: r for r in command_registers("paper")}
    members = next(f for f in table[register].fields if f.name == field).values
    return {member.value: member.name for member in members}


def test_fields_of_a_command():
    layout = registry.build("accelerator").i_command.payload.shape()
    given = {name: bits for name, bits, _ in rows("14.1", "field", "bits", "meaning")}
    assert given == {name: f"[{field.offset + field.width - 1}:{field.offset}]"
                     for name, field in layout}


def test_sources_and_results():
    for which, header, field in ((0, ("source", "name", "activations"), "source"),
                                 (1, ("result", "name", "what happens"), "result")):
        given = {int(value): name for value, name, _ in rows("14.2", *header, which=which)}
        assert given == values_of("COMMAND", field) | {3: ""}


def test_status_codes():
    given = {int(value): name for value, name, _ in rows("14.3", "code", "name", "given if")}
    codes = registry.build("accelerator").o_status.payload.shape()
    assert given == {code.value: code.name for code in codes}
    # The registers have three more.
    assert values_of("RESULT", "code") == given | {6: "ABORTED", 7: "TIMEOUT", 14: "MISFRAMED"}


def test_registers():
    given = rows("15.1", "offset", "register", "access", "bits", "field", "reset", "meaning")
    of_configuration = set()
    for config in registry.CONFIGS:
        fields = [(register, field) for register in command_registers(config)
                  for field in register.fields]
        for row, (register, field) in zip(given, fields, strict=True):
            high = field.lsb + field.width - 1
            bits = f"[{high}:{field.lsb}]" if field.width > 1 else f"[{high}]"
            assert row[:5] == [f"0x{register.offset:02x}", register.name,
                               register.access_of(field), bits, field.name]
            if row[5] == "configuration":
                of_configuration.add((f"{register.name}.{field.name}", config, field.reset))
            else:
                assert int(row[5], 0) == field.reset
            if field.values:
                named = re.findall(r"(\d+) ([A-Z0-9_]+)", row[6].split(": ")[1])
                assert named == [(str(member.value), member.name) for member in field.values]
    types = {name: value for value, name in values_of("CONFIG", "input").items()}
    encodings = {name: value for value, name in values_of("CONFIG", "encoding").items()}
    engines = {name: value for value, name in values_of("CONFIG", "engine").items()}
    assert of_configuration == {
        (name, key, value) for key, config in registry.CONFIGS.items() for name, value in (
            ("CONFIG.columns", config.columns), ("CONFIG.weight_width", config.weight_width),
            ("CONFIG.input", types[(config.input or "none").upper()]),
            ("CONFIG.quantizes", int(config.columns == 32)),
            ("CONFIG.framed", int(config.framed)),
            ("CONFIG.encoding", encodings[config.encoding.replace("-", "_").upper()]),
            ("CONFIG.engine", engines[(config.engine or "none").replace("-", "_").upper()]),
            ("ACTIVATIONS.size", config.activations), ("WEIGHTS.size", config.weights),
            ("ROWS.size", config.rows))}
