# SPDX-License-Identifier: BSD-2-Clause
"""The paper's assumptions against the authors' own log."""

import pytest

from sim.perf import paper
from sim.perf.models import PAPER
from tests.sim.perf import authors_log as log


@pytest.fixture(scope="module")
def runs():
    return paper.runs()


@pytest.mark.parametrize("model", PAPER)
def test_log(runs, model):
    """Cycles to the last one; normalised latency, energy and parts to the log's four digits."""
    base = runs[model][paper.BASE]
    for place, machine in enumerate(log.MACHINES):
        run = runs[model][machine]
        assert run.cycles == log.CYCLES[model][place]
        assert run.cycles / base.cycles == pytest.approx(log.LATENCY[model][place], abs=1e-4)
        assert run.total / base.total == pytest.approx(log.ENERGY[model][place], abs=1e-4)
    parts = [of / base.total for of in runs[model]["M2XFP"].energy.values()]
    assert parts == pytest.approx(log.PARTS[model], abs=1e-4)


def test_speedup_is_one_and_three_shares(runs):
    for model in PAPER:
        for machine in log.MACHINES:
            gain = runs[model][machine].cycles / runs[model]["M2XFP"].cycles
            assert gain == pytest.approx(1 + 3 * paper.share(machine, model), rel=1e-6)


def test_headlines(runs):
    gains = paper.gains(runs, "MicroScopiQ")
    assert round(paper.means(gains["latency"])["arithmetic"], 3) == 1.912
    assert round(paper.means(gains["latency"])["geometric"], 3) == 1.888
    assert round(paper.means(gains["energy"])["arithmetic"], 3) == 1.774
    assert round(paper.means(gains["energy"])["geometric"], 3) == 1.757
    assert round(paper.ratio_of_means(runs, "MicroScopiQ"), 4) == 1.7545


def test_other_assumptions(runs):
    found = [round(paper.means(ratios)["arithmetic"], 2)
             for ratios in paper.variants(runs).values()]
    assert found == [1.77, 1.82, 1.60, 1.73, 1.44, 1.25]


def test_static_is_most_of_the_energy(runs):
    shares = [of["MicroScopiQ"].energy["static"] / of["MicroScopiQ"].total for of in runs.values()]
    assert 0.59 < sum(shares) / 6 < 0.63
