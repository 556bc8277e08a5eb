# SPDX-License-Identifier: BSD-2-Clause
"""The command that runs a real MLP through the accelerator."""

import numpy as np
import pytest

import sim.__main__ as command
from golden import matmul, quantize_activations, quantize_weights
from golden.formats.mxfp4 import mxfp4_round_trip
from golden.models import smollm2
from sim.engines import build


@pytest.mark.long
@pytest.mark.skipif(not build.compiler(), reason="needs a C++ compiler")
def test_layer(monkeypatch, capsys):
    """A corner of the MLP, on the smallest machine that keeps results."""
    whole = smollm2.load_mlp()
    mlp = smollm2.Mlp(activations=whole.activations[:, :64], up_blocks=whole.up_blocks[:96, :2],
                      down_blocks=whole.down_blocks[:64, :3], layer=15, tensors=whole.tensors,
                      text=whole.text)
    monkeypatch.setattr(smollm2, "load_mlp", lambda: mlp)
    assert command.main(["layer", "--config", "tiny", "--tokens", "3", "--stalls", "0.1"]) == 0
    printed = capsys.readouterr().out
    assert "up 3 x 64 x 96: DONE, result kept, 0 mismatches against golden" in printed
    assert "down 3 x 96 x 64: DONE, 6 rows of results, 0 mismatches against golden" in printed
    assert "the model multiplies by its gate in between, which this does not" in printed

    x = mlp.activations[:3]
    between = matmul(quantize_activations(x), quantize_weights(mlp.up))
    y = matmul(quantize_activations(between), quantize_weights(mlp.down))
    exact = np.einsum("mk,hk,nh->mn", x, mlp.up, mlp.down, dtype=np.float64)
    plain = np.einsum("mk,hk->mh", mxfp4_round_trip(x), mxfp4_round_trip(mlp.up),
                      dtype=np.float64).astype(np.float32)
    plain = np.einsum("mh,nh->mn", mxfp4_round_trip(plain), mxfp4_round_trip(mlp.down),
                      dtype=np.float64)
    for name, approximate in ("M2XFP", y), ("MXFP4", plain):
        error = ((approximate - exact) ** 2).sum() / (exact**2).sum()
        assert f"{name} {error:.5f}" in printed
