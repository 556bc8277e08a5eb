# SPDX-License-Identifier: BSD-2-Clause
"""The page's outputs and figures are the command's."""

import re

import pytest

import sim.__main__ as command
from sim.perf import Job, find_machine, find_models, paper, rivals
from sim.perf.models import PAPER
from tests.support.imports import ROOT

PAGE = (ROOT / "docs/performance.md").read_text()
OUTPUTS = re.findall(r"`python -m sim (perf[^`\n]*)`:\n\n```text\n(.*?)```", PAGE, re.S)
UNLEAKING = {"dram": {"background_mw": 0}, "sram": {"operand_leakage_mw": 0,
                                                   "output_leakage_mw": 0}}


@pytest.mark.parametrize("words, output", OUTPUTS, ids=[words for words, _ in OUTPUTS])
def test_output(words, output, capsys):
    assert command.main(words.split()) == 0
    assert capsys.readouterr().out == output


def test_page_has_outputs():
    assert len(OUTPUTS) == 3


def test_what_survives():
    found = []
    for changes in ({}, {"dram": {"background_mw": 0}}, UNLEAKING):
        machine = find_machine("paper", changes)
        entries = [rivals.compare(Job(model=model), machine, ["M2XFP", "MicroScopiQ"])
                   for model in find_models(PAPER)]
        ratios = [rival.joules / ours.joules for ours, rival in entries]
        found.append(f"{paper.means(ratios)['arithmetic']:.3f}")
    text = " ".join(PAGE.split())
    with_, without, unleaking = found
    assert (f"becomes {with_} with DRAM background, {without} without, and {unleaking} without "
            "SRAM leakage") in text


def test_tables_of_assumptions():
    runs = paper.runs()
    for name, ratios in paper.variants(runs).items():
        assert f"| {name} | {paper.means(ratios)['arithmetic']:.3f} |" in PAGE
