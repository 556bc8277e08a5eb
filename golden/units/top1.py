import numpy as np


def top1(codes):
    """Lane of the largest-magnitude FP4 code along the last axis; ties go to the lowest lane."""
    return np.argmax(np.asarray(codes) & 0b111, axis=-1).astype(np.uint8)
