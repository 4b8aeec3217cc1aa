"""A link that cuts, swallows, delays and refuses costs time, not work, and never half a file."""

import email.utils
import http.server
import threading
import time

import numpy as np
import pytest
from support.models import same, size, step, weights

import lmvp
from lmvp import connection, errors
from lmvp.transfer.upload import Batch


@pytest.fixture(autouse=True)
def not_so_slow(request):
    """What is tested here is not the speed of the link."""
    if "link" in request.fixturenames:
        link = request.getfixturevalue("link")
        link.up.rate = link.down.rate = 16e6


@pytest.fixture
def quick(monkeypatch):
    """Waits between attempts are short."""
    monkeypatch.setattr(connection, "_FIRST_WAIT", 0.001)


def test_a_push_that_is_cut_goes_on_with_what_is_missing(link, quick):
    tree = weights(layers=12)
    link.cut(up=2_000_000, times=5)
    version = link.client().update("d/m", tree, progress=False)
    assert link.cuts == 0
    assert version.number == 1
    assert link.up.bytes < 1.9 * size(tree)
    assert same(lmvp.download("d/m", progress=False), tree)


def test_a_pull_that_is_cut_goes_on_where_it_was(link, quick, another_machine):
    tree = weights(layers=12)
    lmvp.update("d/m", tree, progress=False)
    another_machine()
    link.cut(down=1_500_000, times=6)
    seen = []
    pulled = link.client().download("d/m", progress=lambda done, total: seen.append((done, total)))
    assert link.cuts == 0
    assert same(pulled, tree)
    assert link.down.bytes < 1.9 * size(tree)
    assert seen[-1][0] == seen[-1][1]


def test_more_cuts_than_attempts_do_no_harm_while_it_gets_further(link, quick, another_machine):
    tree = weights(layers=20)
    lmvp.update("d/m", tree, progress=False)
    another_machine()
    link.cut(down=1_800_000, times=9)
    assert same(link.client().download("d/m", progress=False), tree)
    assert link.cuts == 0


def test_a_link_that_stays_dead_is_given_up(link, quick):
    link.cut(up=1_000_000, times=10**6)
    link.refuse = 10**6
    with pytest.raises(errors.ServerUnavailable, match="no answer from"):
        link.client().update("d/m", weights(), progress=False)
    assert lmvp.Client().projects() == []


def test_a_push_that_was_given_up_is_cheap_to_repeat(link, quick):
    tree = weights(layers=8)
    client = link.client()
    link.cut(up=5_000_000, times=10**6, then_refuse=10**6)
    with pytest.raises(errors.ServerUnavailable):
        client.update("d/m", tree, progress=False)
    link.refuse = link.cuts = 0
    sent = link.up.bytes
    link.reset()
    client.update("d/m", tree, progress=False)
    assert link.up.bytes + sent < 1.5 * size(tree)
    assert same(lmvp.download("d/m", progress=False), tree)


def test_requests_that_arrive_twice_are_done_once(link, quick):
    client, trees = link.client(), [weights(), step(weights())]
    for number, tree in enumerate(trees, 1):
        for count in (1, 2, 3):
            link.swallow = count
            version = client.update("d/m", tree, message=f"with {count}", progress=False)
            assert link.swallow == 0
            assert version.message == f"with {count}"
        assert version.number == 3 * number
        assert same(lmvp.download("d/m", progress=False), tree)
    assert len(lmvp.show_history("d/m")) == 6


def test_requests_may_overtake_one_another(link):
    tree = weights(layers=16)
    link.hold = lambda number: 0.3 if number % 2 else 0.0
    client = link.client()
    client.update("d/m", tree, progress=False)
    assert same(client.download("d/m", progress=False), tree)
    assert same(lmvp.download("d/m", progress=False), tree)


def test_connections_that_are_refused_for_a_while(link, quick, another_machine):
    link.refuse = 3
    tree = weights()
    link.client().update("d/m", tree, progress=False)
    another_machine()
    link.refuse = 3
    assert same(link.client().download("d/m", progress=False), tree)


def test_a_pull_to_a_folder_leaves_whole_files_or_none_and_goes_on_later(link, quick, another_machine, tmp_path):
    (tmp_path / "w.bin").write_bytes(np.random.default_rng(0).bytes(20 << 20))
    lmvp.update("d/m", tmp_path / "w.bin", progress=False)
    another_machine()
    client = link.client()

    link.cut(down=11 << 20, times=10**6, then_refuse=10**6)
    with pytest.raises(errors.ServerUnavailable):
        client.download("d/m", to=tmp_path / "out", progress=False)
    assert list((tmp_path / "out").iterdir()) == []
    link.refuse = link.cuts = 0
    link.reset()
    [path] = client.download("d/m", to=tmp_path / "out", progress=False)
    assert path.read_bytes() == (tmp_path / "w.bin").read_bytes()
    assert link.down.bytes < 0.7 * (20 << 20)


def test_a_place_that_takes_no_folder_is_told(home):
    lmvp.update("d/m", {"w": np.zeros(3)})
    with pytest.raises(errors.StorageReadOnly, match="cannot write to /proc/x") as caught:
        lmvp.download("d/m", to="/proc/x")
    assert caught.value.hint == "choose another folder"


def test_a_small_push_goes_the_long_way_when_chunks_are_missing(home, monkeypatch):
    # Only the batch with a head is the small push; the batches after it send the missing chunks.
    monkeypatch.setattr(
        "lmvp.transfer.upload.Batch", lambda pieces, head=b"", **rest: Batch([] if head else pieces, head, **rest)
    )
    assert lmvp.update("d/m", {"w": np.arange(5.0)}).number == 1
    assert (lmvp.download("d/m")["w"] == np.arange(5.0)).all()


def test_waits_grow_at_random_and_have_an_end():
    for failed in range(1, 40):
        waits = [connection.pause(failed) for _ in range(200)]
        limit = min(0.1 * 2**failed, connection.LONGEST_WAIT)
        assert 0 <= min(waits) < limit / 4
        assert 3 * limit / 4 < max(waits) <= limit


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("0", 0, 0),
        ("7", 7, 7),
        (" 7 ", 7, 7),
        ("99999999999", 30, 30),
        pytest.param(email.utils.formatdate(time.time() + 3600, usegmt=True), 30, 30, id="a time to come"),
        pytest.param(email.utils.formatdate(time.time() - 3600, usegmt=True), 0, 0, id="a time gone by"),
        ("soon", 0, 0.2),
        ("-5", 0, 0.2),
        ("Fri, 99 Foo 2026", 0, 0.2),
    ],
)
def test_what_a_server_asks_to_wait(header, least, most):
    assert least <= connection.pause(1, header) <= most


def test_a_busy_server_is_asked_again_when_it_says(home, monkeypatch):
    waits = []
    monkeypatch.setattr(connection.time, "sleep", waits.append)

    class Busy(http.server.BaseHTTPRequestHandler):
        answers = iter(
            [(503, {"Retry-After": "3"}), (429, {"Retry-After": "2", "LMVP-API": "1"}), (200, {"LMVP-API": "1"})]
        )

        def do_GET(self):
            status, headers = next(self.answers)
            body = b'{"items": [], "next": null}'
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            assert lmvp.Client(f"http://127.0.0.1:{server.server_port}", "secret").projects() == []
        finally:
            server.shutdown()
            thread.join()
    assert [wait for wait in waits if wait >= 1] == [3.0, 2.0]
