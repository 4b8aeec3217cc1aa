"""Writes codecs.json: frames that every later version must decode to the same bytes. Run once, and only to add some.

Each delta's base is another frame of the file, and the id in a frame's header says what it decodes to, so nothing else
need be kept. `python -m tests.vectors.make` leaves what is there alone and appends what is new.
"""

import json
import struct
from pathlib import Path

import numpy as np
from blake3 import blake3

from lmvp.core import chunk_frames as frames
from lmvp.core import codecs
from lmvp.core.chunk_frames import DELTA, HEADER_SIZE, RAW, SOLO, ZSTD, Frame
from lmvp.core.codecs import DEPTH_LIMIT, LINK_SIZE, Link, transforms
from lmvp.core.codecs.kinds import KINDS
from lmvp.core.safetensors import BITS

FILE = Path(__file__).parent / "codecs.json"
_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<f4"}
_SPECIAL = {
    "BF16": "0000 0080 807f 80ff c07f c1ff 0100 0180 7f00 ff7f",
    "F16": "0000 0080 007c 00fc 007e 01fe 0100 0180 ff03 ffff",
    "F32": "00000000 00000080 0000807f 000080ff 0000c07f 010080ff 01000000 ffff7f80",
    "F64": "0000000000000000 0000000000000080 000000000000f07f 010000000000f0ff 0100000000000080",
}


def numbers(dtype, count, random):
    """Return weights as bytes, a few of them zeros, infinities, NaNs with a payload and denormals."""
    values = random.normal(0, 0.02, count)
    if dtype == "BF16":
        data = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    elif dtype in _FLOATS:
        data = values.astype(_FLOATS[dtype]).tobytes()
    else:
        data = random.integers(0, 40, count * BITS[dtype] // 8, dtype=np.uint8).tobytes()
    special = bytes.fromhex(_SPECIAL.get(dtype, ""))
    return special + data[len(special) :]


def stepped(data, dtype, random, share=0.7):
    """Return the numbers a little later: some of them some units of the last place off."""
    width = max(1, BITS[dtype] // 8)
    bits = np.frombuffer(data, f"<u{width}").copy()
    steps = np.round(random.laplace(0, 2, len(bits))).astype(np.int64) * (random.random(len(bits)) < share)
    return (bits + steps.astype(bits.dtype)).tobytes()


def frame(data, codec, payload):
    """Return header and payload."""
    head = frames.header(Frame(blake3(data).hexdigest(), len(data), len(payload), codec))
    return head + bytes(payload)


def alone(data, dtype):
    """Return a chunk's frame, coded by itself."""
    coded = codecs.encode(data, dtype)
    return frame(data, coded.codec, coded.payload)


def delta(data, dtype, base, depth=1):
    """Return a chunk's frame as a delta."""
    coded = codecs.encode_delta(data, dtype, base, Link(blake3(base).hexdigest(), depth))
    assert coded is not None, "no delta came out"
    return frame(data, coded.codec, coded.payload)


def valid():
    """Yield (name, frame)."""
    random = np.random.default_rng(7)
    yield "raw", alone(random.bytes(40), None)
    yield "zstd text", alone(b'{"layers": [64, 64], "activation": "relu"}' * 20, None)
    yield "zstd one byte over and over", alone(b"\x05" * 3000, None)
    for dtype in BITS:
        count = 24 * 8 if BITS[dtype] >= 32 else 60 * 8
        old = numbers(dtype, count, random)
        new = stepped(old, dtype, random)
        yield f"{dtype} by itself", alone(old, dtype)
        yield f"{dtype} a step later", delta(new, dtype, old)
    for kind in KINDS.values():
        data = (random.geometric(0.3, 200) << 8 * kind.size - 8).astype(f"<u{kind.size}").tobytes()
        yield f"solo of kind {kind.number}", frame(data, SOLO, transforms.encode_solo(data, kind))
    old = numbers("BF16", 1000, random)
    yield "zeros", alone(bytes(1000), "F32")
    yield "base of a chain", alone(old, "BF16")
    for depth in range(1, 4):
        new = stepped(old, "BF16", random, 0.3)
        yield f"delta on {depth}", delta(new, "BF16", old, depth)
        old = new
    old = numbers("BF16", 700, random)
    yield "base of a few changes", alone(old, "BF16")
    yield "few changes, nested thrice", delta(stepped(old, "BF16", random, 0.01), "BF16", old, DEPTH_LIMIT)
    old = numbers("F32", 500, random) + b"abc"
    yield "base with a tail", alone(old, "F32")
    yield "tail of no whole number", delta(stepped(old[:-3], "F32", random) + b"xyz", "F32", old)
    old = random.normal(0, 1, 20_000).astype("<f4").view("<u4")
    old = ((old >> 24 & 0x80) | ((old >> 20) - 0x3C0 & 0x7F)).astype(np.uint8).tobytes()
    yield "base of several segments", alone(old, "F8_E4M3")
    yield "several segments", delta(stepped(old, "F8_E4M3", random, 0.4), "F8_E4M3", old)


def hostile(frames_by_name):
    """Yield (name, frame, a word of the message): what a reader must refuse."""
    bf16, base = frames_by_name["BF16 a step later"], frames_by_name["BF16 by itself"]
    size = struct.unpack_from("<I", bf16, 4)[0]

    def changed(of, at, new, codec=None):
        payload = bytearray(of[HEADER_SIZE:])
        payload[at : at + len(new)] = new
        return frames.header(Frame(of[16:48].hex(), size, len(payload), codec or of[3])) + bytes(payload)

    def short(codec, payload, size=size):
        return frames.header(Frame("00" * 32, size, len(payload), codec)) + payload

    yield "depth 0", changed(bf16, LINK_SIZE - 1, b"\x00"), "limit"
    yield "depth 17", changed(bf16, LINK_SIZE - 1, b"\x11"), "limit"
    yield "kind 10", changed(bf16, LINK_SIZE, b"\x0a"), "kind"
    yield "delta cut in its link", short(DELTA, bf16[HEADER_SIZE : HEADER_SIZE + 20]), "base"
    yield "solo of nothing", short(SOLO, b""), "ends"
    yield "solo cut short", short(SOLO, base[HEADER_SIZE:-1]), "ends"
    yield "solo with a byte too many", short(SOLO, base[HEADER_SIZE:] + b"\x00"), "too many"
    yield "unknown way", short(SOLO, b"\x00\x04" + bytes(8)), "begins with 4"
    yield "narrow nested four times", short(SOLO, b"\x00\x03\x03\x03\x03" + bytes(8)), "begins with 3"
    yield "narrow cut short", short(SOLO, b"\x00\x03\x01" + b"\xff\x00", 1 << 12), "ends"
    yield "narrow over its end", short(SOLO, b"\x00\x03\x01\x00\x00\x00\xc0", 15), "does not end"
    yield "narrow beyond a byte", short(SOLO, b"\x00\x03\x01\x03\x00\x00\x00\x01\xfd", 16), "beyond a byte"
    bomb = bytes.fromhex("28b52ffde0") + struct.pack("<Q", 1 << 40) + bytes.fromhex("010000")
    yield "zstd that claims 1 TB", short(ZSTD, bomb, 1 << 22), "1099511627776"
    yield (
        "zstd in solo that claims 1 TB",
        short(SOLO, b"\x00\x02" + struct.pack("<I", len(bomb)) + bomb, 1 << 22),
        "1099",
    )
    yield "zstd of no size", short(ZSTD, bytes.fromhex("28b52ffd0058") + bytes(6), 1 << 12), "zstd"
    yield "zstd that is none", short(ZSTD, b"not a frame of zstd"), "zstd"
    text = frames_by_name["zstd text"]
    yield "zstd of another size", short(ZSTD, text[HEADER_SIZE:], 1 << 12), "should give 4,096"
    yield "two frames of zstd", short(ZSTD, text[HEADER_SIZE:] * 2, 840), "zstd"
    yield "raw of another size", short(RAW, bytes(20), 20)[:-1], "told"


def main():
    """Append to the file what is not there yet."""
    kept = json.loads(FILE.read_text()) if FILE.exists() else {"valid": {}, "hostile": {}}
    for name, data in valid():
        kept["valid"].setdefault(name, data.hex())
    made = {name: bytes.fromhex(data) for name, data in kept["valid"].items()}
    for name, data, word in hostile(made):
        kept["hostile"].setdefault(name, {"frame": data.hex(), "says": word})
    FILE.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
