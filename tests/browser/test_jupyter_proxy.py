"""Pages of a hostile LMVP server behind a real Jupyter server, in a real browser: they reach nothing of Jupyter."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from support.ports import reserved_port

TOKEN = "jupyter-token-for-tests"


class Hostile:
    """An LMVP server that answers with a page of its own, and keeps the form token that it learns."""

    def __init__(self):
        hostile, self.page, self.posted, self.token = self, "", [], ""

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                hostile.token = self.headers.get("X-Forwarded-Xsrf", "")
                self.send(hostile.page.replace("TOKEN", hostile.token))

            def do_POST(self):
                hostile.posted.append(self.path)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send("<title>posted</title>")

            def send(self, text):
                data = f"<!doctype html>{text}".encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()


class Jupyter:
    """A real Jupyter server; `requests` are the lines of its log for requests that it answered."""

    def __init__(self, folder, url):
        self.port, self.folder = reserved_port(), folder
        names = ("HOME", "LMVP_HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LMVP_")}
        environment |= {name: str(folder / name) for name in names}
        environment |= {"LMVP_URL": url, "LMVP_TOKEN": "lmvp_x", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        (folder / "files").mkdir()
        (folder / "files" / "pulled.js").write_text("document.title = 'a script ran'")
        command = [sys.executable, "-m", "jupyter_server", "--no-browser", f"--port={self.port}", "--allow-root",
                   "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", "--debug",
                   f"--ServerApp.root_dir={folder / 'files'}", "--ServerApp.base_url=/user/ada/",
                   "--ServerApp.jpserver_extensions={'lmvp_jupyter': True}"]  # fmt: skip
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.base = f"http://127.0.0.1:{self.port}/user/ada"
        while True:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"{self.base}/api", timeout=5)
                break
            assert self.process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)

    def requests(self):
        """Return the requests of Jupyter's log since its start, outside of the proxy."""
        lines = (self.folder / "log").read_text().splitlines()
        return [line for line in lines if "/user/ada/" in line and "/user/ada/lmvp" not in line]

    def end(self):
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def hostile():
    hostile = Hostile()
    yield hostile
    hostile.end()


@pytest.fixture(scope="module")
def jupyter(hostile, tmp_path_factory):
    jupyter = Jupyter(tmp_path_factory.mktemp("hostile"), hostile.url)
    yield jupyter
    jupyter.end()


@pytest.fixture
def page(chromium, jupyter):
    page = chromium.new_page()
    page.refused = []
    page.on("console", lambda message: page.refused.append(message.text) if message.type == "error" else None)
    page.goto(f"{jupyter.base}/lmvp/?token={TOKEN}")
    yield page
    page.close()


def wait_for_refusal(page):
    for _ in range(500):
        if any("Content Security Policy" in text for text in page.refused):
            return
        page.wait_for_timeout(10)
    raise AssertionError(page.refused)


@pytest.mark.parametrize(
    "form",
    [
        '<form method=post enctype="text/plain" action="/user/ada/api/shutdown?_xsrf=TOKEN"><button>go</button></form>',
        "<form method=post><input name=_xsrf value=TOKEN><button formaction=/user/ada/api/shutdown>go</button></form>",
        '<form method=post action="../api/shutdown"><input name=_xsrf value=TOKEN><button>go</button></form>',
        '<form method=post action="%2e%2e/api/shutdown"><input name=_xsrf value=TOKEN><button>go</button></form>',
        "<form method=get action=/user/ada/logout><button>go</button></form>",
        "<form method=post target=_blank action=/user/ada/api/kernels><button>go</button></form>",
        "<iframe srcdoc='<form method=post action=/user/ada/api/shutdown><button>go</button></form>'></iframe>",
        '<base href="/user/ada/"><form method=post action="api/shutdown"><button>go</button></form>',
    ],
)
def test_form_reaches_nothing_of_jupyter(page, hostile, jupyter, form):
    hostile.page = f"<title>before</title>{form}"
    page.goto(f"{jupyter.base}/lmvp/x")
    hostile.posted.clear()
    page.refused.clear()
    before = len(jupyter.requests())
    page.frames[-1].evaluate("document.querySelector('button').click()")  # `click` would wait for a navigation
    if "base href" in form:  # the base is refused; the form goes to the server that sent it
        page.wait_for_url("**/lmvp/api/shutdown")
    else:
        wait_for_refusal(page)
    assert hostile.posted == []
    new = jupyter.requests()[before:]
    assert not any("/api/" in line or "logout" in line for line in new), new
    assert jupyter.process.poll() is None
    assert requests.get(f"{jupyter.base}/api", timeout=20).status_code == 200


@pytest.mark.parametrize(
    "element",
    [
        "<iframe src=/user/ada/api></iframe>",
        "<object data=/user/ada/api></object>",
        "<embed src=/user/ada/api>",
        "<script src=/user/ada/files/pulled.js></script>",
        "<script src=x.js></script>",
        "<script>document.title = 'a script ran'</script>",
        "<img src=x onerror=\"document.title = 'a script ran'\">",
        "<img src=/user/ada/logout>",
        "<link rel=stylesheet href=/user/ada/files/pulled.js>",
    ],
)
def test_element_loads_nothing_of_jupyter(page, hostile, jupyter, element):
    hostile.page = f"<title>before</title>{element}<p>end</p>"
    page.refused.clear()
    before = len(jupyter.requests())
    page.goto(f"{jupyter.base}/lmvp/x")
    wait_for_refusal(page)
    assert page.inner_text("p") == "end"
    assert page.title() == "before"
    assert len(page.frames) == 1 or page.frames[1].url in (
        "about:blank",
        "about:srcdoc",
        "chrome-error://chromewebdata/",
    )
    new = jupyter.requests()[before:]
    assert not any(word in line for line in new for word in ("/api", "logout", "pulled")), new


def test_form_below_the_prefix_is_sent_with_the_token_of_the_proxy(page, hostile, jupyter):
    hostile.page = "<form method=post action=p><input name=_xsrf value=TOKEN><button>go</button></form>"
    page.goto(f"{jupyter.base}/lmvp/x")
    hostile.posted.clear()
    page.click("button")
    page.wait_for_url("**/lmvp/p")
    assert (page.title(), hostile.posted) == ("posted", ["/p"])
