# SPDX-License-Identifier: BSD-2-Clause
"""The README and the pages of prose: links resolve, commands exist, tables are what is computed."""

import ctypes
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from golden.accelerator.planner import CONFIGS, Config, plan
from hw.registry import UNITS

ROOT = Path(__file__).parents[2]
PAGES = {str(path.relative_to(ROOT)): path.read_text()
         for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
DRIVING = PAGES["docs/driving.md"]


def prose(text):
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(text):
    """Anchors of a page's headings, as GitHub and myst-parser make them."""
    headings = re.findall(r"^#+ +(.*)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(name, text):
    """Relative links of a page that lead nowhere."""
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (ROOT / name).parent / file if file else ROOT / name
        if not path.is_file() or anchor and anchor not in anchors(path.read_text()):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("name", PAGES)
def test_links_resolve(name):
    assert broken(name, PAGES[name]) == []


def test_broken_links_are_found():
    text = "[a](LICENSE) [b](#there) [c](#not-there) [d](no/such.md) [e](https://e.org)\n# There\n"
    assert broken("README.md", text) == ["#there", "#not-there", "no/such.md"]
    assert anchors("## The `order`, of it\n```\n# no heading\n```\n") == {"the-order-of-it"}


def test_the_readme_links_to_every_page():
    linked = set(re.findall(r"\]\((docs/[^)/#]+\.md)\)", PAGES["README.md"]))
    through_others = {"docs/accuracy-tables.md", "docs/calibration-tables.md"}
    site = {"docs/index.md", "docs/contributing.md", "docs/changelog.md", "docs/sign-off.md"}
    assert "(docs/sign-off.md)" in (ROOT / "CONTRIBUTING.md").read_text()
    assert linked >= PAGES.keys() - {"README.md"} - through_others - site
    for name in through_others:
        assert f"({Path(name).name})" in PAGES[name.replace("-tables", "")]


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 220


# Examples that show more than their own output; tests/docs/test_examples.py runs all others.
# Blocks of "py" are files or pieces of files.

def blocks(name, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[name], re.M | re.S)


def test_getting_started_reads_the_description(tmp_path, monkeypatch):
    from hw import generate

    monkeypatch.chdir(tmp_path)
    assert generate.main(["quantization_engine", "-o", "build/tutorial"]) == 0
    page = "docs/getting-started.md"
    script, = blocks(page, "py")
    printed = subprocess.run([sys.executable, "-c", script], check=True, text=True,
                             capture_output=True).stdout
    assert printed in blocks(page, "text")


@pytest.mark.long
def test_errors_on_normal_values():
    """The table of the encodings' errors is what the program above it prints."""
    program, = blocks("docs/encodings.md")
    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, text=True,
                             capture_output=True).stdout
    table = PAGES["docs/encodings.md"].split(program)[1].split("| format | error |")[1]
    shown = re.findall(r"^\| .* \| (\.\d{5}) \|$", table.split("\n\n")[0], re.M)
    computed = re.findall(r"0(\.\d{5})$", printed, re.M)
    assert len(computed) == len(printed.splitlines()) > 8 and sorted(shown) == sorted(computed)


@pytest.mark.long
def test_errors_of_adding_a_format():
    """Those that the page gives for formats of the tree are what its last program prints."""
    page = "docs/adding-a-format.md"
    program, = blocks(page)
    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, text=True,
                             capture_output=True).stdout
    computed = re.findall(r"^(.*) ([\d.]+) 0(\.\d{5})$", printed, re.M)
    assert [name for name, *_ in computed] == ["MXFP4", "MXFP6 E2M3"]
    text = " ".join(PAGES[page].split(program)[1].split())
    assert all(f"{error} for {name} at {bits}" in text for name, bits, error in computed)


# Figures that are measured.

def test_figures_of_all_units_are_current():
    """The table of synthesis is that of the tracked report, as the code formats its figures."""
    units = json.loads((ROOT / "docs" / "figures.json").read_text())["units"]
    assert units.keys() == UNITS.keys()
    page = PAGES["docs/synthesis.md"].split("## The recipe")[0]
    expected = []
    for name, unit in units.items():
        share = unit["sequential_area_um2"] / unit["area_um2"]
        mark = " *" if unit["hierarchical"] else ""
        expected.append(f"| `{name}`{mark} | {unit['cells']} | {unit['area_um2']:.0f} | "
                        f"{share:.0%} | {unit['area_timed_um2']:.0f} | {unit['delay_ns']:.2f} | "
                        f"{unit['path_class']} | {unit['io_delay_ns']:.2f} | "
                        f"{unit['fmax_io_mhz']:.0f} |")
        if unit["area_per_tile_um2"] is not None:
            assert f"{unit['area_per_tile_um2']:.0f} um2 (A) for each" in " ".join(page.split())
    assert re.findall(r"^\| `.*$", page, re.M) == expected


# Commands: each one that is shown exists, with the options that are shown with it.

def shown_commands():
    """Words of every command on the pages, up to its subcommand, and its options."""
    shown = {}
    for text in PAGES.values():
        for line in re.findall(r"python -m ((?:benchmarks|golden|hw|sim)\b[^`\n]*)",
                               text.replace("\\\n", " ")):
            module, *rest = line.split()
            if rest and module in ("golden", "sim") and re.fullmatch(r"[a-z]\w*", rest[0]):
                module = f"{module} {rest[0]}"
            shown.setdefault(module, set()).update(re.findall(r"(?<!\S)--[a-z][a-z-]*", line))
    return shown


COMMANDS = shown_commands()


def test_commands_are_found():
    assert {"hw", "golden check", "sim gemm", "benchmarks.codec"} <= COMMANDS.keys()
    assert {"--sweep", "--plot", "--power", "--compare"} <= COMMANDS["hw.synth"]


@pytest.mark.filterwarnings("ignore:'.*' found in sys.modules")
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_command_exists(command, monkeypatch, capsys):
    module, *words = command.split()
    monkeypatch.setattr(sys, "argv", [module, *words, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert ended.value.code in (None, 0)
    options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    assert COMMANDS[command] - options == set()


# Driving the accelerator.

def table(head):
    """Rows of the table of the page whose first cells are these."""
    text = DRIVING.split(f"| {head} |")[1].split("\n\n")[0]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")]
            for line in text.split("\n")[2:]]


def test_worked_example_of_driving():
    program, = blocks("docs/driving.md")
    names = {}
    exec(program, names)
    divided = plan(CONFIGS["lite"], 3, 40, 6)

    rows = table("transfer | row | group | payload")
    assert [row[3] for row in rows] == names["activations"]
    assert [[int(row[1]), int(row[2])] for row in rows] \
        == np.transpose(divided.activation_order()).tolist()

    rows = table("transfer | tile | group | row of W | payload")
    assert [row[4] for row in rows] == names["weights"]
    order = np.transpose(divided.weight_order()).tolist()
    assert [[int(row[1]), int(row[2])] for row in rows] \
        == [pair for pair in order for _ in range(4 if pair[0] == 0 else 2)]
    assert [int(row[3]) for row in rows] == [0, 1, 2, 3, 4, 5] * 2

    rows = table("transfer | row | tile | values | `last`")
    assert [[float(v) for v in row[3].split(",")] for row in rows] == names["rows"].tolist()
    assert [[int(row[1]), int(row[2])] for row in rows] \
        == np.transpose(divided.result_order()).tolist()
    assert [int(row[4]) for row in rows] == names["outputs"]["o"]["last"].tolist()
    assert names["outputs"]["o_status"].tolist() == [0]
    for number, (row, *_) in enumerate(rows):
        assert int(row) == number


@pytest.fixture(scope="module")
def c_order(tmp_path_factory):
    """The page's C function as a function of Python."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("driving")
    source, = (block for block in blocks("docs/driving.md", "c") if "m2xfp_order" in block
               and "#include" in block)
    (folder / "order.c").write_text(source.replace("static void", "void"))
    subprocess.run([compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
                    "-o", str(folder / "order.so"), str(folder / "order.c")], check=True)
    function = ctypes.CDLL(str(folder / "order.so")).m2xfp_order
    callback = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32)

    def order(config, m, k, n):
        given = [], [], []
        calls = [callback(lambda *pair, to=to: to.append(pair)) for to in given]
        sizes = (ctypes.c_uint32 * 5)(config.columns, config.weight_width, config.activations,
                                      config.rows, 64 if config == WIDE else 32)
        function(sizes, *(ctypes.c_uint32(size) for size in (m, k, n)), *calls)
        return given

    return order


CASES = np.random.default_rng(0).integers(1, (90, 1200, 200), (40, 3)).tolist()


WIDE = Config(columns=64, activations=64, rows=16, weight_width=8, encoding="sg-special64",
              engine="sg-special64")


@pytest.mark.parametrize("config", [*CONFIGS, "wide"])
def test_order_in_c(config, c_order):
    config, resident = CONFIGS.get(config, WIDE), set()
    for m, k, n in [(1, 1, 1), (3, 40, 6), (300, 64, 40), (40, 32 * 70, 70), *CASES]:
        divided = plan(config, m, k, n)
        resident.add(divided.resident)
        weights, activations, results = c_order(config, m, k, n)
        assert activations == list(zip(*map(np.ndarray.tolist, divided.activation_order()),
                                       strict=True))
        assert results == list(zip(*map(np.ndarray.tolist, divided.result_order()), strict=True))
        expected = []
        for tile, group in np.transpose(divided.weight_order()).tolist():
            count = divided.last_transfers if tile == divided.tiles - 1 else divided.transfers
            expected += [(tile * config.columns + c, group)
                         for c in range(count * config.weight_width)]
        assert weights == expected
    if config == CONFIGS["tiny"]:
        assert resident == {True, False}


def test_kept_example_of_driving():
    """Transfers of the pair of commands, from the plans."""
    tiny = CONFIGS["tiny"]
    assert isinstance(tiny, Config)
    up, down = plan(tiny, 3, 40, 40), plan(tiny, 3, 40, 6)
    rows = table("command | `i_activation` | `i_weight` | `o` | `o_status`")
    transfers = [p.groups * ((p.tiles - 1) * p.transfers + p.last_transfers) for p in (up, down)]
    assert [row[2].split(" ")[0] for row in rows] == [str(count) for count in transfers]
    assert rows[0][1] == f"{len(up.activation_order()[0])} records"
    assert rows[1][3] == f"{len(down.result_order()[0])} rows"
