# SPDX-License-Identifier: BSD-2-Clause
"""The formats on PyTorch tensors: quantizing, fake quantization for training, a linear layer.

Tensors are float32, float16 or bfloat16. The codec works on the CPU, and on the memory of a tensor
that lies there, without a copy. A tensor on another device is refused where the result is a NumPy
array, and moved there and back where the result is a tensor. ``pip install 'm2xfp-rtl[torch]'``
brings PyTorch.
"""

from typing import Any

import ml_dtypes

import golden

from .codec.arrays import FloatArray
from .codec.quantized import Blocks, Quantized
from .formats.catalogue import FORMATS
from .formats.format import Format

try:
    import torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("golden.torch needs PyTorch: pip install 'm2xfp-rtl[torch]'",
                              name="torch") from error

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Types of tensors that can be quantized."""


def array_of(x: torch.Tensor, name: str = "x") -> FloatArray:
    """The values of a tensor as a NumPy array that shares its memory.

    Parameters
    ----------
    x : torch.Tensor
        On the CPU, of one of `DTYPES`. Its gradient is not followed.
    name : str
        The argument's name, for errors.

    Returns
    -------
    array of float32, float16 or bfloat16 (that of `ml_dtypes`)
        Of the shape and strides of ``x``.

    Raises
    ------
    TypeError
        If ``x`` is not a dense tensor of one of `DTYPES`.
    ValueError
        If it is not on the CPU.
    """
    _check(x, name)
    if x.device.type != "cpu":
        raise ValueError(f"{name} must be on the CPU, where the codec works, not on {x.device}: "
                         f"pass {name}.cpu()")
    x = x.detach()
    if x.dtype == torch.bfloat16:
        # NumPy has no such type of its own, so the bits go through one that both have.
        return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def _check(x, name):
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(x).__name__}")
    if x.dtype not in DTYPES or x.layout != torch.strided:
        offered = ", ".join(map(str, DTYPES))
        given = x.dtype if x.layout == torch.strided else x.layout
        raise TypeError(f"{name} must be a dense tensor of one of {offered}, not {given}")


def quantize_activations(x: torch.Tensor, **options: Any) -> Quantized:
    """Quantizes activations to M2XFP as `golden.quantize_activations` does.

    Parameters
    ----------
    x : torch.Tensor, shape (..., K)
        As in `array_of`.
    **options
        Those of `golden.quantize_activations`.

    Returns
    -------
    Quantized

    Raises
    ------
    TypeError, ValueError
        As `array_of` and `golden.quantize_activations`.
    """
    return golden.quantize_activations(array_of(x), **options)


def quantize_weights(w: torch.Tensor, **options: Any) -> Quantized:
    """Quantizes weights to M2XFP as `golden.quantize_weights` does.

    Parameters
    ----------
    w : torch.Tensor, shape (..., K)
        As in `array_of`.
    **options
        Those of `golden.quantize_weights`.

    Returns
    -------
    Quantized

    Raises
    ------
    TypeError, ValueError
        As `array_of` and `golden.quantize_weights`.
    """
    return golden.quantize_weights(array_of(w, "w"), **options)


def dequantize(q: Blocks, *, dtype: torch.dtype = torch.float32, threads: int = 1
               ) -> torch.Tensor:
    """Decodes a quantized tensor of any format, as `golden.dequantize` does.

    Parameters
    ----------
    q : Quantized or Blocks
    dtype : torch.dtype
        Float32 is the decoder's result itself, without a copy; other types are rounded from it, to
        nearest, ties to even.
    threads : int
        As in `golden.dequantize`.

    Returns
    -------
    torch.Tensor, shape ``q.shape``
        On the CPU.

    Raises
    ------
    TypeError, ValueError
        As `golden.dequantize`.
    """
    return torch.from_numpy(golden.dequantize(q, threads=threads)).to(dtype)


def planes(q: Blocks) -> dict[str, torch.Tensor]:
    """The codes of a quantized tensor, one per byte.

    Parameters
    ----------
    q : Quantized or Blocks

    Returns
    -------
    dict of str to torch.Tensor
        "elements", "scales" and, if the format has them, "metadata", of dtype uint8. They share the
        memory of ``q``, unless that is read-only.
    """
    arrays = {"elements": q.elements, "scales": q.scales, "metadata": q.metadata}
    return {name: torch.from_numpy(array if array.flags.writeable else array.copy())
            for name, array in arrays.items() if array is not None}


class _StraightThrough(torch.autograd.Function):
    """The values of a format with the gradient of the identity."""

    @staticmethod
    def forward(x, form, options):
        values = form.round_trip(array_of(x.cpu()), **options)
        return torch.from_numpy(values).to(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Nothing is kept for the gradient."""

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None

    @staticmethod
    def jvp(ctx, tangent, *others):
        return tangent.view_as(tangent)


def fake_quantize(x: torch.Tensor, format: str | Format = "M2XFP activations", **options: Any
                  ) -> torch.Tensor:
    """Quantizes a tensor and dequantizes it, so that a model can be trained for a format.

    The gradient is the straight-through one: that of the identity, also where values saturate. A
    tensor on another device is copied to the CPU, and its result back.

    Parameters
    ----------
    x : torch.Tensor, shape (..., K)
        Of one of `DTYPES`. Groups lie along the last axis.
    format : str or Format
        A name of `golden.formats.FORMATS`, or a format that a function makes.
    **options
        Options of the format's `quantize`.

    Returns
    -------
    torch.Tensor
        Of the shape, type and device of ``x``. Values are those of `Format.round_trip`, rounded
        from float32 to the type of ``x``.

    Raises
    ------
    TypeError
        If ``x`` is not a dense tensor of one of `DTYPES`.
    ValueError
        If ``x`` is empty or holds no values, or if the format or an option is not offered.
    """
    _check(x, "x")
    if x.device.type == "meta":
        raise ValueError("x must hold values, not lie on meta")
    return _StraightThrough.apply(x, _format(format, "format"), options)


def _format(form, name):
    if isinstance(form, Format):
        return form
    if form not in FORMATS:
        raise ValueError(f"{name} must be a Format or a name of golden.formats.FORMATS, "
                         f"not {form!r}")
    return FORMATS[form]


class Linear(torch.nn.Linear):
    """A linear layer whose input and weight are fake-quantized in each call.

    It takes the place of `torch.nn.Linear`: it has the same parameters by the same names, so that a
    state that was saved of one can be loaded into the other. Gradients are those of
    `fake_quantize`. Products are summed by PyTorch, in the type of the input; `golden.matmul` sums
    as the hardware does.

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As in `torch.nn.Linear`.
    activations, weights : str, Format or None
        Formats of the input and of the weight, as in `fake_quantize`; None leaves them as they are.

    Raises
    ------
    ValueError
        If a format is not offered.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True,
                 device: Any = None, dtype: torch.dtype | None = None, *,
                 activations: str | Format | None = "M2XFP activations",
                 weights: str | Format | None = "M2XFP weights") -> None:
        formats = [None if form is None else _format(form, name) for name, form in
                   (("activations", activations), ("weights", weights))]
        super().__init__(in_features, out_features, bias, device, dtype)
        self.activations, self.weights = formats

    @classmethod
    def from_linear(cls, linear: torch.nn.Linear, *,
                    activations: str | Format | None = "M2XFP activations",
                    weights: str | Format | None = "M2XFP weights") -> "Linear":
        """Makes a layer that shares the parameters of another one.

        Parameters
        ----------
        linear : torch.nn.Linear
        activations, weights
            As in the class.

        Returns
        -------
        Linear
        """
        # Its own parameters, which are replaced, take no memory.
        made = cls(linear.in_features, linear.out_features, linear.bias is not None, "meta",
                   linear.weight.dtype, activations=activations, weights=weights)
        made.weight, made.bias = linear.weight, linear.bias
        return made.train(linear.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The product of the quantized input and weight, plus the bias."""
        x = input if self.activations is None else fake_quantize(input, self.activations)
        w = self.weight if self.weights is None else fake_quantize(self.weight, self.weights)
        return torch.nn.functional.linear(x, w, self.bias)

    def extra_repr(self) -> str:
        """What the representation says of the layer."""
        names = [None if form is None else form.name for form in (self.activations, self.weights)]
        return f"{super().extra_repr()}, activations={names[0]!r}, weights={names[1]!r}"
