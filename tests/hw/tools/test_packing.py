# SPDX-License-Identifier: BSD-2-Clause
"""Arrays are packed into bits and words as Amaranth packs them, in little memory."""

import tracemalloc

import numpy as np
from amaranth import Const, Shape, signed
from amaranth.lib import data
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.tools.packing import from_integers, from_words, to_bits, to_integers, to_words

LEAVES = st.builds(Shape, st.integers(1, 64), st.booleans())
SHAPES = st.recursive(LEAVES, lambda shapes: st.one_of(
    st.builds(data.ArrayLayout, shapes, st.integers(1, 4)),
    st.dictionaries(st.sampled_from("abcd"), shapes, min_size=1).map(data.StructLayout),
), max_leaves=4)


@st.composite
def payloads(draw):
    """A shape and one value of it, as Amaranth takes it."""
    def value(shape):
        if isinstance(shape, data.StructLayout):
            return {name: value(field) for name, field in shape.members.items()}
        if isinstance(shape, data.ArrayLayout):
            return [value(shape.elem_shape) for _ in range(shape.length)]
        low, high = (-1 << shape.width - 1, 1 << shape.width - 1) if shape.signed else (
            0, 1 << shape.width)
        return draw(st.integers(low, high - 1))

    shape = draw(SHAPES)
    return shape, [value(shape) for _ in range(draw(st.integers(1, 3)))]


def transposed(shape, rows):
    """Rows of values as the bench takes them: arrays inside, structures outside."""
    if isinstance(shape, data.StructLayout):
        return {name: transposed(field, pick(rows, name)) for name, field in shape.members.items()}
    if isinstance(shape, data.ArrayLayout):
        return transposed(shape.elem_shape, rows)
    return np.array(rows, np.int64 if shape.signed else np.uint64)


def pick(rows, name):
    return [pick(row, name) if isinstance(row, list) else row[name] for row in rows]


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    return a.tolist() == b.tolist()


@settings(max_examples=150, deadline=None)
@given(payloads())
def test_payloads_are_packed_as_amaranth_does(example):
    shape, rows = example
    width = Shape.cast(shape).width
    values = transposed(shape, rows)
    bits = to_bits(shape, values, "values")
    integers = to_integers(bits)
    assert bits.shape == (len(rows), width)
    assert integers == [Const.cast(constant(shape, row)).value % (1 << width) for row in rows]
    words = to_words(shape, values, "values")
    assert words.shape == (len(rows), -(-width // 32))
    assert to_integers(words) == integers
    assert (from_integers(integers, width) == words).all()
    assert same(from_words(shape, words), values)


def test_memory_of_long_runs():
    """A few times the words, not the bits, even if each is a byte of its own; in both ways."""
    shape = data.StructLayout({"a": data.ArrayLayout(4, 30), "b": signed(23)})
    rows = 200_000
    value = {"a": np.broadcast_to(np.arange(30) % 16, (rows, 30)),
             "b": np.arange(rows) - rows // 2}
    tracemalloc.start()
    words = to_words(shape, value, "x")
    packing = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    back = from_words(shape, words)
    unpacking = tracemalloc.get_traced_memory()[1] - words.nbytes
    tracemalloc.stop()
    assert same(back, value)
    slice_ = 8 << 20
    assert packing < words.nbytes + slice_
    assert unpacking < sum(array.nbytes for array in back.values()) + slice_


def constant(shape, value):
    return Const(value, shape) if isinstance(shape, Shape) else shape.const(value)
