# SPDX-License-Identifier: BSD-2-Clause
"""What the choice of factors costs, on few values."""

import pytest

from benchmarks import sg_engine
from golden.models import smollm2

each_encoding = pytest.mark.parametrize("encoding, label, fewer", [
    ("sg-threshold", "8, 7", "8, 6"), ("sg-em", "8, 10", "8, 9"), ("sg-special", "8, 10", "8, 9"),
    ("sg-special64", "8, 9", "8, 8")])


@each_encoding
def test_losses(encoding, label, fewer):
    losses = sg_engine.measure({"activations": smollm2.load().activations[:8]}, encoding)
    # No choice is better than the exact one; more bits of an error are better than fewer.
    assert all(row["activations"] >= 0 for row in losses.values())
    assert losses[fewer]["activations"] > losses[label]["activations"] < 0.5
    own, = (line for line in sg_engine.table(losses, encoding).splitlines() if line.endswith("<"))
    assert own.split()[:2] == label.split()


@pytest.mark.long
@each_encoding
def test_command(encoding, label, fewer, capsys):
    """On whole tensors the unit's choice is within half a percent of the exact one."""
    assert sg_engine.main(["--encoding", encoding]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    own, = (line for line in lines if line.endswith("<"))
    losses = own.removesuffix("<").replace("%", "").split()[2:]
    assert len(losses) == 5 and head.split()[-5:] == [
        "activations", "weights", "outputs", "gaussian", "student"]
    assert all(0 < float(loss) < 0.5 for loss in losses)


def test_wrong_arguments(capsys):
    with pytest.raises(SystemExit) as raised:
        sg_engine.main(["--rows", "0"])
    assert raised.value.code == 2
    assert "--rows must be at least 1, not 0" in capsys.readouterr().err
