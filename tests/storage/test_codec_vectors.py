"""Frames that were written once and must be read for ever, and frames that must never be read."""

import json
from pathlib import Path

import plain_decoder
import pytest
from blake3 import blake3

from lmvp.errors import IntegrityError
from lmvp.storage import codecs, frames
from lmvp.storage.codecs import transforms
from lmvp.storage.frames import HEADER_SIZE

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "codecs.json").read_text())
VALID = {name: bytes.fromhex(data) for name, data in VECTORS["valid"].items()}
BY_ID = {data[16:48].hex(): data for data in VALID.values()}


@pytest.fixture(params=["numpy", "numba"])
def loops(request, monkeypatch):
    """Decode in numpy, or in machine code."""
    if request.param == "numba":
        pytest.importorskip("numba")
        from lmvp.storage.codecs.fast import Grouping
    else:
        from lmvp.storage.codecs.numbers import Grouping
    monkeypatch.setattr(transforms, "_grouping", lambda: Grouping)


def decode(data):
    frame = frames.read_header(data[:HEADER_SIZE])
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
    from lmvp.storage.codecs.kinds import KINDS

    kinds = {frames.SOLO: set(), frames.DELTA: set()}
    for data in VALID.values():
        if data[3] in kinds:
            kinds[data[3]].add(data[HEADER_SIZE + (codecs.LINK_SIZE if data[3] == frames.DELTA else 0)])
    assert {data[3] for data in VALID.values()} == set(frames.CODECS)
    assert kinds == {frames.SOLO: set(KINDS), frames.DELTA: set(KINDS)}
