# SPDX-License-Identifier: BSD-2-Clause
"""What other packages quantize and dequantize, for `benchmarks.codec`: one thread each.

Every package is optional. What one has is a pair of calls by format: the first quantizes the tensor
and returns what it keeps, the second dequantizes that to float32. Finding scales counts, as it does
here; packing two elements into a byte counts where the package does it.
"""

import warnings


def torchao(x):
    """MX and NVFP4 of torchao's eager path, with the scales of OCP and of NVIDIA."""
    torch = _torch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.prototype.mx_formats import config, constants, mx_tensor, nvfp4_tensor
    t = torch.from_numpy(x)

    def mx(dtype):
        make = mx_tensor.MXTensor.to_mx
        return (lambda: make(t, dtype, 32, config.ScaleCalculationMode.FLOOR),
                lambda q: q.dequantize(torch.float32))

    def nvfp4():
        scale = nvfp4_tensor.per_tensor_amax_to_scale(t.abs().max())
        return nvfp4_tensor.NVFP4Tensor.to_nvfp4(t, 16, scale)

    return {"MXFP4": mx(torch.float4_e2m1fn_x2), "MXFP6 E2M3": mx(constants.DTYPE_FP6_E2M3),
            "MXFP6 E3M2": mx(constants.DTYPE_FP6_E3M2), "MXFP8 E4M3": mx(torch.float8_e4m3fn),
            "MXFP8 E5M2": mx(torch.float8_e5m2),
            "NVFP4": (nvfp4, lambda q: q.dequantize(torch.float32))}


def compressed_tensors(x):
    """MX and NVFP4 of compressed-tensors, as it writes checkpoints."""
    torch = _torch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from compressed_tensors.compressors.nvfp4 import helpers as fp4
        from compressed_tensors.quantization import QuantizationArgs
        from compressed_tensors.quantization.lifecycle import forward
        from compressed_tensors.quantization.utils import helpers
    t = torch.from_numpy(x)

    def scheme(bits, group, **options):
        return QuantizationArgs(num_bits=bits, type="float", symmetric=True, group_size=group,
                                **options)

    def pair(args, dtype, share):
        def scales():
            share_scale = None
            if share:
                share_scale = helpers.generate_gparam(*torch.aminmax(t))
            found, zero = helpers.compute_dynamic_scales_and_zp(t, args, None, share_scale)
            return found.to(torch.float32), zero, share_scale

        def quantize():
            found, zero, share_scale = scales()
            if dtype is None:
                packed = fp4.quantize_and_pack_fp4(t, found, global_scale=share_scale,
                                                   group_size=args.group_size)
            else:
                packed = forward.quantize(t, found, zero, args, dtype, share_scale)
            return packed, found, share_scale

        def dequantize(q):
            packed, found, share_scale = q
            if dtype is None:
                packed = fp4.unpack_fp4_from_uint8(packed, *t.shape)
            return forward.dequantize(packed, found, None, args, torch.float32, share_scale)

        return quantize, dequantize

    mx = {"strategy": "group", "scale_dtype": torch.uint8}
    return {
        "MXFP4": pair(scheme(4, 32, **mx), None, False),
        "MXFP8 E4M3": pair(scheme(8, 32, **mx), torch.float8_e4m3fn, False),
        "NVFP4": pair(scheme(4, 16, strategy="tensor_group", scale_dtype=torch.float8_e4m3fn),
                      None, True),
    }


def gguf(x):
    """MXFP4 of gguf, and Q4_0, which has the bits of M2XFP's weights: 4.5 per element."""
    from gguf import GGMLQuantizationType as Type
    from gguf import quants

    def of(kind):
        return lambda: quants.quantize(x, kind), lambda q: quants.dequantize(q, kind)

    return {"MXFP4": of(Type.MXFP4), "M2XFP weights": of(Type.Q4_0)}


PACKAGES = {"torchao": torchao, "compressed-tensors": compressed_tensors, "gguf": gguf}
"""By name, what makes a package's calls for a float32 tensor of two axes."""

NOT_THE_SAME = {("gguf", "M2XFP weights"): "gguf Q4_0"}
"""Where a package's row is another format: its name."""


def installed(x):
    """The calls of all packages that are installed, by package and format.

    Parameters
    ----------
    x : float32 array, shape (rows, K)

    Returns
    -------
    found : dict of str to dict
    missing : list of str
        Packages that are not installed, or that have moved what is called.
    """
    found, missing = {}, []
    for name, make in PACKAGES.items():
        try:
            found[name] = make(x)
        except (ImportError, AttributeError):
            missing.append(name)
    return found, missing


def _torch():
    import torch

    torch.set_num_threads(1)
    return torch


def arrays_of(result):
    """The arrays of a result, which count as its memory: anything with ``nbytes``."""
    if isinstance(result, tuple):
        return tuple(part for part in result if hasattr(part, "nbytes"))
    # A subclass of a tensor holds others.
    inner = [getattr(result, name, None) for name in ("qdata", "scale")]
    held = tuple(part for part in inner if hasattr(part, "nbytes"))
    return held or (result,)
