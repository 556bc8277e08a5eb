# SPDX-License-Identifier: BSD-2-Clause
"""What the Sg engine's choice of factors costs: ``python -m benchmarks.sg_engine``.

The unit chooses the factor of a subgroup, and in Sg-EM the scale of a group, by errors of a few
bits (specification sections 10.6 to 10.8 and 18.10). Rows are the number of bits of a magnitude and
of an error; columns are the tensors. Figures say by how many percent the squared error is above
that of the exact choice.
"""

import sys

import numpy as np

from golden import dequantize, quantize_activations
from golden.command import Parser, run
from golden.models import language, pretrained, smollm2
from golden.models.llama import attention
from golden.units.sg_engine import ENCODINGS, ERROR_PLACES, PLACES, definition


@run
def main(arguments=None):
    """Runs the command, see ``--help``."""
    parser = Parser(prog="python -m benchmarks.sg_engine", description=__doc__)
    parser.add_argument("--encoding", choices=ENCODINGS, default="sg-threshold",
                        help="(default: sg-threshold)")
    parser.add_argument("--rows", type=int, default=256, metavar="N",
                        help="of the random tensors, of 1024 values each (default: 256)")
    parser.add_argument("--kv", type=int, metavar="TOKENS",
                        help="also measure keys and values of SmolLM2 over the first tokens of a "
                             "text (extra language)")
    options = parser.parse_args(arguments)
    if options.rows < 1:
        parser.error(f"--rows must be at least 1, not {options.rows}")
    if options.kv is not None and options.kv < 32:
        parser.error(f"--kv must be at least 32, not {options.kv}")
    inputs = tensors(options.rows)
    if options.kv:
        inputs |= keys_and_values(options.kv)
    print(table(measure(inputs, options.encoding), options.encoding))
    return 0


def tensors(rows):
    """Tensors by name: those of a layer of SmolLM2, and random ones.

    Student's t with three degrees of freedom has outliers as activations and keys have.
    """
    layer = smollm2.load()
    rng = np.random.default_rng(0)
    x, w = layer.activations, layer.weights
    return {"activations": x, "weights": w, "outputs": x @ w.T,
            "gaussian": rng.standard_normal((rows, 1024)).astype(np.float32),
            "student": rng.standard_t(3, (rows, 1024)).astype(np.float32)}


def keys_and_values(count):
    """Keys and values of all blocks of SmolLM2, in float32: groups as attention multiplies them.

    Those of keys are along the head, those of values along the tokens.
    """
    found = {"keys": [], "values": []}

    def attend(layer, q, k, v, cache):
        found["keys"].append(k.reshape(-1, k.shape[-1]))
        found["values"].append(v.reshape(len(v), -1).T)
        return attention(layer, q, k, v, cache)

    with language.load("smollm2") as model:
        tokens = model.tokens.encode(pretrained.news())[: count // 32 * 32]
        model.network.forward([(tokens, model.network.cache())],
                              lambda name, x: x @ model.weight(name).T, attend)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def measure(inputs, encoding):
    """Losses in percent by bits of magnitude and error, then by tensor."""
    exact = {name: squared_error(x, quantize_activations(x, encoding=encoding))
             for name, x in inputs.items()}
    own = ERROR_PLACES[encoding]
    results = {}
    for places in (3, 4, 5):
        for error_places in range(own - 1, own + 3):
            results[bits(places, error_places, encoding)] = {
                name: 100 * (squared_error(x, definition(
                    x, encoding=encoding, places=places, error_places=error_places))
                    / exact[name] - 1)
                for name, x in inputs.items()}
    return results


def bits(places, error_places, encoding):
    """Of a magnitude, which is below 16, and of an error, which is below 4 or 8."""
    return f"{places + 4}, {error_places + (2 if encoding == 'sg-threshold' else 3)}"


def squared_error(x, quantized):
    """Sum over all values."""
    return float(((x - dequantize(quantized)).astype(np.float64) ** 2).sum())


def table(results, encoding):
    """The losses as text; the unit's own row is marked."""
    names = [*next(iter(results.values()))]
    lines = ["bits: magnitude, error" + "".join(f"{name:>13}" for name in names)]
    own = bits(PLACES, ERROR_PLACES[encoding], encoding)
    for label, losses in results.items():
        mark = "  <" * (label == own)
        lines.append(f"{label:>22}" + "".join(f"{losses[name]:>11.3f} %" for name in names) + mark)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
