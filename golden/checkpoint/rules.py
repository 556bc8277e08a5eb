# SPDX-License-Identifier: BSD-2-Clause
"""Which tensors are weights of products, by their names, and along which axis those sum.

A tensor is left alone if its name says that it is no weight of a linear layer: see `REASONS`. Names
are compared part by part; parts lie between dots.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .safetensors import Tensor

REASONS = (
    ("bias, scale or zero point", re.compile(
        r"(.*bias|.*scales?|.*scale_2|.*scale_inv|.*zero_points?|.*qzeros|.*absmax)")),
    ("norm", re.compile(r"(.*norm\w*|ln_?\w*)")),
    ("embedding", re.compile(
        r"(.*embed\w*|.*embd|.*_tokens?|wte|wpe|shared|relative_attention_bias)")),
    ("position table", re.compile(
        r"(.*position\w*|.*pos_emb\w*|.*rotary\w*|.*inv_freq|rope_\w*|freqs\w*|(cos|sin)(_cached)?)")),
    ("router", re.compile(r"(.*router|gate|gating|.*gate_inp\w*|shared_expert_gate|wg)")),
    ("codebook", re.compile(r"(.*codebooks?|.*centroids|quant_map|.*lookup_table|lut)")),
)
"""What is left alone, and the pattern of a part of its name. Of a bias, scale or zero point it is
the last part."""

SMALLEST = 32
"""Elements of a group: shorter rows are left alone."""

# Weights of GPT-2's Conv1D, which are (in, out); other models have linear layers of these names.
_CONV1D = ("c_attn", "c_proj", "c_fc", "q_attn")

# Weights of all experts of a layer; some models store them as (E, in, out), some as (E, out, in).
_EXPERTS = {"gate_up_proj": "down_proj", "down_proj": "gate_up_proj"}


def reason_of_name(name: str) -> str:
    """What a name says that a tensor is instead of a weight, or ""."""
    parts = name.lower().split(".")
    for reason, pattern in REASONS:
        for part in parts[-1:] if reason.startswith("bias") else parts:
            if pattern.fullmatch(part):
                return reason
    return ""


def is_scale(name: str) -> bool:
    """Tells whether a name is that of a bias, a scale or a zero point."""
    return reason_of_name(name) == REASONS[0][0]


def transposed(tensors: Mapping[str, Tensor], name: str, config: Mapping[str, Any]) -> bool | None:
    """Tells whether a weight of floats is stored as (..., in, out); None if that is not known.

    A bias says which axis is the output. Of an expert's projections up and down, the output of one
    is the input of the other. All other weights are (..., out, in).

    Parameters
    ----------
    tensors : mapping of str to Tensor
    name : str
        Of a tensor of two or three axes.
    config : mapping
        The model's config.json.
    """
    shape = tensors[name].shape
    stem, _, last = name.rpartition(".")
    if len(shape) == 3:
        return _transposed_experts(tensors, name) if last in _EXPERTS else False
    if last not in ("weight", "kernel"):
        return False
    found = _by_bias(tensors, name)
    family = stem.rpartition(".")[2]
    if found is not None or family not in _CONV1D:
        return bool(found)
    others = {_by_bias(tensors, other) for other in tensors
              if other.endswith(tuple(f"{member}.weight" for member in _CONV1D))
              and len(tensors[other].shape) == 2} - {None}
    if len(others) == 1:
        return others.pop()
    if config.get("model_type") in ("gpt2", "openai-gpt", "imagegpt", "decision_transformer"):
        return True
    return None if f"{stem}.bias" in tensors else False


def _by_bias(tensors, name):
    """Whether a matrix is (in, out), if its bias tells."""
    rows, columns = tensors[name].shape
    bias = tensors.get(f"{name.rpartition('.')[0]}.bias")
    if bias is None or rows == columns or bias.shape not in ((rows,), (columns,)):
        return None
    return bias.shape == (columns,)


def _transposed_experts(tensors, name):
    _, second, third = tensors[name].shape
    bias = tensors.get(f"{name}_bias")
    if bias is not None and second != third and bias.shape[-1] in (second, third):
        return bias.shape[-1] == third
    stem, _, last = name.rpartition(".")
    other = tensors.get(f"{stem}.{_EXPERTS[last]}" if stem else _EXPERTS[last])
    if other is None or len(other.shape) != 3:
        return None
    up, down = (tensors[name], other) if last == "gate_up_proj" else (other, tensors[name])
    answers = {
        True: up.shape[1] == down.shape[2] and up.shape[2] == 2 * down.shape[1],
        False: up.shape[2] == down.shape[1] and up.shape[1] == 2 * down.shape[2]}
    right = [answer for answer, fits in answers.items() if fits]
    return right[0] if len(right) == 1 else None


def matching(patterns: Iterable[re.Pattern[str]], name: str) -> bool:
    """Tells whether one of some patterns matches a name."""
    return any(pattern.fullmatch(name) for pattern in patterns)
