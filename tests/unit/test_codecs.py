"""Codecs: lossless to the bit for every dtype, length and value; and nothing that comes in can hurt the reader."""

import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmvp.core import chunk_frames, codecs
from lmvp.core.chunk_frames import (
    CHUNK_LIMIT,
    DELTA,
    RAW,
    SOLO,
    ZSTD,
    Frame,
)
from lmvp.core.codecs import (
    DEPTH_LIMIT,
    LINK_SIZE,
    Link,
    choice,
    numbers,
    streams,
    transforms,
    zstd,
)
from lmvp.core.codecs.kinds import (
    BF16,
    BY_DTYPE,
    F32,
    KINDS,
)
from lmvp.core.safetensors import BITS
from lmvp.errors import IntegrityError, InvalidRequest

BASE = "ab" * 32
SIZES = [1, 2, 7, 8, 9, 127, 128, 129, 4095, 4097, 65535, 65536, 65537]
modest = settings(max_examples=40, deadline=None)


def framed(coded, size):
    return Frame("00" * 32, size, len(coded.payload), coded.codec)


def decoded(coded, size, base=b""):
    return bytes(codecs.decode(framed(coded, size), coded.payload, lambda _: base))


def weights(dtype, size, seed=0):
    """Return bytes as trained weights of a dtype have them."""
    values = np.random.default_rng(seed).normal(0, 0.02, size // 2 + 8)
    if dtype == "BF16":
        data = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    else:
        data = values.astype({"F16": "<f2", "F64": "<f8"}.get(dtype, "<f4"))
    return data.tobytes()[:size]


def nudged(data, dtype, share=0.2, seed=1):
    """Return the same numbers, some of them a few units of the last place off."""
    random = np.random.default_rng(seed)
    width = max(1, BITS[dtype] // 8)
    bits = np.frombuffer(data, f"<u{width}", len(data) // width).copy()
    bits += (random.integers(1, 4, len(bits)) * (random.random(len(bits)) < share)).astype(bits.dtype)
    return bits.tobytes() + data[len(bits) * width :]


@pytest.mark.parametrize("dtype", [*BITS, None])
@pytest.mark.parametrize("size", SIZES)
def test_a_chunk_comes_back(dtype, size):
    for data in (weights(dtype, size), bytes(size), b"\x7f" * size, np.random.default_rng(size).bytes(size)):
        coded = codecs.encode(data, dtype)
        assert decoded(coded, size) == data
        assert coded.codec == RAW or len(coded.payload) <= choice.WORTH * size


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("size", SIZES)
def test_a_delta_comes_back(dtype, size):
    base = weights(dtype, size)
    for data in (nudged(base, dtype), nudged(base, dtype, share=0.001), base, bytes(size)):
        payload = transforms.encode_delta(data, base, BY_DTYPE[dtype])
        assert bytes(transforms.decode_delta(memoryview(payload), base)) == data
        coded = codecs.encode_delta(data, dtype, base, Link(BASE, 1))
        assert coded is None or decoded(coded, size, base) == data


@pytest.mark.parametrize("dtype", ["BF16", "F32", "F64", "I64", "F8_E4M3", None])
def test_whole_chunks_come_back(dtype):
    data = weights(dtype, CHUNK_LIMIT)
    assert decoded(codecs.encode(data, dtype), CHUNK_LIMIT) == data
    if dtype:
        new = nudged(data, dtype)
        coded = codecs.encode_delta(new, dtype, data, Link(BASE, DEPTH_LIMIT))
        assert coded is not None
        assert len(coded.payload) < CHUNK_LIMIT / 4
        assert decoded(coded, CHUNK_LIMIT, data) == new


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: f"kind{kind.number}")
@given(data=st.data())
@modest
def test_any_bits_come_back(kind, data):
    size = data.draw(st.integers(1, 300))
    new, base = data.draw(st.binary(min_size=size, max_size=size)), data.draw(st.binary(min_size=size, max_size=size))
    assert bytes(transforms.decode_solo(memoryview(transforms.encode_solo(new, kind)), size)) == new
    assert bytes(transforms.decode_delta(memoryview(transforms.encode_delta(new, base, kind)), base)) == new


@pytest.mark.parametrize(("kind", "type_"), [(BF16, "<u2"), (F32, "<u4")])
def test_nan_payloads_zeros_and_denormals_come_back(kind, type_):
    bits = np.arange(1 << 16).astype("<u2") if type_ == "<u2" else (np.arange(1 << 16).astype("<u4") * 65_537)
    new, base = bits.tobytes(), np.roll(bits, 1).tobytes()
    assert bytes(transforms.decode_delta(memoryview(transforms.encode_delta(new, base, kind)), base)) == new
    assert bytes(transforms.decode_solo(memoryview(transforms.encode_solo(new, kind)), len(new))) == new


@given(st.lists(st.integers(0, 255), max_size=2000).map(lambda values: np.array(values, np.uint8)))
@modest
def test_any_plane_comes_back(plane):
    reader = streams.Reader(memoryview(b"".join(streams.encode(plane))))
    assert reader.stream(len(plane)).tolist() == plane.tolist()
    reader.end()


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.01, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("top", [1, 2, 3, 4, 17, 255])
def test_planes_of_every_density_come_back_small(share, top):
    random = np.random.default_rng(3)
    plane = (random.integers(1, top + 1, 20_000) * (random.random(20_000) < share)).astype(np.uint8)
    coded = b"".join(streams.encode(plane))
    assert streams.Reader(memoryview(coded)).stream(len(plane)).tolist() == plane.tolist()
    counts = np.bincount(plane)[np.bincount(plane) > 0] / len(plane)
    entropy = float(-(counts * np.log2(counts)).sum()) * len(plane) / 8
    assert len(coded) < 1.12 * entropy + 250


def test_neighbours_on_the_number_line_are_one_step_apart():
    values = np.array([-np.inf, -2, -1e-45, -0.0, 0.0, 1e-45, 1, np.inf], "<f4")
    steps = numbers.steps(np.nextafter(values, np.float32(9)).view("<u4"), values.view("<u4"), F32)
    assert steps.tolist() == [2, 2, 2, 4, 2, 2, 2, 1]


def test_equal_chunks_cost_next_to_nothing():
    base = weights("BF16", 1 << 20)
    assert len(transforms.encode_delta(base, base, BF16)) < 400


def test_noise_stays_raw():
    noise = np.random.default_rng(0).bytes(1 << 20)
    for dtype in [*BITS, None]:
        assert codecs.encode(noise, dtype).codec == RAW
        if dtype:
            other = np.random.default_rng(1).bytes(1 << 20)
            assert codecs.encode_delta(noise, dtype, other, Link(BASE, 1)) is None


def test_each_codec_is_chosen_where_it_does_best():
    assert codecs.encode(weights("BF16", 1 << 20), "BF16").codec == SOLO
    assert codecs.encode(b"some text, and again, " * 9999, None).codec == ZSTD
    assert codecs.encode(bytes(range(256)) * 2000, "F32").codec == ZSTD
    base = weights("F32", 1 << 20)
    assert codecs.encode_delta(nudged(base, "F32"), "F32", base, Link(BASE, 1)).codec == DELTA
    assert codecs.encode_delta(weights("F32", 1 << 20, seed=9), "F32", base, Link(BASE, 1)) is None


@pytest.mark.parametrize("first", [True, False])
def test_a_beginning_unlike_the_rest_fools_no_sample(first):
    noise, ordered = np.random.default_rng(0).bytes(128 << 10), weights("BF16", CHUNK_LIMIT - (128 << 10))
    data = noise + ordered if first else ordered + noise
    assert codecs.encode(data, "BF16").codec == SOLO
    data = bytes(128 << 10) + np.random.default_rng(0).bytes(CHUNK_LIMIT - (128 << 10))
    assert decoded(codecs.encode(data if first else data[::-1], "BF16"), CHUNK_LIMIT) == (data if first else data[::-1])


def test_the_same_chunk_gets_the_same_payload_on_any_thread():
    data = weights("BF16", 300_000)
    base = nudged(data, "BF16")

    def work(_):
        return codecs.encode(data, "BF16"), codecs.encode_delta(data, "BF16", base, Link(BASE, 2))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(32)))
    assert all(result == results[0] for result in results)
    with ThreadPoolExecutor(8) as pool:
        back = pool.map(lambda pair: decoded(pair[1], len(data), base), results)
        assert all(each == data for each in back)


def test_any_buffer_is_taken():
    data = weights("F32", 40_000)
    array = np.frombuffer(data, "<f4")
    for buffer in (bytearray(data), memoryview(data), array.data):
        assert codecs.encode(buffer, "F32") == codecs.encode(data, "F32")


def test_an_empty_chunk_is_raw():
    assert codecs.encode(b"", "F32") == codecs.Encoded(RAW, b"")


def test_a_link_is_told_from_the_first_bytes():
    base = weights("BF16", 9000)
    coded = codecs.encode_delta(nudged(base, "BF16"), "BF16", base, Link(BASE, 5))
    frame = framed(coded, 9000)
    assert codecs.link(frame, coded.payload[:LINK_SIZE]) == Link(BASE, 5)
    assert codecs.link(Frame(BASE, 9, 9, RAW), b"") is None
    with pytest.raises(IntegrityError, match="base"):
        codecs.link(frame, coded.payload[: LINK_SIZE - 1])


def test_a_base_of_another_length_is_refused():
    base = weights("BF16", 9000)
    coded = codecs.encode_delta(nudged(base, "BF16"), "BF16", base, Link(BASE, 1))
    with pytest.raises(IntegrityError, match="its base has 8,998 bytes"):
        decoded(coded, 9000, base[:-2])


def test_headers_are_held_against_the_codecs():
    for codec in (ZSTD, SOLO, DELTA):
        with pytest.raises(InvalidRequest, match="payload"):
            chunk_frames.read_header(chunk_frames.header(Frame(BASE, 100, 100, codec)))
    with pytest.raises(IntegrityError, match="told"):
        codecs.decode(Frame(BASE, 100, 50, SOLO), bytes(49), lambda _: b"")
    with pytest.raises(IntegrityError, match="beyond the rules"):
        codecs.decode(Frame(BASE, 1 << 40, 50, SOLO), bytes(50), lambda _: b"")
    with pytest.raises(IntegrityError, match="beyond the rules"):
        codecs.decode(Frame(BASE, 100, 50, 9), bytes(50), lambda _: b"")


def samples():
    base = weights("BF16", 60_000)
    text = codecs.encode(b"a few words, " * 3000, None)
    solo = codecs.encode(base, "BF16")
    delta = codecs.encode_delta(nudged(base, "BF16", 0.05), "BF16", base, Link(BASE, 1))
    return [
        (framed(text, 39_000), text, base),
        (framed(solo, 60_000), solo, base),
        (framed(delta, 60_000), delta, base),
    ]


SAMPLES = samples()


def survives(frame, payload, base):
    """Decode a payload that may be damaged in any way: it gives bytes of the length told, or an IntegrityError."""
    frame = Frame(frame.chunk, frame.size, len(payload), frame.codec)
    tracemalloc.start()
    try:
        assert len(codecs.decode(frame, payload, lambda _: base)) == frame.size
    except IntegrityError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 20 * frame.size + (1 << 20)


@pytest.mark.parametrize("which", range(len(SAMPLES)))
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_payloads_hurt_nobody(which, data):
    frame, coded, base = SAMPLES[which]
    payload = bytearray(coded.payload)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, 80), st.integers(0, len(payload) - 1)))
        payload[at : at + 1] = data.draw(st.binary(max_size=3))
    survives(frame, bytes(payload), base)


@pytest.mark.parametrize("codec", [ZSTD, SOLO, DELTA])
@given(payload=st.binary(max_size=200), size=st.integers(1, 5000))
@settings(max_examples=150, deadline=None)
def test_noise_as_a_payload_hurts_nobody(codec, payload, size):
    survives(Frame(BASE, size, len(payload), codec), payload, bytes(size))


def test_a_bomb_takes_no_memory():
    head = bytes.fromhex("28b52ffde0") + struct.pack("<Q", 1 << 40)
    bomb = head + bytes.fromhex("020000") + b"\x00"
    survives(Frame(BASE, CHUNK_LIMIT, len(bomb), ZSTD), bomb, b"")
    with pytest.raises(IntegrityError, match="say 1099511627776"):
        zstd.decompress(bomb, CHUNK_LIMIT)
    many = zstd.compress(bytes(CHUNK_LIMIT))
    with pytest.raises(IntegrityError, match="should give 1,000"):
        zstd.decompress(many, 1000)
