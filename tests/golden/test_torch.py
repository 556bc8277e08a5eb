# SPDX-License-Identifier: BSD-2-Clause
"""PyTorch tensors. All but the first test are skipped without PyTorch, which is large."""

import copy
import re
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import golden
from golden.formats import FORMATS
from golden.formats.razer import razer_weights
from tests.support.annotations import missing
from tests.support.imports import ROOT


def test_without_torch_the_import_says_what_to_install():
    assert missing(ROOT / "golden/torch.py") == {}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['torch'] = None; import golden.torch"],
        cwd=ROOT, text=True, capture_output=True)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: golden.torch needs PyTorch: pip install 'm2xfp-rtl[torch]'")


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs torch")


@pytest.fixture
def module(torch):
    import golden.torch

    return golden.torch


def values(shape=(3, 70), seed=0):
    x = np.random.default_rng(seed).standard_t(3, shape).astype(np.float32)
    x.flat[5:8] = [0.0, -0.0, 1e-40]
    return x


def of_bits(x, torch, name):
    """The same values as a tensor of another type, and as an array."""
    array = x.astype(np.dtype(getattr(ml_dtypes, name, name)))
    return torch.from_numpy(x).to(getattr(torch, name)), array


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tensors_share_their_memory(dtype, torch, module):
    x, expected = of_bits(values(), torch, dtype)
    array = module.array_of(x)
    assert array.dtype == expected.dtype and array.tobytes() == expected.tobytes()
    x[1, 2] = 42
    assert array[1, 2] == 42
    turned = module.array_of(x.T)
    assert turned.shape == (70, 3) and turned[2, 1] == 42 and np.shares_memory(turned, array)
    needs = x.requires_grad_()
    assert np.shares_memory(module.array_of(needs), array)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_codes_are_those_of_arrays(dtype, torch, module):
    x, array = of_bits(values(), torch, dtype)
    assert module.quantize_activations(x, rule="ceil") == \
        golden.quantize_activations(array, rule="ceil")
    assert module.quantize_weights(x.T, group=16) == golden.quantize_weights(array.T, group=16)


def test_values_and_planes(torch, module):
    q = golden.quantize_activations(values())
    out = module.dequantize(q)
    assert out.dtype == torch.float32 and out.numpy().tobytes() == q.dequantize().tobytes()
    half = module.dequantize(q, dtype=torch.bfloat16)
    assert half.view(torch.int16).numpy().tobytes() == \
        q.dequantize().astype(ml_dtypes.bfloat16).tobytes()
    nv = FORMATS["NVFP4"].quantize(values())
    assert module.dequantize(nv).numpy().tobytes() == nv.dequantize().tobytes()
    given = module.planes(q)
    assert given.keys() == {"elements", "metadata", "scales"}
    assert all(np.shares_memory(plane.numpy(), getattr(q, name)) for name, plane in given.items())
    assert module.planes(nv).keys() == {"elements", "scales"}
    nv.elements.flags.writeable = False
    assert module.planes(nv)["elements"].numpy().tobytes() == nv.elements.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["M2XFP activations", "M2XFP weights", "MXFP8 E4M3", "NVFP4"])
def test_fake_quantization(name, dtype, torch, module):
    x, array = of_bits(values((2, 3, 40)), torch, dtype)
    x.requires_grad_()
    out = module.fake_quantize(x, name)
    assert (out.shape, out.dtype, out.device) == (x.shape, x.dtype, x.device)
    expected = FORMATS[name].round_trip(array).astype(array.dtype)
    assert module.array_of(out).tobytes() == expected.tobytes()
    gradient = torch.arange(out.numel()).reshape(out.shape).to(out)
    out.backward(gradient)
    assert torch.equal(x.grad, gradient)


def test_options_and_formats_of_functions(torch, module):
    x = torch.from_numpy(values())
    out = module.fake_quantize(x, "MXFP4", rule="ceil")
    assert out.numpy().tobytes() == FORMATS["MXFP4"].round_trip(values(), rule="ceil").tobytes()
    out = module.fake_quantize(x, razer_weights(9))
    assert out.numpy().tobytes() == razer_weights(9).round_trip(values()).tobytes()


# Forward gradients bring in parts of PyTorch that warn of each other.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_gradients_of_gradients_and_forward_gradients(torch, module):
    x = torch.from_numpy(values()).requires_grad_()
    first, = torch.autograd.grad((module.fake_quantize(x) ** 2).sum(), x, create_graph=True)
    assert torch.equal(first, 2 * module.fake_quantize(x.detach()))
    second, = torch.autograd.grad(first.sum(), x)
    assert torch.equal(second, torch.full_like(x, 2))
    tangent = torch.ones_like(x)
    _, out = torch.func.jvp(module.fake_quantize, (x.detach(),), (tangent,))
    assert torch.equal(out, tangent)


@pytest.mark.parametrize("give, error, message", [
    (lambda torch: np.ones(32, np.float32), TypeError, "x must be a torch.Tensor, not ndarray"),
    (lambda torch: torch.ones(32, dtype=torch.float64), TypeError,
     "x must be a dense tensor of one of torch.float32, torch.float16, torch.bfloat16, "
     "not torch.float64"),
    (lambda torch: torch.ones(2, 32).to_sparse(), TypeError,
     "x must be a dense tensor of one of torch.float32, torch.float16, torch.bfloat16, "
     "not torch.sparse_coo"),
    (lambda torch: torch.ones(0), ValueError,
     "x must have at least one axis and one element, not shape (0,)"),
])
def test_wrong_tensors(give, error, message, torch, module):
    for function in (module.quantize_activations, module.fake_quantize):
        with pytest.raises(error) as raised:
            function(give(torch))
        assert str(raised.value) == message


def test_other_devices(torch, module):
    x = torch.ones(2, 32, device="meta")
    with pytest.raises(ValueError, match=r"^x must be on the CPU, where the codec works, not on "
                                         r"meta: pass x.cpu\(\)$"):
        module.quantize_activations(x)
    with pytest.raises(ValueError, match=r"^w must be on the CPU, .*: pass w.cpu\(\)$"):
        module.quantize_weights(x)
    with pytest.raises(ValueError, match="^x must hold values, not lie on meta$"):
        module.fake_quantize(x)


def test_wrong_formats(torch, module):
    text = "must be a Format or a name of golden.formats.FORMATS, not 'MXFP5'"
    with pytest.raises(ValueError, match=f"^format {text}$"):
        module.fake_quantize(torch.ones(32), "MXFP5")
    for name in ("activations", "weights"):
        with pytest.raises(ValueError, match=f"^{name} {text}$"):
            module.Linear(32, 4, **{name: "MXFP5"})


@pytest.mark.parametrize("bias", [True, False])
def test_linear_takes_the_place_of_the_other(bias, torch, module):
    torch.manual_seed(0)
    plain = torch.nn.Linear(70, 5, bias)
    layer = module.Linear.from_linear(plain.eval())
    assert layer.weight is plain.weight and layer.bias is plain.bias and not layer.training
    x = torch.from_numpy(values())
    out = layer(x)
    w = module.fake_quantize(plain.weight, "M2XFP weights")
    assert torch.equal(out, torch.nn.functional.linear(module.fake_quantize(x), w, plain.bias))
    out.sum().backward()
    assert torch.equal(plain.weight.grad, module.fake_quantize(x).sum(0).expand(5, 70))

    other = module.Linear(70, 5, bias)
    other.load_state_dict(plain.state_dict())
    assert torch.equal(other(x), out)
    assert torch.equal(copy.deepcopy(other)(x), out)
    assert other.state_dict().keys() == plain.state_dict().keys()


def test_linear_leaves_what_has_no_format(torch, module):
    layer = module.Linear(70, 5, activations=None, weights=None, dtype=torch.bfloat16)
    x = torch.from_numpy(values()).to(torch.bfloat16)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    assert repr(module.Linear(70, 5, activations=None, weights="NVFP4")) == (
        "Linear(in_features=70, out_features=5, bias=True, activations=None, weights='NVFP4')")


def test_training_lowers_the_loss(torch, module):
    torch.manual_seed(0)
    layer, target = module.Linear(64, 8), torch.nn.Linear(64, 8)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    x = torch.randn(128, 64)
    losses = []
    for _ in range(30):
        loss = (layer(x) - target(x).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_calls_the_layer_as_it_is(torch, module):
    model = torch.nn.Sequential(torch.nn.ReLU(), torch.compiler.disable(module.Linear(64, 8)))
    x = torch.randn(4, 64)
    assert torch.equal(torch.compile(model, backend="eager")(x), model(x))


def test_the_examples_of_the_page(torch, module):
    text = (ROOT / "docs/torch.md").read_text()
    examples = re.findall(r"```py\n(.*?)```", text, re.S)
    assert len(examples) == 2
    for example in examples:
        exec(example, {})
