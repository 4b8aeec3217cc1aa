"""Damaged data and false statements about data: refused on the way in, never served as sound, all named by `fsck`."""

import json
import secrets
import struct
from datetime import datetime, timezone

import msgspec
import pytest
import requests
from support.local_server import SharedServer
from support.workshop import ADA, Shop, step, weights

from lmvp.core import chunk_frames, digest
from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import FAILED, HEADER_SIZE, Frame
from lmvp.core.manifest import Chunk, File, Manifest
from lmvp.core.schemas import ImportedMetadata, NewPush, Parent
from lmvp.errors import InvalidManifest, LmvpError
from lmvp_server.restore import restore
from lmvp_server.services.pushes import Pushes
from lmvp_server.stores.base import Put

DATA = b"abcdefgh" * 8
ONE = digest.of_bytes(DATA)
MODEL = "/api/v1/projects/p/models/m"


def stating(size, path="a", parents=()):
    """Return a manifest of one file of one chunk, `DATA`, that states this size for it."""
    file = File(path, size, digest.of_chunks([ONE]), (Chunk(ONE, size),))
    return Manifest("files", (file,), parents=tuple(parents))


def body_of(manifest, **fields):
    return NewPush(push=secrets.token_hex(16), manifest=msgspec.Raw(manifests.encode(manifest)), **fields)


def framed(data=DATA):
    return chunk_frames.header(Frame(digest.of_bytes(data), len(data), len(data))) + data


def flip(path, offset=-3, bit=0x10):
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path / "data")
    yield shop
    shop.services.close()


def taken(shop, text):
    """Return what a push takes a manifest's JSON for."""
    body = NewPush(push=secrets.token_hex(16), manifest=msgspec.Raw(text.encode()))
    return shop.services.pushes.prepare_small(ADA, "p", "m", body).manifest


def push_honest(shop, model="m", project="p", **fields):
    push = shop.services.pushes.prepare_small(ADA, project, model, body_of(stating(len(DATA)), **fields))
    shop.services.pushes.receive(push, Frame(ONE, len(DATA), len(DATA)), [memoryview(DATA)])
    return shop.services.pushes.commit_small(ADA, push)


def push_false(shop, size, monkeypatch, **fields):
    """Make a version like those that servers took before they compared sizes."""
    with monkeypatch.context() as patch:
        patch.setattr(Pushes, "_check_sizes", lambda *_: None, raising=False)
        push = shop.services.pushes.prepare_small(ADA, "p", "m", body_of(stating(size), **fields))
        return shop.services.pushes.commit_small(ADA, push)


# -- the ways in


@pytest.mark.parametrize("size", [4, 63, 65, 4000])
def test_push_with_false_size_is_refused(shop, size):
    push_honest(shop)
    push = shop.services.pushes.prepare_small(ADA, "p", "m", body_of(stating(size)))
    with pytest.raises(InvalidManifest, match=f"'a' states {size:,} bytes for the chunk {ONE[:12]}, which has 64"):
        shop.services.pushes.commit_small(ADA, push)
    assert shop.services.versions.version(ADA, "p", "m", "latest")["number"] == 1


def test_staged_push_with_false_size_is_refused_at_once_or_at_the_commit(shop):
    late = body_of(stating(4))
    assert shop.services.pushes.begin(ADA, "p", "m", late).missing == (ONE,)
    push_honest(shop)  # brings the chunk
    with pytest.raises(InvalidManifest, match="states 4 bytes"):
        shop.services.pushes.commit(ADA, "p", "m", late.push)
    with pytest.raises(InvalidManifest, match="states 4 bytes"):
        shop.services.pushes.begin(ADA, "p", "m", body_of(stating(4)))
    shop.reopen()  # the staged push is taken up from the disk, by a process that has proved nothing
    with pytest.raises(InvalidManifest, match="states 4 bytes"):
        shop.services.pushes.commit(ADA, "p", "m", late.push)


def test_import_with_false_size_is_refused(shop):
    first = push_honest(shop)
    parents = (Parent(number=1, digest=first["digest"]),)
    false = stating(4)
    whole = msgspec.structs.replace(false, parents=(first["digest"],))
    at = datetime(2026, 1, 2, tzinfo=timezone.utc)
    said = ImportedMetadata(number=2, digest=manifests.digest_of(whole), created_at=at, author="ada", parents=parents)
    push = shop.services.pushes.prepare_small(ADA, "p", "m", body_of(false, recorded=said))
    with pytest.raises(InvalidManifest, match="states 4 bytes"):
        shop.services.pushes.commit_small(ADA, push)


@pytest.mark.parametrize("to", ["q/m", "p/other"])
def test_fork_and_contribution_of_a_false_version_are_refused(shop, monkeypatch, to):
    push_honest(shop)
    shop.services.forks.fork(ADA, "p", "m", "q/fork")
    push_false(shop, 4, monkeypatch)
    with pytest.raises(LmvpError, match="'a' states 4 bytes for the chunk"):
        shop.services.forks.fork(ADA, "p", "m", to)
    with monkeypatch.context() as patch:
        patch.setattr(Pushes, "_check_sizes", lambda *_: None, raising=False)
        push = shop.services.pushes.prepare_small(ADA, "q", "fork", body_of(stating(5)))
        shop.services.pushes.commit_small(ADA, push)
    with pytest.raises(LmvpError, match="'a' states 5 bytes for the chunk"):
        shop.services.forks.contribute(ADA, "q", "fork", "latest", "")


def test_push_counts_on_no_frame_with_a_damaged_header(shop):
    push_honest(shop)
    flip(shop.folder / "chunks" / shop.space / ONE[:2] / ONE[2:], 4)  # the size in the header
    push = shop.services.pushes.prepare_small(ADA, "p", "m", body_of(stating(len(DATA)), message="again"))
    with pytest.raises(LmvpError, match=f"the frame of the chunk {ONE[:12]} is damaged"):
        shop.services.pushes.commit_small(ADA, push)


BAD_META = {
    "float": '{"a":1.5}',
    "long integer": '{"a":[' + "9" * 400 + "]}",
    "beyond 64 bits": '{"a":9223372036854775808}',
    "duplicate": '{"a":1,"a":2}',
    "NaN": '{"a":NaN}',
    "deep": '{"a":' + "[" * 5000 + "]" * 5000 + "}",
}


@pytest.mark.parametrize("meta", BAD_META.values(), ids=BAD_META)
def test_manifest_with_what_canonical_json_lacks_is_refused(shop, meta):
    text = manifests.encode(stating(64)).decode().replace('"meta":{}', f'"meta":{meta}')
    with pytest.raises(InvalidManifest):
        taken(shop, text)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"size":64', '"size":64.0'), ('"size":64', '"size":true'), ('"lmvp":1', '"lmvp":1,"lmvp":1'),
     ('"path":"a"', '"path":"b","path":"a"')],
)  # fmt: skip
def test_manifest_with_a_field_of_another_type_or_twice_is_refused(shop, old, new):
    with pytest.raises(InvalidManifest):
        taken(shop, manifests.encode(stating(64)).decode().replace(old, new))


def test_manifest_in_another_order_is_read(shop):
    manifest = msgspec.structs.replace(stating(64), meta={"z": -(1 << 63), "a": [(1 << 63) - 1, True, None, "1.5"]})
    text = json.dumps(dict(reversed(msgspec.json.decode(manifests.encode(manifest)).items())), indent=1)
    assert taken(shop, text) == manifest


# -- versions that are false or damaged already


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with one sound version, one of false sizes, and damage of each kind."""
    base = tmp_path_factory.mktemp("integrity")
    shop = Shop(base / "data")
    trees = [weights(0, 1)]
    for seed in range(4):
        trees.append(step(trees[-1], seed))
    for tree in trees:
        shop.push(tree, "net")
    shop.services.tensor_changes.changes(ADA, "p", "net", "5", "net@4")
    push_honest(shop)
    with pytest.MonkeyPatch.context() as patch:
        push_false(shop, 4, patch)
        push_false(shop, 4000, patch)
    shop.push({"x": trees[0]["layers.0.weight"][:9]}, "lost")
    spaces = shop.space
    digests = {n: shop.services.versions.version(ADA, "p", "net", str(n))["digest"] for n in range(1, 6)}
    chunk = shop.chunks_of(3, "net")[-1]
    model = shop.services.catalog.find_model(ADA, "p", "lost").model
    history = [{"number": 9, "at": "2026-01-01T00:00:00.000000Z", "by": "ada"}]
    alias = {"model": model.id, "name": "best", "number": 9, "history": history}
    shop.services.records.commit(
        spaces, [Put("aliases", f"{model.id}-best", alias), Put("models", model.id, {**model.data, "latest": 9})]
    )
    shop.services.close()
    root = base / "data"
    flip(root / "manifests" / spaces / digests[2][:2] / digests[2][2:], 60, 0x01)
    flip(root / "notes" / spaces / digests[5][:2] / digests[5][2:])
    flip(root / "chunks" / spaces / chunk[:2] / chunk[2:])
    return root


@pytest.fixture(scope="module")
def server(folder):
    server = SharedServer(folder)
    token = server.start()

    def ask(method, path, **options):
        return requests.request(
            method, server.url + path, headers={"Authorization": f"Bearer {token}"} | options.pop("headers", {}),
            timeout=30, **options
        )  # fmt: skip

    server.ask = ask
    try:
        yield server
    finally:
        server.end()


NET = "/api/v1/projects/p/models/net"
DAMAGED_MANIFEST = [
    f"{NET}/versions/2/manifest",
    f"{NET}/versions/2/files/weights.safetensors",
    f"{NET}/versions/2/changes?against=1",
    f"{NET}/versions/3/changes?against=2",
    f"{NET}/versions/2/histograms?tensor=layers.0.weight",
]


@pytest.mark.parametrize("path", DAMAGED_MANIFEST)
def test_damaged_manifest_is_never_served(server, path):
    answer = server.ask("GET", path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "integrity"), answer.text
    assert "is damaged on the disk" in answer.json()["error"]["message"]
    assert len(answer.headers.get("ETag", "")) < 64  # not that of what was asked for


def test_damaged_manifest_costs_its_neighbours_nothing(server):
    strips = server.ask("GET", f"{NET}/layers?versions=1,2,3,4,5").json()["strips"]
    assert sorted(strips) == ["1", "4", "5"]  # 3 cannot be compared with its damaged parent
    assert server.ask("GET", f"{NET}/versions/4/manifest").status_code == 200


@pytest.mark.parametrize("revision", [2, 3])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-3"}, {"If-None-Match": f'"{digest.of_chunks([ONE])}"'}])
def test_file_of_false_size_is_refused(server, revision, method, headers):
    answer = server.ask(method, f"{MODEL}/versions/{revision}/files/a", headers=headers)
    assert answer.status_code == 422
    assert digest.of_chunks([ONE]) not in answer.headers.get("ETag", "")
    if method == "GET":
        assert answer.json()["error"]["code"] == "integrity"
        assert f"for the chunk {ONE[:12]}, which has 64" in answer.json()["error"]["message"]


@pytest.mark.parametrize("accept", [[], ["zstd", "solo", "delta"]])
@pytest.mark.parametrize("what", ["false size", "flipped"])
def test_chunk_that_is_not_what_its_manifest_states_is_told_of_in_its_place(server, what, accept):
    place, want = f"{MODEL}/versions/2", ONE
    if what == "flipped":
        place = f"{NET}/versions/3"
        manifest = manifests.decode(server.ask("GET", f"{place}/manifest").content)
        want = manifest.files[0].chunks[-1].id
    data = server.ask("POST", f"{place}/chunks", json={"want": [want], "accept": accept}).content
    head = chunk_frames.read_header(data[:HEADER_SIZE], answer=True)
    assert (head.codec, head.chunk) == (FAILED, want)
    assert json.loads(data[HEADER_SIZE:])["error"]["code"] == "integrity"


@pytest.mark.parametrize("accept", [[], ["zstd", "solo", "delta"]])
def test_chunk_that_is_wanted_many_times_is_sent_once(server, accept):
    place = f"{NET}/versions/1"
    ids = [one.id for one in manifests.decode(server.ask("GET", f"{place}/manifest").content).files[0].chunks]
    once = server.ask("POST", f"{place}/chunks", json={"want": ids, "accept": accept}).content
    many = server.ask("POST", f"{place}/chunks", json={"want": [*ids, *ids[::-1], *ids * 50], "accept": accept})
    assert many.content == once


def test_file_with_a_damaged_chunk_is_never_served_whole(server):
    path = f"{NET}/versions/3/files/weights.safetensors"
    with pytest.raises(requests.RequestException):  # it breaks off: its beginning was sound
        server.ask("GET", path)
    assert server.ask("GET", path, headers={"Range": "bytes=0-15"}).status_code == 206  # of a sound chunk
    tail = server.ask("GET", path, headers={"Range": "bytes=-8"})
    assert (tail.status_code, "ETag" in tail.headers) == (422, False)


def test_fsck_names_all_damage_and_reaches_the_end(server):
    assert server.ask("GET", NET).ok  # opens the records, which mends the newest events from the journal
    (log,) = (server.data / "records" / "projects").glob("*.events.jsonl")
    whole = log.read_bytes()
    flip(log, whole.index(b'"seq":2,') + 6, 0x40)  # "2" becomes "r": this line is no JSON any more
    try:
        answer = server.ask("POST", "/api/v1/fsck", json={})
    finally:
        log.write_bytes(whole)
    assert answer.status_code == 200
    problems = json.loads(answer.text.strip().splitlines()[-1])["result"]["problems"]
    found = sorted((one["kind"], one["what"]) for one in problems)
    kinds = [kind for kind, _ in found]
    assert kinds == sorted(
        ["alias", "chunk", "events", "manifest", "note", "records", "version", "version"]
    ), found  # fmt: skip
    said = dict(found)
    assert said["alias"] == "the alias p/lost@best points at v9, which is not there"
    assert said["records"] == "p/lost@latest points at v9, which is not there"
    assert "p/net@v3: weights.safetensors" in said["chunk"]
    assert said["manifest"].startswith("p/net@v2: the manifest")
    assert "the events of p" in said["events"]
    assert [what.partition(":")[0] for kind, what in found if kind == "version"] == ["p/m@v2", "p/m@v3"]


def test_fsck_names_damage_that_no_version_depends_on(shop):
    shop.push(weights(0, 1))
    shop.push(weights(1, 1))
    lost = shop.chunks_of(1)[-1]
    manifest = shop.services.versions.version(ADA, "p", "m", "1")["digest"]
    shop.services.records.commit(shop.space, [Put("versions", "x", {"gone": 1})])  # nothing reads it
    from lmvp_server.stores.base import Delete

    model = shop.services.catalog.find_model(ADA, "p", "m").model.id
    shop.services.records.commit(shop.space, [Delete("versions", "x"), Delete("versions", f"{model}-1")])
    flip(shop.folder / "chunks" / shop.space / lost[:2] / lost[2:])
    flip(shop.folder / "manifests" / shop.space / manifest[:2] / manifest[2:], 30)
    open_push, _, _ = shop.begin(weights(5, 1))
    flip(shop.folder / "staging" / shop.space / open_push)
    found = {one.kind: one.what for one in shop.services.fsck.check(ADA, repair=False)["problems"]}
    assert sorted(found) == ["chunk", "manifest", "push"]
    assert lost[:12] in found["chunk"]
    assert "no version has it" in found["chunk"]


def test_fsck_names_a_delta_that_is_not_deeper_than_its_base(shop):
    trees = [weights(0, 1)]
    for seed in (1, 2, 3, 4):
        trees.append(step(trees[-1], seed))
    for tree in trees:
        shop.push(tree)
    shop.services.upkeep.compact(ADA)
    links = shop.links()
    chunk = next(one for n in range(1, 6) for one in shop.chunks_of(n) if links.depth(one) == 3)
    path = shop.folder / "chunks" / shop.space / chunk[:2] / chunk[2:]
    flip(path, HEADER_SIZE + 32, 0x02)  # a depth of 1 on a base of depth 2
    (problem,) = shop.services.fsck.check(ADA, repair=True)["problems"]
    assert (problem.kind, chunk[:12] in problem.what) == ("chunk", True)
    assert shop.services.fsck.check(ADA, repair=False)["problems"] == []


def test_compaction_leaves_damaged_data_and_its_neighbours_as_they_are(shop, monkeypatch):
    trees = [weights(0, 1)]
    for seed in (1, 2):
        trees.append(step(trees[-1], seed))
    for tree in trees:
        shop.push(tree)
    push_honest(shop, "other")
    chunk = shop.chunks_of(1)[-1]
    path = shop.folder / "chunks" / shop.space / chunk[:2] / chunk[2:]
    flip(path)
    digest_ = shop.services.versions.version(ADA, "p", "m", "2")["digest"]
    flip(shop.folder / "manifests" / shop.space / digest_[:2] / digest_[2:], 30)
    before = path.read_bytes()
    shop.services.upkeep.compact(ADA)
    assert path.read_bytes() == before
    assert {one.kind for one in shop.services.fsck.check(ADA, repair=False)["problems"]} == {"chunk", "manifest"}


def test_restore_names_a_version_of_false_size(server, tmp_path):
    """The backup has what the server has; the damaged pieces of the server are not in it."""
    from lmvp.client.models import Client

    client = Client(server.url, (server.data / "token").read_text().strip())
    with pytest.raises(LmvpError, match="damaged or gone on the server"):
        client.back_up(tmp_path / "backup", progress=False)
    done = restore(tmp_path / "backup", tmp_path / "data", keep_going=True)
    false = [one for one in done.problems if "states" in one]
    assert len(false) == 2
    assert all(f"for the chunk {ONE[:12]} of 'a', which has 64" in one for one in false)


# -- clients


def test_client_refuses_a_manifest_that_is_not_that_of_the_version(server):
    """A server that does not verify (an old one, or a proxy between) is not believed."""
    from lmvp.client.models import Client
    from lmvp.errors import IntegrityError

    client = Client(server.url, (server.data / "token").read_text().strip())
    version = client.version("p/net@4")
    false = msgspec.structs.replace(version, digest="ab" * 32)
    with pytest.raises(IntegrityError, match="does not match its digest"):
        client.manifest(false)
    assert client.manifest(version).files[0].path == "weights.safetensors"


def test_one_request_push_over_http_answers_422(server):
    head = json.dumps(
        {"push": secrets.token_hex(16), "manifest": msgspec.json.decode(manifests.encode(stating(4))), "message": "4"}
    ).encode()
    answer = server.ask("POST", f"{MODEL}/versions", data=struct.pack("<I", len(head)) + head)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_manifest")


# -- numbers beyond their range

RUN = "a" * 32


@pytest.mark.parametrize(
    "step",
    [1 << 63, -(1 << 63), -(1 << 63) - 1, 10**30, int("9" * 400), 1.5, True, "1"],
    ids=lambda step: str(step)[:22],
)
def test_step_beyond_int64_is_refused(server, step):
    assert server.ask("POST", "/api/v1/projects/p/runs", json={"run": RUN}).ok
    answer = server.ask("POST", f"/api/v1/projects/p/runs/{RUN}/metrics", json={"values": {"loss": 1.0}, "step": step})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), answer.text


def test_points_after_the_last_step_end_at_the_last_number(server):
    last = (1 << 63) - 2
    metrics = f"/api/v1/projects/p/runs/{RUN}/metrics"
    assert server.ask("POST", "/api/v1/projects/p/runs", json={"run": RUN}).ok
    for body in ({"values": {"edge": 1.0}, "step": last}, {"values": {"edge": 2.0}}, {"values": {"edge": 3.0}}):
        answer = server.ask("POST", metrics, json=body)
        assert answer.ok, answer.text
    (key,) = [one for one in server.ask("GET", metrics).json()["items"] if one["key"] == "edge"]
    assert (key["step"], key["value"]) == (last + 1, 3.0)
