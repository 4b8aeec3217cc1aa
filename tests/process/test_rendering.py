"""Contributors' content on pages: rendered in processes with a budget; beyond it, plain text."""

import asyncio
import html
import os
import random
import re
import signal
import struct
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests
from pygments.lexers import get_all_lexers
from support.real_server import Server
from support.soak import size

from lmvp.client.models import Client
from lmvp_server.web import rendering
from lmvp_server.web.rendering import QUEUE_LIMIT, Job, Rendered, Rendering

SLOW = "<?php " + "$" * 100_000
"""Takes the lexer of PHP minutes: its time grows with the square of the length."""
HOSTILE = {
    "x.php": SLOW,
    "x.html": "&" * 200_000,
    "x.feature": " " * 200_000,
    "long.py": "a" * 250_000,
    "deep.json": "[" * 100_000,
}
TOO_LONG = "formatting it takes more than 1 s of computation"
LONG_WAIT = 60


def wait_for(condition):
    for _ in range(2000):
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen")


# -- the pool


@pytest.fixture
def pool():
    pool = Rendering()
    yield pool
    pool.close()


def render(pool, *jobs):
    async def every():
        return await asyncio.gather(*map(pool.render, jobs))

    found = asyncio.run(every())
    return found if len(found) > 1 else found[0]


def test_rendering_formats_code_and_cards(pool):
    assert pool.pids() == []
    assert render(pool, Job("code", "if x:  # <b>", "train.py")) == Rendered(
        '<span class="kw">if</span> x:  <span class="cm"># &lt;b&gt;</span>\n'
    )
    assert render(pool, Job("card", "# Use\n<b>")).html == "<h2>Use</h2>\n<p>&lt;b&gt;</p>\n"
    assert render(pool, Job("card", "")) == Rendered("")


@pytest.mark.parametrize(
    "job",
    [
        Job("code", SLOW, "x.php"),
        Job("card", "![" * 100_000),
        Job("card", "[" * 100_000),
        Job("card", "[[a](" * 50_000),
    ],
    ids=["php", "images", "brackets", "links"],
)
def test_rendering_of_hostile_text_ends_with_plain_text_and_is_not_repeated(pool, job):
    found = render(pool, job)
    assert found.note == f"Shown as plain text: {TOO_LONG}."
    assert html.unescape(re.sub("</?p[^>]*>", "", found.html)) == job.text
    assert pool.started == 1
    assert render(pool, job) == found
    assert pool.started == 1


def test_rendering_shows_plain_text_where_it_is_too_long(pool):
    found = render(pool, Job("code", "<" * (rendering.INPUT_LIMIT + 1), "x.py"))
    assert found == Rendered("&lt;" * (rendering.INPUT_LIMIT + 1), "Shown as plain text: it is longer than 256 kB.")
    assert pool.started == 0
    found = render(pool, Job("code", "if " * 85_000, "x.py"))
    assert found == Rendered("if " * 85_000, "Shown as plain text: with formatting it is larger than 2 MB.")


def test_rendering_of_one_text_for_many_pages_takes_one_job(pool):
    found = render(pool, *[Job("code", SLOW, "x.php")] * 50)
    assert {one.note for one in found} == {f"Shown as plain text: {TOO_LONG}."}
    assert pool.started == 1
    render(pool, *[Job("code", "if x: pass", "x.py")] * 50)
    assert pool.started == 2


def test_rendering_of_many_hostile_texts_occupies_bounded_workers(pool):
    jobs = [Job("code", f"{SLOW}{number}", "x.php") for number in range(3 * QUEUE_LIMIT)]
    most = []
    done = threading.Event()
    watch = threading.Thread(
        target=lambda: [most.append(len(pool.pids())) for _ in iter(lambda: done.wait(0.01), True)]
    )
    watch.start()
    found = render(pool, *jobs)
    done.set()
    watch.join()
    assert all(one.note.startswith("Shown as plain text: ") for one in found)
    assert sum("the server is busy" in one.note for one in found) >= 2 * QUEUE_LIMIT - rendering.WORKERS
    assert max(most) <= rendering.WORKERS
    honest = Job("code", "if x: pass", "x.py")
    wait_for(lambda: "class" in render(pool, honest).html)  # a busy server forgets that it was
    assert render(pool, honest).note == ""


def test_rendering_survives_workers_that_are_killed(pool):
    render(pool, Job("code", "if a: pass", "x.py"))
    (pid,) = pool.pids()
    os.kill(pid, signal.SIGKILL)
    assert "class" in render(pool, Job("code", "if b: pass", "x.py")).html
    assert pool.pids() != [pid]


@pytest.mark.skipif(sys.platform != "linux", reason="psutil reads the limits of a process on Linux only")
def test_rendering_names_a_text_that_ends_workers_and_does_not_repeat_it(pool):
    """A lexer that crashes the process, as an out-of-memory kill does: two attempts, and then plain text."""
    job, killed = Job("code", SLOW, "x.php"), set()
    done = threading.Event()

    def kill():
        while not done.wait(0.001):
            for pid in pool.pids():
                with suppress(psutil.Error):
                    process = psutil.Process(pid)
                    if process.rlimit(psutil.RLIMIT_CPU)[0] > 0:  # it has begun the job
                        process.kill()
                        killed.add(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    found = render(pool, job)
    done.set()
    killer.join()
    assert len(killed) == 2
    assert found.note == "Shown as plain text: it cannot be formatted."
    assert render(pool, job) == found
    assert pool.started == 1


def test_rendering_process_has_no_secrets_and_limits(pool, monkeypatch):
    monkeypatch.setenv("LMVP_TOKEN", "not-for-the-worker")
    monkeypatch.setenv("PYTHONSTARTUP", "/nothing")
    with open(os.devnull) as kept:
        os.set_inheritable(kept.fileno(), True)
        render(pool, Job("code", "if x: pass", "x.py"))
        worker = psutil.Process(pool.pids()[0])
        assert worker.environ() == {"LC_ALL": "C.UTF-8"}
        assert not [word for word in worker.cmdline() if "not-for" in word]
        if sys.platform == "linux":
            assert {one.name for one in Path(f"/proc/{worker.pid}/fd").iterdir()} == {"0", "1", "2"}
            assert worker.rlimit(psutil.RLIMIT_AS) == (512 << 20, 512 << 20)
            assert worker.rlimit(psutil.RLIMIT_CPU)[0] <= 60
            assert worker.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
            assert worker.memory_info().rss < 64 << 20


def test_rendering_process_exits_when_it_is_idle_or_closed(pool, monkeypatch):
    monkeypatch.setattr(rendering, "IDLE_SECONDS", 0.05)
    render(pool, Job("code", "if x: pass", "x.py"))
    wait_for(lambda: not pool.pids())
    monkeypatch.setattr(rendering, "IDLE_SECONDS", 60.0)
    render(pool, Job("code", "if y: pass", "x.py"))
    (pid,) = pool.pids()
    pool.close()
    assert not psutil.pid_exists(pid)
    assert "lmvp-rendering" not in {thread.name for thread in threading.enumerate()}
    assert "the server is busy" in render(pool, Job("code", "if z: pass", "x.py")).note


def test_rendering_stops_a_job_when_it_is_closed(pool):
    thread = threading.Thread(target=render, args=(pool, Job("code", SLOW, "x.php")))
    thread.start()
    (pid,) = wait_for(pool.pids)
    pool.close()
    thread.join()
    assert not psutil.pid_exists(pid)


def test_rendering_cache_is_bounded(pool, monkeypatch):
    monkeypatch.setattr(rendering, "CACHE_BYTES", 5000)
    for number in range(10):
        render(pool, Job("code", f"{number}" * 1000, "x.txt"))
    assert pool._cached_bytes <= 5000
    assert len(pool._cache) == 4
    monkeypatch.setattr(rendering, "CACHE_ENTRIES", 2)
    render(pool, Job("code", "a", "x.txt"))
    assert len(pool._cache) == 2


def lexed_names():
    """File names that select each of the lexers of Pygments once."""
    patterns = [patterns[0] for _, _, patterns, _ in get_all_lexers() if patterns]
    return sorted({re.sub(r"\[(.).*?\]", r"\1", pattern).replace("*", "x") for pattern in patterns})


@pytest.mark.soak
def test_rendering_of_any_lexer_gives_the_text_within_its_budget(pool):
    chosen = random.Random(16)
    pieces = [*"([{<&$ #'\"\\a0-=%", "/*", "{{", "<?php "]
    names = lexed_names()
    for name in chosen.sample(names, min(size("RENDERED", 12), len(names))):
        text = chosen.choice(pieces) + "".join(chosen.choices(pieces, k=2)) * 4000 + "x"
        begun = time.process_time()
        found = render(pool, Job("code", text, name))
        shown = html.unescape(re.sub("<[^>]+>", "", found.html))
        assert (name, shown.strip()) == (name, text.strip())
        assert time.process_time() - begun < 1  # of this process: the work is done in others
        assert len(pool.pids()) <= rendering.WORKERS


# -- pages


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("served") / "data")
    server.token = server.start()
    server.client = Client(server.url, server.token)
    folder = tmp_path_factory.mktemp("files")
    for name, text in {**HOSTILE, "train.py": "if x: pass"}.items():
        (folder / name).write_text(text)
    for number in range(12):
        (folder / f"{number}.php").write_text(f"{SLOW}{number}")
    server.client.update("p/m", str(folder), create=True, progress=False)
    server.client.change_project("p", public=True)
    yield server
    server.kill()


def page(server, path, timeout=LONG_WAIT, **options):
    return requests.get(f"{server.url}/{path}", timeout=timeout, **options)


def workers(server):
    return psutil.Process(server.process.pid).children(recursive=True)


def test_page_starts_no_process_before_it_is_needed(server):
    assert page(server, "p/p").status_code == 200
    assert workers(server) == []


def test_page_of_code_has_colours(server):
    assert '<span class="kw">if</span>' in page(server, "p/p/m@v1/-/view/train.py").text


@pytest.mark.parametrize("path", HOSTILE)
def test_page_of_a_hostile_file_shows_its_text(server, path):
    found = page(server, f"p/p/m@v1/-/view/{path}")
    assert found.status_code == 200
    shown = html.unescape(re.sub("<[^>]+>", "", re.search(r"<code>(.*?)</code>", found.text, re.DOTALL)[1]))
    assert shown.rstrip("\n") == HOSTILE[path].rstrip("\n")
    if path in {"x.php", "x.html", "x.feature"}:
        assert f"Shown as plain text: {TOO_LONG}." in found.text


def test_server_answers_while_many_look_at_hostile_files(server):
    answers = []

    def look(number):
        answers.append(page(server, f"p/p/m@v1/-/view/{number}.php").status_code)

    crowd = [threading.Thread(target=look, args=(number % 12,)) for number in range(36)]
    for one in crowd:
        one.start()
    headers = {"Authorization": f"Bearer {server.token}"}
    for path in ("api/v1/health", "api/v1/projects", "p/p", "p/p/m@v1"):
        assert page(server, path, timeout=20, headers=headers).status_code == 200
    for one in crowd:
        one.join()
    assert answers == [200] * 36


@pytest.mark.parametrize("card", ["![" * 100_000, "[" * 200_000, "*a_" * 80_000], ids=["images", "links", "marks"])
def test_page_of_a_hostile_card_shows_its_text(server, card):
    server.client.set_card("p/m", card)
    found = page(server, "p/p/m")
    assert found.status_code == 200
    assert page(server, "p/p").status_code == 200
    if card[0] in "![":
        assert f"Shown as plain text: {TOO_LONG}." in found.text
        assert card in html.unescape(found.text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Cookie", "lmvp_theme=" + '"' + r"\073" * 14_000 + '"'),
        ("Cookie", ";" * 60_000),
        ("Cookie", "a=b;" * 15_000),
        ("If-None-Match", '"a",' * 15_000),
        ("If-None-Match", '"' * 59_999),
        ("Range", "bytes=" + "0-0," * 15_000),
        ("Range", "bytes=" + "9" * 60_000 + "-"),
        ("Accept-Encoding", "gzip;q=0.1," * 5000),
        ("User-Agent", "Mozilla/" * 7000),
        ("X-Forwarded-Prefix", "/a" * 30_000),
        ("Content-Type", "multipart/form-data; " + 'boundary="' * 5000),
        ("Host", "[" * 60_000),
    ],
)
def test_server_reads_headers_of_thousands_of_parts(server, name, value):
    """The body of the answer does not matter: it must come, and it must be no 5xx."""
    for path in ("api/v1/projects/p/models/m/versions/v1/files/train.py", "p/p/m@v1"):
        assert page(server, path, timeout=20, headers={name: value}).status_code < 500


@pytest.mark.parametrize("query", ["a=b&" * 15_000, "&" * 60_000, "run=a&" * 10_000, "column=a&" * 6000, "%" * 20_000])
def test_server_reads_queries_of_thousands_of_parts(server, query):
    for path in ("p/p/-/runs", "p/p/-/compare", "search", "api/v1/projects/p/runs"):
        headers = {"Authorization": f"Bearer {server.token}"}
        assert page(server, f"{path}?{query}", timeout=20, headers=headers).status_code < 500


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "projects"),
        ("POST", "projects/p/models/m/versions"),
        ("POST", "projects/p/runs"),
        ("PATCH", "projects/p/models/m/versions/v1"),
        ("POST", "projects/p/models/m/versions/v1/chunks"),
    ],
)
@pytest.mark.parametrize(
    "body", [b"[" * 500_000, b'{"a":' * 100_000, b'{"tags":{"a":' * 50_000], ids=["lists", "a", "tags"]
)
def test_server_refuses_bodies_of_deep_nesting(server, method, path, body):
    if path.endswith("m/versions"):
        body = struct.pack("<I", len(body)) + body
    headers = {"Authorization": f"Bearer {server.token}"}
    answer = requests.request(method, f"{server.url}/api/v1/{path}", data=body, headers=headers, timeout=20)
    assert 400 <= answer.status_code < 500


def test_rendering_process_ends_with_a_server_that_is_killed(server):
    """The last test here, since it kills the server; its worker is idle then."""
    server.client.set_card("p/m", "# A new card")
    page(server, "p/p/m")
    found = workers(server)
    assert found
    server.kill()
    psutil.wait_procs(found, timeout=30)
    assert [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []
