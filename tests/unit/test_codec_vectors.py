"""Frames that were written once and must be read for ever, and frames that must never be read."""

import json
from pathlib import Path

import pytest
from blake3 import blake3
from support import plain_decoder

from lmvp.core import chunk_frames, codecs
from lmvp.core.chunk_frames import HEADER_SIZE
from lmvp.core.codecs import transforms
from lmvp.core.codecs.kinds import BF16
from lmvp.errors import IntegrityError

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "codecs.json").read_text())
VALID = {name: bytes.fromhex(data) for name, data in VECTORS["valid"].items()}
BY_ID = {data[16:48].hex(): data for data in VALID.values()}


@pytest.fixture(params=["numpy", "numba"])
def loops(request, monkeypatch):
    """Decode in numpy, or in machine code."""
    if request.param == "numba":
        pytest.importorskip("numba")
        from lmvp.core.codecs.fast import Grouping
    else:
        from lmvp.core.codecs.numbers import Grouping
    monkeypatch.setattr(transforms, "_grouping", lambda: Grouping)


def decode(data):
    frame = chunk_frames.read_header(data[:HEADER_SIZE])
    return codecs.decode(frame, data[HEADER_SIZE:], lambda chunk: decode(BY_ID[chunk]))


@pytest.mark.parametrize("name", VALID)
def test_a_vector_decodes_to_what_its_id_says(name, loops):
    assert blake3(decode(VALID[name])).hexdigest() == VALID[name][16:48].hex()


@pytest.mark.parametrize("name", VALID)
def test_the_page_is_enough_to_decode_a_vector(name):
    def find(chunk):
        return plain_decoder.decode(BY_ID[chunk], find)

    assert blake3(plain_decoder.decode(VALID[name], find)).hexdigest() == VALID[name][16:48].hex()


@pytest.mark.parametrize("name", VECTORS["hostile"])
def test_a_hostile_vector_is_refused(name, loops):
    vector = VECTORS["hostile"][name]
    with pytest.raises(IntegrityError, match=vector["says"]):
        decode(bytes.fromhex(vector["frame"]))


def test_the_vectors_cover_every_codec_and_kind():
    from lmvp.core.codecs.kinds import KINDS

    kinds = {chunk_frames.SOLO: set(), chunk_frames.DELTA: set()}
    for data in VALID.values():
        if data[3] in kinds:
            kinds[data[3]].add(data[HEADER_SIZE + (codecs.LINK_SIZE if data[3] == chunk_frames.DELTA else 0)])
    assert {data[3] for data in VALID.values()} == set(chunk_frames.CODECS)
    assert kinds == {chunk_frames.SOLO: set(KINDS), chunk_frames.DELTA: set(KINDS)}


def test_the_example_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    base = bytes.fromhex("803f 00c0 003f 4040 813f 823f 833f 843f")
    chunk = bytes.fromhex("813f 01c0 003f 4040 813f 7f3f 833f 8a3f")
    delta, solo = bytes.fromhex("07 00 03 01c81c 010209"), bytes.fromhex("07 017f807e807f7e7f7f 01020300 8002fe0614")
    assert bytes(transforms.decode_delta(memoryview(delta), base)) == chunk
    assert transforms.encode_delta(chunk, base, BF16) == delta
    assert bytes(transforms.decode_solo(memoryview(solo), 16)) == chunk
    for text in ("01 c8 1c", "01 02 09", "`01 7f 80 7e 80 7f 7e 7f 7f`, `01 02 03 00 80 02 fe 06 14`"):
        assert text in page
