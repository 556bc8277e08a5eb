# SPDX-License-Identifier: BSD-2-Clause
"""What is in a checkpoint: which tensors are weights, and what becomes of every other tensor.

Weights are tensors of float32, float16 or bfloat16 with two or three axes, unless a rule says
otherwise (`rules`), and weights in MXFP4, NVFP4, MXFP8 and FP8 under the names that other tools
give them. All others are left alone, each for a reason.
"""

import fnmatch
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import rules
from .model import Model
from .safetensors import Tensor
from .values import BLOCKS, DTYPES, GROUP, NVFP4_GROUP, Scales, Weight

BLOCK = 2**20
"""Elements that are read or written at a time, but at least one row."""

_FP8 = ("F8_E4M3", "F8_E5M2")
_INTEGERS = ("U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "BOOL")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What becomes of every tensor of a checkpoint.

    Attributes
    ----------
    weights : list of Weight
        Tensors that are quantized.
    left : dict of str to str
        Tensors that are copied, with the reason.
    wrong : dict of str to str
        Packed weights that cannot be read, with what is wrong.
    """

    weights: list[Weight] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)


class _Wrong(Exception):
    """A packed weight cannot be read."""


class _Foreign(Exception):
    """A packed weight is of a scheme that is not understood."""


def plan(model: Model, *, swizzled: bool = False, include: Sequence[str] = (),
         exclude: Sequence[str] = ()) -> Plan:
    """Decides what becomes of every tensor.

    Parameters
    ----------
    model : Model
    swizzled : bool
        Whether scales are 128x4-swizzled if their shape does not tell.
    include, exclude : sequence of str
        Patterns, with wildcards, of names of tensors. Those of ``include`` are quantized though
        their names or the configuration say that they are no weights; those of ``exclude`` are left
        alone.

    Returns
    -------
    Plan

    Raises
    ------
    BadFile
        If the configuration cannot be understood.
    ValueError
        If a pattern matches no tensor.
    """
    return _Planner(model, swizzled, include, exclude).plan()


class _Planner:
    def __init__(self, model, swizzled, include, exclude):
        self.model = model
        self.tensors = model.tensors
        self.swizzled = swizzled
        self.include = [_pattern(text, "--include", model.tensors) for text in include]
        self.exclude = [_pattern(text, "--exclude", model.tensors) for text in exclude]
        self.result = Plan()
        self.used: dict[str, str] = {}

    def plan(self):
        for name, tensor in self.tensors.items():
            if rules.matching(self.exclude, name):
                continue
            try:
                weight = self._packed(name, tensor)
            except _Wrong as wrong:
                self.result.wrong[name] = str(wrong)
                continue
            except _Foreign as foreign:
                self.result.left[name] = str(foreign)
                continue
            if weight is not None:
                reason = rules.reason_of_name(weight.name)
                if reason and not rules.matching(self.include, name):
                    self.result.left.update(dict.fromkeys(weight.parts, reason))
                    continue
                self.result.weights.append(weight)
                self.used |= dict.fromkeys(weight.parts, weight.name)
        packed = {weight.name for weight in self.result.weights}
        for name, tensor in self.tensors.items():
            if name in self.used or name in self.result.left or name in self.result.wrong:
                continue
            verdict = self._float(name, tensor)
            if isinstance(verdict, Weight):
                self.result.weights.append(verdict)
                self.used[name] = name
            else:
                self.result.left[name] = verdict
        self._separate(packed)
        return self.result

    def _separate(self, packed):
        """Leaves weights alone whose planes would take the names of other tensors."""
        names = {*self.result.left, *self.result.wrong}
        chosen = []
        for weight in sorted(self.result.weights, key=lambda w: w.name not in packed):
            planes = {f"{weight.name}.{plane}" for plane in ("elements", "metadata", "scales")}
            if taken := sorted((planes | {weight.name}) & names):
                for part in weight.parts:
                    self.result.left[part] = f"the name {taken[0]!a} is taken by another tensor"
                names |= {*weight.parts}
                continue
            names |= planes | {weight.name}
            chosen.append(weight)
        # A tensor that is left alone may itself take the name of another's plane.
        if len(chosen) < len(self.result.weights):
            self.result.weights[:] = chosen
            self._separate(packed)
            return
        order = {name: i for i, name in enumerate(self.tensors)}
        self.result.weights.sort(key=lambda weight: order[weight.parts[0]])

    def _float(self, name, tensor):
        """A weight of floats, or why it is left alone."""
        if rules.matching(self.exclude, name):
            return "--exclude"
        if tensor.packed:
            return f"{tensor.packed} of GGUF is not understood"
        if 0 in tensor.shape:
            return "empty"
        if tensor.dtype not in DTYPES:
            return f"{tensor.dtype} is no type of weights"
        if len(tensor.shape) not in (2, 3):
            return {0: "a single value", 1: "one axis"}.get(len(tensor.shape),
                                                            "more than three axes")
        asked = rules.matching(self.include, name)
        if not asked:
            if reason := rules.reason_of_name(name) or self._foreign_sibling(name):
                return reason
            if pattern := self.model.ignored(name):
                return f"the configuration ignores {pattern!a}"
        swap = rules.transposed(self.tensors, name, self.model.config)
        if swap is None and not asked:
            return "its reduction axis is not known"
        shape = tensor.shape
        if swap:
            shape = (*shape[:-2], shape[-1], shape[-2])
        if shape[-1] < rules.SMALLEST and not asked:
            return f"fewer than {rules.SMALLEST} elements along the reduction axis"
        return Weight(name=name, shape=shape, dtype=tensor.dtype, parts=(name,),
                      transposed=bool(swap))

    def _foreign_sibling(self, name):
        """Names an integer tensor of the same module, whose weight is packed in another way."""
        module = name.rpartition(".")[0]
        return self._foreign.get(module, "") if module else ""

    @property
    def _foreign(self):
        if not hasattr(self, "_foreign_modules"):
            self._foreign_modules = {}
            for name, tensor in self.tensors.items():
                if (tensor.dtype in _INTEGERS and len(tensor.shape) >= 2 and not tensor.packed
                        and name not in self.used):
                    self._foreign_modules.setdefault(
                        name.rpartition(".")[0],
                        f"part of another scheme, beside {name!a} of {tensor.dtype}")
        return self._foreign_modules

    # Packed weights.

    def _packed(self, name, tensor):
        """The weight whose codes a tensor holds, or None."""
        if 0 in tensor.shape or len(tensor.shape) < 2:
            return None
        if tensor.packed:
            return self._gguf(name, tensor)
        if stated := self._torchao(name):
            return stated
        if tensor.dtype == "U8" and name.endswith("_blocks"):
            return self._gpt_oss(name)
        if tensor.dtype in ("U8", "I8", "F4"):
            return self._four_bits(name, tensor)
        if tensor.dtype in _FP8 and not rules.is_scale(name):
            return self._eight_bits(name, tensor)
        return None

    def _gguf(self, name, tensor):
        if tensor.packed not in BLOCKS:
            return None
        elements, size = BLOCKS[tensor.packed]
        return Weight(name=name, shape=(*tensor.shape[:-1], tensor.shape[-1] // size * elements),
                      dtype=tensor.packed, parts=(name,), packed=tensor.packed,
                      note="blocks of GGUF")

    def _gpt_oss(self, name):
        shape = self.tensors[name].shape
        if shape[-1] != GROUP // 2:
            raise _Wrong(f"{name!a} must have the shape (..., groups, 16) of MXFP4, not "
                         f"{list(shape)}")
        stem = name.removesuffix("_blocks")
        self._require(f"{stem}_scales", ("U8", "F8_E8M0"), [shape[:-1]], name)
        return Weight(name=stem, shape=(*shape[:-2], shape[-2] * GROUP), dtype="MXFP4",
                      parts=(name, f"{stem}_scales"), elements="E2M1",
                      scales=Scales(name=f"{stem}_scales", block=(1, GROUP)),
                      note="elements in the low nibble come first")

    def _four_bits(self, name, tensor):
        base = name.removesuffix("_packed")
        scale = self._scale_of(base)
        if any(other.startswith(f"{name}.") for other in self.tensors):
            raise _Foreign("of another scheme, that of bitsandbytes")
        packed = name.endswith(("weight_packed", "_packed"))
        if scale is None:
            if tensor.dtype == "I8" or not (packed or tensor.dtype == "F4"
                                            or name.endswith("weight")):
                return None
            raise _Wrong(self._missing(name, base, f"{base}_scale"))
        kind = self.tensors[scale].dtype
        if tensor.dtype == "I8" and kind != "F8_E8M0":
            raise _Foreign(f"integers with scales {scale!a} are not understood")
        if kind not in ("F8_E4M3", "U8", "F8_E8M0"):
            raise _Foreign(f"codes of {tensor.dtype} with scales {scale!a} of {kind} are not "
                           "understood")
        *lead, width = tensor.shape
        k = width if tensor.dtype == "F4" else 2 * width
        group = NVFP4_GROUP if kind == "F8_E4M3" else GROUP
        name_of = "NVFP4" if kind == "F8_E4M3" else "MXFP4"
        if kind == "U8" and width * 4 == 3 * GROUP * self.tensors[scale].shape[-1]:
            raise _Foreign("MXFP6 is not understood")
        if k % group:
            raise _Wrong(f"{name!a} must have the shape (..., K / 2) of {name_of} with K a "
                         f"multiple of {group}, not {list(tensor.shape)}")
        swizzled, layout = self._layout(scale, (kind,), lead, k // group, name)
        tensor_scale, divides, how = ("", False, "")
        if name_of == "NVFP4":
            tensor_scale, divides, how = self._tensor_scale(name, base, scale, lead)
        parts = (name, scale, *[tensor_scale] * bool(tensor_scale))
        return Weight(name=base, shape=(*lead, k), dtype=name_of, parts=parts, elements="E2M1",
                      scales=Scales(name=scale, block=(1, group), swizzled=swizzled,
                                    tensor_scale=tensor_scale, divides=divides),
                      note=f"scales {layout}; {how}elements in the low nibble first")

    def _eight_bits(self, name, tensor):
        scale = self._scale_of(name)
        if scale is None:
            raise _Wrong(self._missing(name, name, f"{name}_scale"))
        *lead, k = tensor.shape
        found = self.tensors[scale]
        # E8M0 also serves larger blocks.
        if found.dtype == "U8" or found.dtype == "F8_E8M0" and k % GROUP == 0 and (
                found.shape in _layouts(lead, k // GROUP)):
            if k % GROUP:
                raise _Wrong(f"{name!a} must have a multiple of {GROUP} elements in a row of "
                             f"MXFP8, not {k}")
            swizzled, layout = self._layout(scale, (found.dtype,), lead, k // GROUP, name)
            return Weight(name=name, shape=tensor.shape, dtype="MXFP8", parts=(name, scale),
                          elements=tensor.dtype, note=f"scales {layout}",
                          scales=Scales(name=scale, block=(1, GROUP), swizzled=swizzled))
        if found.dtype not in (*DTYPES, "F8_E8M0"):
            raise _Foreign(f"FP8 with scales {scale!a} of {found.dtype} is not understood")
        block = self._block(name, tensor.shape, scale, found.shape)
        what = {(lead[-1], k): "matrix", (1, k): "row"}.get(
            block, f"block of {block[0]} x {block[1]}")
        return Weight(name=name, shape=tensor.shape, dtype="FP8", parts=(name, scale),
                      elements=tensor.dtype, note=f"a scale per {what}, which multiplies",
                      scales=Scales(name=scale, block=block))

    def _block(self, name, shape, scale, found):
        """Rows and columns under a scale of FP8."""
        *lead, rows, k = shape
        matrices = math.prod(lead)
        size = math.prod(found)
        stated = self.model.block
        if size == 1 and matrices == 1 or size == matrices and found[0] == matrices:
            return rows, k
        if found in ((*lead, rows), (*lead, rows, 1)):
            return 1, k
        if len(found) == len(shape) and found[:-2] == (*lead,):
            for height, width in filter(None, (stated, (128, 128))):
                if found[-2:] == (-(-rows // height), -(-k // width)):
                    return height, width
            if rows % found[-2] == 0 and k % found[-1] == 0:
                return rows // found[-2], k // found[-1]
        raise _Wrong(f"{name!a} of shape {list(shape)} needs {scale!a} with a scale per matrix, "
                     f"row or block, not {list(found)}")

    def _torchao(self, name):
        """A weight whose parts are called MODULE._NAME_qdata and MODULE._NAME_scale."""
        module, _, last = name.rpartition(".")
        if not (last.startswith("_") and last.endswith("_qdata")):
            return None
        whole = f"{module}.{last[1:].removesuffix('_qdata')}"
        try:
            stated = json.loads(self.model.metadata[whole])
            kind, about = stated["_type"], stated["_data"]
            data = {key: v.get("_data") if isinstance(v, dict) else v for key, v in about.items()}
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
            raise _Wrong(f"{name!a} needs a description of {whole!a} as torchao writes it, in the "
                         "file's metadata; --exclude leaves it alone") from None
        prefix = name.removesuffix("qdata")
        scale = f"{prefix}scale"
        tensor = self.tensors[name]
        if kind not in ("MXTensor", "NVFP4Tensor", "Float8Tensor"):
            raise _Foreign(f"torchao's {kind} is not understood")
        if scale not in self.tensors:
            raise _Wrong(self._missing(name, whole, scale))
        *lead, width = tensor.shape
        if kind == "Float8Tensor":
            if tensor.dtype not in _FP8 or self.tensors[scale].dtype not in DTYPES:
                raise _Foreign(f"torchao's {kind} of {tensor.dtype} is not understood")
            block = self._block(name, tensor.shape, scale, self.tensors[scale].shape)
            return Weight(name=whole, shape=tensor.shape, dtype="FP8", parts=(name, scale),
                          elements=tensor.dtype, scales=Scales(name=scale, block=block),
                          note="torchao's Float8Tensor")
        four = tensor.dtype in ("U8", "F4")
        group = NVFP4_GROUP if kind == "NVFP4Tensor" else GROUP
        if not four and tensor.dtype not in _FP8 or data.get("block_size") != group or (
                four and kind == "MXTensor" and "float4" not in str(data.get("elem_dtype"))):
            raise _Foreign(f"torchao's {kind} of {data.get('elem_dtype', tensor.dtype)} in groups "
                           f"of {data.get('block_size')} is not understood")
        k = 2 * width if tensor.dtype == "U8" else width
        swizzled = bool(data.get("is_swizzled_scales"))
        rows, groups = math.prod(lead), k // group
        size = (-(-rows // 128) * 128 * (-(-groups // 4) * 4)) if swizzled else rows * groups
        found = self.tensors[scale]
        wanted = ("F8_E4M3",) if kind == "NVFP4Tensor" else ("F8_E8M0", "U8")
        if k % group or found.dtype not in wanted or math.prod(found.shape) != size:
            raise _Wrong(f"{name!a} needs {scale!a} of {' or '.join(wanted)} with {size} scales, "
                         f"not {found.dtype} {list(found.shape)}")
        tensor_scale = f"{prefix}per_tensor_scale"
        if kind == "MXTensor" or tensor_scale not in self.tensors:
            tensor_scale = ""
        elif (self.tensors[tensor_scale].dtype != "F32"
              or math.prod(self.tensors[tensor_scale].shape) not in (1, math.prod(lead[:-1]))):
            raise _Wrong(f"{name!a} needs {tensor_scale!a} of F32, one or one per matrix")
        dtype = "NVFP4" if kind == "NVFP4Tensor" else "MXFP4" if four else "MXFP8"
        return Weight(name=whole, shape=(*lead, k), dtype=dtype,
                      parts=(name, scale, *[tensor_scale] * bool(tensor_scale)),
                      elements="E2M1" if four else tensor.dtype,
                      scales=Scales(name=scale, block=(1, group), swizzled=swizzled,
                                    tensor_scale=tensor_scale),
                      note=f"torchao's {kind}, scales "
                           + ("128x4-swizzled" if swizzled else "row by row"))

    def _scale_of(self, base):
        """Name of the scales of a weight, or None."""
        candidates = [f"{base}_scale", f"{base}_weight_scale", f"{base}_scale_inv"]
        if base.endswith(".weight"):
            candidates.append(base.removesuffix("weight") + "scale")
        return next((name for name in candidates if name in self.tensors), None)

    def _tensor_scale(self, name, base, scale, lead):
        multiplies, divides = f"{scale}_2", f"{base}_global_scale"
        found = [s for s in (multiplies, divides) if s in self.tensors]
        if len(found) != 1:
            raise _Wrong(f"{name!a} needs one of {multiplies!a} and {divides!a}, not "
                         f"{'both' if found else 'none'}")
        matrices = math.prod(lead[:-1])
        shapes = [(), (1,), *[(matrices,), (matrices, 1), (matrices, 1, 1)] * (matrices > 1)]
        self._require(found[0], ("F32",), shapes, name)
        if found[0] == multiplies:
            return multiplies, False, "tensor scale multiplies (ModelOpt's weight_scale_2); "
        return divides, True, ("tensor scale divides (compressed-tensors' weight_global_scale); ")

    def _layout(self, scale, dtypes, lead, groups, owner):
        """Whether scales are swizzled, and how that is known."""
        linear, padded = _layouts(lead, groups)
        self._require(scale, dtypes, [linear, padded], owner)
        if linear != padded:
            if self.tensors[scale].shape == padded:
                return True, "padded, so assumed 128x4-swizzled"
            return False, "row by row, as not padded"
        if self.swizzled:
            return True, "128x4-swizzled, as the option says"
        return False, "assumed row by row, as their shape does not tell"

    def _missing(self, name, base, scale):
        alone = self.model.folder is None
        return (f"{name!a} needs {scale!a}, which is missing"
                + "; if it lies in another shard, name the folder or the index" * alone
                + "; --exclude leaves it alone")

    def _require(self, name, dtypes, shapes, owner):
        tensor: Tensor | None = self.tensors.get(name)
        shapes = [tuple(shape) for shape in shapes]
        if tensor is not None and tensor.dtype in dtypes and tensor.shape in shapes:
            return
        if tensor is None:
            raise _Wrong(self._missing(owner, owner, name))
        wanted = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        raise _Wrong(f"{owner!a} needs {name!a} of {' or '.join(dtypes)} {wanted}, not "
                     f"{tensor.dtype} {list(tensor.shape)}")


def _layouts(lead, groups):
    """Shapes of scales that lie row by row, and of 128x4-swizzled ones."""
    return (*lead, groups), (-(-math.prod(lead) // 128) * 128, -(-groups // 4) * 4)


def _pattern(text, option, tensors):
    pattern = re.compile(fnmatch.translate(text))
    if not any(pattern.fullmatch(name) for name in tensors):
        raise ValueError(f"{option} must match the name of a tensor, not {text!a}")
    return pattern
