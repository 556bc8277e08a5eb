# SPDX-License-Identifier: BSD-2-Clause
"""Memories of emitted Verilog: as instances that a macro can replace, and as a list.

A memory with one port to write and one to read becomes an instance of NAME_sram_DEPTHxWIDTH. Its
contract:

- All happens at rising edges of ``clk``. There is no reset, and contents start undefined.
- With ``write``, ``write_row`` goes to ``write_address``.
- With ``read``, ``read_row`` is the row at ``read_address`` from this edge on. Without ``read`` it
  stays.
- A row that is written at the edge at which it is read comes out undefined. The row is stored.
- Addresses are below DEPTH.
"""

import re

_PORTS = ("clk", "write", "write_address", "write_row", "read", "read_address", "read_row")

CONTRACT = {
    "clock": "clk",
    "write": {"enable": "write", "address": "write_address", "row": "write_row"},
    "read": {"enable": "read", "address": "read_address", "row": "read_row", "latency": 1,
             "without_enable": "hold"},
    "same_address": "undefined",
}
"""What a memory list says of every instance's ports."""

_MODEL = """\
// verilog_lint: waive-start unpacked-dimensions-range-ordering

// Memory of {depth} rows of {width} bits. A macro may take the place of this model.
// A row that is written at the edge at which it is read comes out undefined.
module {module} (
  input  wire {none}clk,
  // At an edge with write, write_row goes to write_address.
  input  wire {none}write,
  input  wire {address}write_address,
  input  wire {row}write_row,
  // At an edge with read, read_row becomes the row at read_address; otherwise it stays.
  input  wire {none}read,
  input  wire {address}read_address,
  output reg  {row}read_row
);
  reg [{high}:0] rows [0:{last}];

  always @(posedge clk) begin
    if (write) begin
      rows[write_address] <= write_row;
    end
  end

  always @(posedge clk) begin
    if (read) begin
      if (write & (write_address == read_address)) begin
        read_row <= {{{width}{{1'bx}}}};
      end else begin
        read_row <= rows[read_address];
      end
    end
  end
endmodule
"""


def instantiate(name, module, content, ports):
    """Replaces the memories of a module by instances.

    Parameters
    ----------
    name : str
        Name of the top module, which begins the name of every other.
    module : str
        Name of the module.
    content : dict
        The module in Yosys' JSON; it is changed.
    ports : dict of str to dict
        Ports of all modules in Yosys' JSON; those of the memories are added.

    Returns
    -------
    list of str
        Names of the instances.

    Raises
    ------
    ValueError
        If a memory has other ports than one to write whole rows and one to read.
    """
    labels = []
    for memid, memory in content.pop("memories", {}).items():
        label = memid.lstrip("\\")
        cells = {key: cell for key, cell in content["cells"].items()
                 if cell["parameters"].get("MEMID", "").lstrip("\\") == label}
        write, read = (_only(cells.values(), kind) for kind in ("$memwr_v2", "$memrd_v2"))
        if (write is None or read is None or len(cells) != 2 or len({*write["EN"]}) != 1
                or write["CLK"] != read["CLK"] or memory["start_offset"]):
            raise ValueError(f"Memory {label} of {module} must have one port to write whole rows "
                             "and one to read, to become an instance")
        for key in cells:
            del content["cells"][key]
        depth, width = memory["size"], memory["width"]
        bits = (depth - 1).bit_length()
        kind = f"{name}_sram_{depth}x{width}"
        connections = dict(zip(_PORTS, (
            write["CLK"], write["EN"][:1], _address(write, bits), write["DATA"],
            read["EN"], _address(read, bits), read["DATA"]), strict=True))
        directions = dict.fromkeys(_PORTS, "input") | {"read_row": "output"}
        content["cells"][label] = {"type": kind, "parameters": {}, "attributes": {},
                                   "port_directions": directions, "connections": connections}
        ports[kind] = {port: {"direction": directions[port], "bits": wires}
                       for port, wires in connections.items()}
        labels.append(label)
    return labels


def _only(cells, kind):
    """Connections of the only cell of a kind, or None."""
    found = [cell["connections"] for cell in cells if cell["type"] == kind]
    return found[0] if len(found) == 1 else None


def _address(pins, bits):
    """The address of a port, as wide as an instance wants it."""
    return (pins["ADDR"] + ["0"] * bits)[:bits]


def models(name, text):
    """Behavioural models of the memories that emitted Verilog instantiates.

    Parameters
    ----------
    name : str
        Name of the top module.
    text : str
        Verilog.

    Returns
    -------
    dict of str to str
        Text of each model by the name of its module, with the head of the Verilog.
    """
    head = "".join(f"{line}\n" for line in text.split("\n\n", 1)[0].splitlines()
                   if re.match(r"// (SPDX|Generated)", line))
    found = {}
    for module, depth, width in sorted(
            {*re.findall(rf"^  ({name}_sram_(\d+)x(\d+)) \S+ +\($", text, re.M)},
            key=lambda match: (int(match[1]), int(match[2]))):
        ranges = {"address": f"[{(int(depth) - 1).bit_length() - 1}:0]",
                  "row": f"[{int(width) - 1}:0]", "none": ""}
        if depth == "2":
            ranges["address"] = ""
        if width == "1":
            ranges["row"] = ""
        space = max(map(len, ranges.values()))
        spaces = {key: f"{value:{space}} " if space else "" for key, value in ranges.items()}
        found[module] = head + _MODEL.format(
            module=module, depth=depth, width=width, high=int(width) - 1, last=int(depth) - 1,
            **spaces)
    return found


def listed(name, text):
    """Lists the memories of emitted Verilog.

    Parameters
    ----------
    name : str
        Name of the top module.
    text : str
        Verilog, of which every memory is an array or an instance.

    Returns
    -------
    list of dict
        For each size: ``depth``, ``width``; ``module`` of the instances and the `CONTRACT` of its
        ports, or None twice if the memories are arrays; ``instances``, their paths below the top
        module, with dots.
    """
    bodies = {re.match(r"\w+", body)[0]: body
              for body in re.split(r"^module ", text, flags=re.M)[1:]}
    found = {}
    pending = [(name, "")]
    while pending:
        module, path = pending.pop()
        for high, array, last in re.findall(r"^  reg \[(\d+):0\] (\S+) \[0:(\d+)\];",
                                            bodies[module], re.M):
            key = int(last) + 1, int(high) + 1, None
            found.setdefault(key, []).append(path + array)
        # An instance may have an escaped name, which ends in a blank.
        children = re.findall(r"^  (\w+) (\S+) +\($", bodies[module], re.M)
        for kind, label in reversed(children):
            if size := re.fullmatch(rf"{name}_sram_(\d+)x(\d+)", kind):
                found.setdefault((int(size[1]), int(size[2]), kind), []).append(path + label)
            elif kind in bodies:
                pending.append((kind, f"{path}{label}."))
    return [{"depth": depth, "width": width, "module": module,
             "ports": CONTRACT if module else None, "instances": sorted(paths)}
            for (depth, width, module), paths in sorted(
                found.items(), key=lambda item: item[0][:2])]
