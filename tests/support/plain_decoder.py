"""A decoder in plain Python, written from docs/format.md alone: slow, and unlike ours but for what the page says."""

import struct

from lmvp.core.codecs.zstd import decompress

WIDTHS = [1, 2, 4, 8, 1, 1, 2, 2, 4, 8]
GROUPS = {4: (3, 0x0F), 5: (2, 0x1F), 6: (10, 0x1F), 7: (7, 0xFF), 8: (23, 0xFF), 9: (55, 0xFF)}


def decode(frame, find):
    """Return the chunk of a frame; `find` gives the decoded bytes of another one by its id in hex."""
    codec, size, _ = struct.unpack_from("<BII", frame, 3)
    payload = frame[48:]
    if codec == 0:
        return payload
    if codec == 1:
        return decompress(payload, size)
    base = None
    if codec == 3:
        base, payload = find(payload[:32].hex()), payload[33:]
    return numbers(payload, size, base)


def numbers(payload, size, base):
    kind, at = payload[0], 1
    width = WIDTHS[kind]
    n = size // width
    grouped = base is not None and kind in GROUPS
    old = [int.from_bytes(base[i * width : i * width + width], "little") for i in range(n)] if base is not None else []
    order, segments = groups(old, *GROUPS[kind]) if grouped else (range(n), [n])
    coded = [0] * n
    for _ in range(width):
        plane = bytearray()
        for length in segments:
            part, at = stream(payload, at, length)
            plane += part
        coded = [value << 8 | byte for value, byte in zip(coded, plane, strict=True)]
    values = [0] * n
    for place, value in zip(order, coded, strict=True):
        values[place] = value if base is not None else rotated(value, 8 * width) if kind in GROUPS else value
    if base is not None:
        values = [stepped(z, b, 8 * width, kind in GROUPS) for z, b in zip(values, old, strict=True)]
    return b"".join(value.to_bytes(width, "little") for value in values) + payload[at:]


def rotated(value, bits):
    return value >> 1 | (value & 1) << (bits - 1)


def stepped(z, base, bits, is_float):
    d = ~(z >> 1) if z & 1 else z >> 1
    value = (d + (flipped(base, bits) if is_float else base)) % (1 << bits)
    return flipped(value, bits) if is_float else value


def flipped(value, bits):
    return value ^ ((1 << (bits - 1)) - 1) if value >> (bits - 1) else value


def groups(old, shift, mask):
    members = [[] for _ in range(mask + 1)]
    for place, value in enumerate(old):
        members[value >> shift & mask].append(place)
    order, segments, open_ = [], [], 0
    for group, places in enumerate(members):
        order += places
        open_ += len(places)
        if open_ >= 8192 and group < mask:
            segments.append(open_)
            open_ = 0
    return order, [*segments, open_] if open_ or not segments else segments


def stream(payload, at, m):
    way, at = payload[at], at + 1
    if way == 0:
        return bytes(m), at
    if way == 1:
        return payload[at : at + m], at + m
    if way == 2:
        (length,) = struct.unpack_from("<I", payload, at)
        return decompress(payload[at + 4 : at + 4 + length], m), at + 4 + length
    packed, at = stream(payload, at, (m + 3) // 4)
    symbols = [packed[i // 4] >> 2 * (i % 4) & 3 for i in range(m)]
    rest, at = stream(payload, at, symbols.count(3))
    following = iter(rest)
    return bytes(3 + next(following) if symbol == 3 else symbol for symbol in symbols), at
