# SPDX-License-Identifier: BSD-2-Clause
"""Mutates valid files: bytes, numbers, words of a language, and JSON behind a length or alone."""

import json
import random
import re

_SIZES = (0, 1, 2, 7, 8, 16, 32, 127, 128, 255, 256, 4096, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1,
          2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
_NUMBERS = (b"0", b"-1", b"1e999", b"-0.0", b"1e-400", b"NaN", b"Infinity", b"99999999999999999999",
            b"0x10", b"1_000", b"4294967296", b"3.5", b"", b"9" * 5000)
_VALUES = (None, True, False, 0, -1, 1, 2**31, 2**64, 10**400, 0.5, float("inf"), float("nan"), "",
           "x", "\0", "\ud800", "../x", "/", "a" * 300, [], {}, [0], [[]], {"x": 0}, [1, 2, 3])


def mutated(data, generator, *, words=(), others=(), framed=False):
    """A mutant of a file.

    Parameters
    ----------
    data : bytes
    generator : random.Random
    words : sequence of bytes
        What means something in the file's language.
    others : sequence of bytes
        Other files, parts of which may replace parts of this one.
    framed : bool
        Whether JSON stands behind its length in eight bytes, as in safetensors.
    """
    for _ in range(1 + min(int(generator.expovariate(1.2)), 6)):
        kind = generator.choice(_KINDS)
        data = kind(data, generator, words, others, framed)
    return data[:1 << 20]


def _flipped(data, generator, *_):
    if not data:
        return b"\0"
    at = generator.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << generator.randrange(8)]) + data[at + 1:]


def _byte(data, generator, *_):
    at = generator.randrange(len(data) + 1)
    return data[:at] + bytes([generator.randrange(256)]) + data[at + generator.randrange(2):]


def _cut(data, generator, *_):
    start = generator.randrange(len(data) + 1)
    stop = generator.choice([len(data), min(len(data), start + 1 + generator.randrange(40))])
    return data[:start] + data[stop:]


def _repeated(data, generator, *_):
    start = generator.randrange(len(data) + 1)
    part = data[start: start + 1 + generator.randrange(60)]
    # Deep nesting and long lists, now and then.
    times = generator.choice([1, 1, 1, 1, 2, 20] + [5000] * (generator.random() < 0.05))
    return data[:start] + part * times + data[start:]


def _number(data, generator, *_):
    found = [*re.finditer(rb"-?\d+\.?\d*", data)]
    if not found:
        return data
    match = generator.choice(found)
    return data[:match.start()] + generator.choice(_NUMBERS) + data[match.end():]


def _size(data, generator, *_):
    """A number in two to eight bytes, as binary headers have it."""
    width = generator.choice([1, 2, 4, 8])
    if len(data) < width:
        return data
    # Headers are at the beginning.
    at = generator.randrange(min(len(data), generator.choice([64, 4096])) - width + 1) \
        if len(data) > width else 0
    value = generator.choice(_SIZES) % (1 << 8 * width)
    return data[:at] + value.to_bytes(width, "little") + data[at + width:]


def _word(data, generator, words, *_):
    if not words:
        return data
    at = generator.randrange(len(data) + 1)
    return data[:at] + generator.choice(words) + data[at + generator.choice([0, 0, 1, 5]):]


def _token(data, generator, *_):
    """A word of the file in the place of another."""
    found = [*re.finditer(rb"\w+|[^\w\s]", data[:1 << 14])]
    if len(found) < 2:
        return data
    one, other = generator.sample(found, 2)
    return data[:one.start()] + other[0] + data[one.end():]


def _spliced(data, generator, words, others, framed):
    if not others:
        return data
    other = generator.choice(others)
    start, stop = sorted(generator.randrange(len(other) + 1) for _ in range(2))
    at = generator.randrange(len(data) + 1)
    return data[:at] + other[start:stop] + data[at + generator.choice([0, stop - start]):]


def _tree(data, generator, words, others, framed):
    """Another value somewhere in JSON."""
    start, stop = 0, len(data)
    if framed:
        start = 8
        stop = 8 + int.from_bytes(data[:8], "little")
    try:
        root = [json.loads(data[start:stop])]
    except (ValueError, RecursionError):
        return data
    place, key = root, 0
    # Descends to a place that is not always a leaf.
    while isinstance(place[key], (dict, list)) and place[key] and generator.random() < 0.8:
        place = place[key]
        key = generator.choice([*place]) if isinstance(place, dict) else generator.randrange(
            len(place))
        # Metadata hold JSON as a text.
        if isinstance(place[key], str) and place[key][:1] == "{" and generator.random() < 0.8:
            inner = _tree(place[key].encode("utf-8", "replace"), generator, words, others, False)
            place[key] = inner.decode(errors="replace")
            key = None
            break
    if key is not None:
        kind = generator.randrange(5)
        if kind == 0:
            del place[key]
        elif kind == 1 and isinstance(place, dict):
            place[generator.choice(["", "x", "__metadata__", *place])] = place.pop(key)
        elif kind == 2 and isinstance(place, dict) and len(place) > 1:
            place[key] = place[generator.choice([*place])]
        else:
            place[key] = generator.choice(_VALUES)
    try:
        text = json.dumps(root[0] if root else None).encode()
    except ValueError:
        return data
    if framed:
        return len(text).to_bytes(8, "little") + text + data[stop:]
    return text + data[stop:]


_KINDS = (_flipped, _byte, _cut, _repeated, _number, _size, _word, _word, _token, _spliced, _tree,
          _tree)


def random_bytes(generator, most=64):
    """A few bytes that are no mutant of anything."""
    return random.Random(generator.random()).randbytes(generator.randrange(most))
