# SPDX-License-Identifier: BSD-2-Clause
"""Readers of others' bytes refuse what is wrong with the errors that they document."""

import contextlib
import dataclasses
import json
import os

import numpy as np
import pytest

from golden.formats import FORMATS
from tests import fuzz
from tests.support.checkpoints import container

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")

FAULTS = [
    # By target, inputs that once ended in another error.
    ("identity", b'{"unit": "top1", "set": [], "buffer": Infinity, "version": "0"}'),
    ("identity", b"[" * 10_000),
    ("bender", b'{"unit": "u", "files": {"verilog": ["u.v"], "testbench": []}}'),
    ("bender", b'{"unit": "u", "files": {"verilog": [1], "testbench": [], "memory_models": []}}'),
    ("bender", b"[" * 10_000),
    ("bender", b'{"unit": "u", "files": {"verilog": ["%s"], "testbench": [], "memory_models": []}}'
     % (b"a" * 300)),
    ("index", b'[{"weight_map": {"x": "\\ud800"}}, {}]'),
    ("index", b'[{"weight_map": {"x": "\\u0000"}}, {}]'),
    ("liberty", "library (x) { time_unit :\x85 3; }".encode()),
    ("tensor", container({"__metadata__": {"golden": json.dumps({
        "class": "Quantized", "bits": {"elements": 4, "metadata": 2, "scales": 8}, "kind": "weight",
        "encoding": "sg-em", "shape": [1, 32], "group": 32, "subgroup": 0})},
        "elements": {"dtype": "U8", "shape": [1, 16], "data_offsets": [0, 16]},
        "metadata": {"dtype": "U8", "shape": [1, 1], "data_offsets": [16, 17]},
        "scales": {"dtype": "U8", "shape": [1, 1], "data_offsets": [17, 18]}}, bytes(18))),
    ("record", b"[" * 10_000),
    ("config", b"columns = " + b"[" * 10_000),
    ("config", b"columns = " + b"9" * 5000),
    ("function", b"(" * 10_000),
    ("function", b"!" * 10_001 + b"A"),
    ("function", b"A" + b"'" * 10_001),
    ("function", b"(" * 40 + b"A" + b"')" * 40),
]


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_a_few_mutants(name):
    row = fuzz.fuzz(name, 3 if name == "liberty" else 15, seed=0)
    assert row["faults"] == []


@pytest.mark.parametrize("name, data", FAULTS)
def test_what_was_a_fault(name, data, tmp_path):
    target = fuzz.TARGETS[name]
    with contextlib.suppress(*target.errors):
        target.read(data, tmp_path)


def test_fault_is_found(monkeypatch, capsys):
    def read(data, folder):
        if len(data) > 3:
            raise {}[data[0]]
        raise ValueError

    monkeypatch.setitem(fuzz.TARGETS, "faulty", fuzz.Target(
        seeds=lambda folder: [], read=read, errors=(ValueError,), share=1))
    monkeypatch.setattr(fuzz, "mutated", lambda *a, **k: b"abcdef")
    monkeypatch.setattr(fuzz.random.Random, "choice", lambda self, items: b"")
    assert fuzz.main(["faulty", "--count", "20"]) == 1
    said = capsys.readouterr()
    assert "faulty: KeyError: 97" in said.out
    assert said.err.endswith("error: 1 kinds of faults\n")


def test_wrong_use(capsys):
    for words, said in [(["no"], "TARGET must be one of tensor, "),
                        (["--count", "0"], "--count must be above 0, not 0"),
                        (["--atheris"], "--atheris needs exactly one target, not ")]:
        assert fuzz.main(words) == 2
        assert said in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_mutants(name):
    with fuzz.bounded():
        assert fuzz.fuzz(name, 100 * fuzz.TARGETS[name].share, seed=1)["faults"] == []


@pytest.mark.parametrize("format, metadata", [("M2-NVFP4 Sg-EM-4", 58), ({"MXFP4": 1}, 0)])
def test_codes_and_formats_that_are_none(format, metadata):
    q = FORMATS["M2-NVFP4 Sg-EM-4"].quantize(np.ones((1, 64), np.float32))
    odd = dataclasses.replace(q, format=format, metadata=q.metadata | np.uint8(metadata))
    with pytest.raises(ValueError, match=r"^(codes must be those of M2-NVFP4|format must be the )"):
        odd.dequantize()
