# SPDX-License-Identifier: BSD-2-Clause
"""Part of a real language model: activations and the weights of one block's MLP.

The package carries them. ``python -m golden smollm2`` makes them again, from the packages that
carry the model and the text.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codec.arrays import Float32Array
from ..command import Parser, check_folder, naming, run
from ..output import replacing
from . import hooks, pretrained
from .pretrained import NEWS, SMOLLM2

LAYER = 15  # The middle one of 30.
TENSORS = tuple(f"model.layers.{LAYER}.mlp.{name}_proj.weight" for name in ("up", "down"))
TOKENS = 32
ROWS = 256

BLOCK = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("codes", "u1", 16)])
"""Q4_1's block of 32 weights along a row.

The low halves of the bytes are the codes of the first 16 weights, the high halves those of the
others.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """Operands of one linear layer: ``activations @ weights.T`` is a slice of its true output.

    Attributes
    ----------
    activations : float32 array, shape (tokens, 576)
        Input of the layer, exactly as the model computed it.
    weights : float32 array, shape (rows, 576)
        First rows of its weight, dequantized from Q4_1, the format of the model's package.
    layer : int
        Index of the transformer block.
    tensor : str
        Name of the weight in the model.
    text : str
        Origin of the tokens.
    """

    activations: Float32Array
    weights: Float32Array
    layer: int
    tensor: str
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Mlp:
    """Up and down projection of one transformer block, whole, and the up projection's input.

    ``activations @ up.T`` is the up projection's true output. The model multiplies it by the SiLU
    of the gate projection, which is not here; the product is the down projection's input.

    Attributes
    ----------
    activations : float32 array, shape (tokens, 576)
        Input of the up projection, exactly as the model computed it.
    up_blocks : array of BLOCK, shape (1536, 18)
        Weight of the up projection in Q4_1, as it is in the model's file.
    down_blocks : array of BLOCK, shape (576, 48)
        Weight of the down projection, likewise.
    layer : int
        Index of the transformer block.
    tensors : tuple of str
        Names of the two weights in the model.
    text : str
        Origin of the tokens.
    """

    activations: Float32Array
    up_blocks: NDArray[Any]
    down_blocks: NDArray[Any]
    layer: int
    tensors: tuple[str, ...]
    text: str

    @property
    def up(self) -> Float32Array:
        """Weight of the up projection, shape (1536, 576)."""
        return dequantize(self.up_blocks)

    @property
    def down(self) -> Float32Array:
        """Weight of the down projection, shape (576, 1536)."""
        return dequantize(self.down_blocks)


def load_mlp() -> Mlp:
    """Loads the data that the package carries.

    ``golden/models/data/README.md`` tells its origin.

    Returns
    -------
    Mlp
    """
    with (
        resources.files(__package__).joinpath("data/smollm2_mlp.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        return Mlp(
            activations=arrays["activations"],
            up_blocks=arrays["up_blocks"],
            down_blocks=arrays["down_blocks"],
            layer=arrays["layer"].item(),
            tensors=tuple(arrays["tensors"].tolist()),
            text=arrays["text"].item(),
        )


def load() -> Slice:
    """Loads the up projection of `load_mlp`, with its first 256 rows only.

    Returns
    -------
    Slice
    """
    mlp = load_mlp()
    return Slice(
        activations=mlp.activations,
        weights=dequantize(mlp.up_blocks[:ROWS]),
        layer=mlp.layer,
        tensor=mlp.tensors[0],
        text=mlp.text,
    )


def dequantize(blocks: NDArray[Any]) -> Float32Array:
    """Decodes blocks of Q4_1; each value is rounded once to float32.

    Parameters
    ----------
    blocks : array of BLOCK, shape (..., K / 32)

    Returns
    -------
    float32 array, shape (..., K)

    Raises
    ------
    TypeError
        If the blocks are not of type `BLOCK`.
    """
    dtype = getattr(blocks, "dtype", type(blocks).__name__)
    if dtype != BLOCK:
        raise TypeError(f"blocks must be an array of BLOCK, not of {dtype}")

    # A float16 times a code of 4 bits is exact in float32, so that only the sum rounds.
    codes = np.concatenate([blocks["codes"] & 15, blocks["codes"] >> 4], axis=-1)
    scale, minimum = (blocks[name].astype(np.float32)[..., None] for name in ("scale", "minimum"))
    values = scale * codes + minimum
    return values.reshape(*blocks.shape[:-1], -1)


def regenerate() -> Mlp:
    """Runs the model on its text and takes activations and weights.

    This needs the extra ``models``. The model and the text are those of `golden.models.pretrained`.

    Returns
    -------
    Mlp

    Raises
    ------
    Unavailable
        If a package is missing.
    AssertionError
        If the weights differ in a bit from those that the model ran with.
    """
    pretrained.require()
    import gguf
    import torch

    # Threads may divide sums, and the order of a sum decides its last bits.
    torch.set_num_threads(1)

    file, = (pretrained.fetch(SMOLLM2) / name for name in SMOLLM2.files)
    text = pretrained.news()
    _say(f"Loading {file.name} ...")
    model = pretrained.smollm2()
    up, down = (_blocks(gguf, file, f"blk.{LAYER}.ffn_{name}.weight",
                        model.network.get_parameter(tensor).detach().numpy())
                for name, tensor in zip(("up", "down"), TENSORS, strict=True))

    # The first document is longer than that.
    tokens = pretrained.sequences(model.tokenizer, text.splitlines()[0], count=1, length=TOKENS)
    name = TENSORS[0].removesuffix(".weight")
    inputs = []
    _say(f"Running the model on {TOKENS} tokens ...")
    with (
        torch.inference_mode(),
        hooks.captured({name: model.linears[name]}, lambda name, x: inputs.append(x)),
    ):
        model.network(torch.from_numpy(tokens))

    return Mlp(
        activations=inputs[0],
        up_blocks=up,
        down_blocks=down,
        layer=LAYER,
        tensors=TENSORS,
        text=f"first {TOKENS} tokens of {', '.join(NEWS.files)} in {NEWS.name} {NEWS.version}",
    )


def _blocks(gguf, file, name, loaded):
    # Blocks of a tensor in the model's file. Decoded, they must be the weights as loaded.
    tensor, = (tensor for tensor in gguf.GGUFReader(file).tensors if tensor.name == name)
    blocks = np.array(tensor.data).view(BLOCK)
    ours = dequantize(blocks).view(np.uint32)
    theirs = gguf.dequantize(tensor.data, tensor.tensor_type)
    if not all(np.array_equal(ours, array.view(np.uint32)) for array in (theirs, loaded)):
        raise AssertionError(f"{name} and its dequantized weights differ")
    return blocks


def _say(line):
    print(line, file=sys.stderr, flush=True)


def _describe(name, array):
    values = array.astype(np.float64)
    deviations = values - values.mean()
    kurtosis = (deviations**4).mean() / (deviations**2).mean()**2
    _say(f"{name}: {array.shape[0]} x {array.shape[1]}, largest magnitude {abs(values).max():.4g}, "
         f"standard deviation {values.std():.4g}, kurtosis {kurtosis:.1f}\n"
         f"  sha256 {hashlib.sha256(array.tobytes()).hexdigest()}")


def parser() -> Parser:
    """The command's parser."""
    made = Parser(
        prog="python -m golden smollm2",
        description="Makes the package's model data again, from the packages that carry the model "
                    "and the text (extra models).")
    made.add_argument(
        "-o", "--output", metavar="FILE", type=Path,
        default=Path(__file__).with_name("data") / "smollm2_mlp.npz",
        help="file to write (default: the one that load() reads)")
    return made


@run
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``python -m golden smollm2``; returns the exit status."""
    output = parser().parse_args(arguments).output
    check_folder(output, "--output")
    taken = regenerate()
    _describe("activations", taken.activations)
    _describe("up", taken.up)
    _describe("down", taken.down)
    with naming(output), replacing(output) as (file,):
        np.savez_compressed(file, **vars(taken))
    _say(f"Wrote {output.name}, {output.stat().st_size} bytes.")
    return 0
