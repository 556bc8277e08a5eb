import numpy as np

from ..codec.numbers import SPECIALS, e2m1_integers


def sg_pe_tile(activations, weights, activation_metadata, weight_metadata, *,
               activation_special=None, weight_special=None):
    """Dot products of subgroups times the factors of both operands: exact integers.

    Parameters
    ----------
    activations, weights : uint8 array, shape (..., subgroup)
        FP4 codes.
    activation_metadata, weight_metadata : uint8 array, shape (...)
        Two metadata bits k each: the factor is (4 + k) / 4.
    activation_special, weight_special : uint8 array, shape (...), optional
        Selectors of the special value that the code of -0 stands for: 0 is +5, 1 is -5, 2 is +8
        and 3 is -8. Without, it is -0.

    Returns
    -------
    int32 array, shape (...)
        In units of 1/64. Of 8 elements at most 56448 in magnitude, or 100352 with special values.
    """
    x = _halves(activations, activation_special)
    w = _halves(weights, weight_special)
    factors = [4 + np.asarray(k, np.int32) for k in (activation_metadata, weight_metadata)]
    return (x * w).sum(-1, dtype=np.int32) * factors[0] * factors[1]


def _halves(codes, special):
    """Twice the values of codes."""
    values = e2m1_integers(codes).astype(np.int32)
    if special is None:
        return values
    specials = 2 * np.array(SPECIALS, np.int32)[np.asarray(special)]
    return np.where(np.asarray(codes) == 8, specials[..., None], values)
