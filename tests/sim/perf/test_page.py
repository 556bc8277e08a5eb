# SPDX-License-Identifier: BSD-2-Clause
"""The page's outputs and figures are the command's."""

import re

import pytest

import sim.__main__ as command
from sim.perf import Job, find_machine, find_models, paper, predict, rivals
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


@pytest.mark.parametrize("model, attention, text", [
    ("llama2-7b", {}, "for LLaMA-2-7B ours is {}"),
    ("llama2-7b", {"causal": False}, "or {} if each query meets all keys"),
    ("llama2-7b", {"values_bits": 8}, "such as probabilities and values, is {}"),
    ("llama2-7b", {"scores_bits": 8, "values_bits": 8}, "with both it is {}"),
    ("llama3-8b", {"values_bits": 8}, "LLaMA-3-8B then has {}")])
def test_attention(model, attention, text):
    [model] = find_models([model])
    one = predict(Job(model=model, seq=16384, attention=True),
                  find_machine("paper", {"attention": attention}))
    assert text.format(f"{100 * one.attention:.1f} %") in " ".join(PAGE.split())
