"""Chromium, a page that hosts the widgets without JupyterLab, and a real JupyterLab."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.ports import reserved_port

from lmvp import local

TESTS = Path(__file__).parent.parent

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.notebook)
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)  # last: playwright keeps a loop running


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory):
    """Give a browser context; skip where there is no browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as started:
        context = started.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("chromium"), executable_path=CHROMIUM, headless=True, args=ARGUMENTS
        )
        yield context
        context.close()


@dataclass
class Watch:
    """What went wrong in a page: errors, and requests that left this machine."""

    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def over(self, page: Any) -> Watch:
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: self._note(request.url))
        return self

    def _note(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:")):
            self.strangers.append(url)


# ---- a page that hosts a widget: the shim is all that a module may use of a model -----------------------------------

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>widget</title><style>
:root { --jp-ui-font-size1: 13px; --jp-ui-font-family: system-ui, sans-serif; --jp-code-font-family: menlo, monospace }
body { margin: 0; padding: 12px; font: 13px system-ui; background: var(--jp-layout-color0) }
[data-jp-theme-light="true"] { color-scheme: light; --jp-layout-color0: #fff; --jp-layout-color1: #fff; --jp-ui-font-color1: rgba(0,0,0,.87); --jp-border-color1: #bdbdbd; --jp-border-color3: #eee }
[data-jp-theme-light="false"] { color-scheme: dark; --jp-layout-color0: #111; --jp-layout-color1: #212121; --jp-ui-font-color1: rgba(255,255,255,.87); --jp-border-color1: #616161; --jp-border-color3: #333 }
</style><style>CSS</style></head><body data-jp-theme-light="THEME"><div id="cell"></div><script type="module">
const { esm, state } = JSON_HERE;
class Model {
  constructor(state) { this.state = state; this.listeners = {}; this.saved = 0; }
  get(name) { return this.state[name]; }
  set(name, value) { this.state[name] = value; (this.listeners[`change:${name}`] ?? []).forEach((f) => f()); }
  on(event, f) { (this.listeners[event] ??= []).push(f); }
  off(event, f) { this.listeners[event] = (this.listeners[event] ?? []).filter((g) => g !== f); }
  save_changes() { this.saved += 1; }
  send(message) { (window.sent ??= []).push(message); }
}
const model = window.model = new Model(state);
const module = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
window.clean = await module.default.render({ model, el: document.getElementById("cell") });
window.ready = true;
</script></body></html>"""  # noqa: E501


@dataclass
class Host:
    """Serves pages from memory and opens them."""

    context: Any
    url: str
    pages: dict[str, str]

    def show(self, widget: Any, *, width: int = 1120, dark: bool = False, height: int = 700) -> tuple[Any, Watch]:
        """Open a page with this widget's module, styles and state."""
        state = {name: getattr(widget, name) for name in ("data", "selected") if widget.has_trait(name)}
        given = json.dumps({"esm": str(widget._esm), "state": state}).replace("<", "\\u003c")
        theme = "false" if dark else "true"
        text = PAGE.replace("CSS", str(widget._css)).replace("THEME", theme).replace("JSON_HERE", given)
        path = f"/{len(self.pages)}"
        self.pages[path] = text
        page = self.context.new_page()
        watch = Watch().over(page)
        page.set_viewport_size({"width": width, "height": height})
        page.goto(self.url + path)
        page.wait_for_function("window.ready", timeout=5_000)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return page, watch


@pytest.fixture(scope="session")
def host(chromium):
    """Give a host for single widgets."""
    pages: dict[str, str] = {"/favicon.ico": ""}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages[self.path].encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Host(chromium, f"http://127.0.0.1:{server.server_port}", pages)
    server.shutdown()
    server.server_close()


# ---- JupyterLab ------------------------------------------------------------------------------------------------------


@dataclass
class Lab:
    """A running JupyterLab; `open` writes a notebook and opens it."""

    context: Any
    url: str
    root: Path

    def write(self, name: str, cells: list[str]) -> Path:
        import nbformat

        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.root / name
        nbformat.write(notebook, path)
        return path

    def open(self, name: str, cells: list[str] | None = None, *, width: int = 1280, height: int = 1000) -> Notebook:
        """Open a notebook and wait for its kernel."""
        if cells is not None:
            self.write(name, cells)
        page = self.context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        watch = Watch().over(page)
        page.goto(f"{self.url}/lab/tree/{name}?token=test&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.wait_for_function(IDLE, timeout=60_000)
        watch.errors.clear()  # JupyterLab raises some of its own while it starts
        return Notebook(page, watch)

    def open_launcher(self) -> Notebook:
        """Open the launcher, without a notebook."""
        page = self.context.new_page()
        page.set_viewport_size({"width": 1280, "height": 1000})
        watch = Watch().over(page)
        page.goto(f"{self.url}/lab?token=test&reset")
        page.wait_for_selector(".jp-LauncherCard", timeout=60_000)
        return Notebook(page, watch)

    def open_in_notebook_7(self, name: str, cells: list[str]) -> Notebook:
        """Open a notebook in Jupyter Notebook 7."""
        self.write(name, cells)
        page = self.context.new_page()
        watch = Watch().over(page)
        page.goto(f"{self.url}/notebooks/{name}?token=test")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.wait_for_function(IDLE, timeout=60_000)
        watch.errors.clear()
        return Notebook(page, watch)


IDLE = "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"


@dataclass
class Notebook:
    """An open notebook."""

    page: Any
    watch: Watch

    def run(self, cell: int) -> Any:
        """Run a cell, wait until it is done, and give its output."""
        self.page.evaluate(
            """async (i) => { const app = window.jupyterapp; const nb = app.shell.currentWidget.content;
               nb.activeCellIndex = i; await app.commands.execute('notebook:run-cell'); }""",
            cell,
        )
        return self.output(cell)

    def output(self, cell: int) -> Any:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".jp-Cell-outputWrapper")

    def close(self) -> None:
        """End the kernel and close the page."""
        self.command("kernelmenu:shutdown")
        self.page.close()

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        self.page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)", [name, arguments or {}])

    def dark(self, on: bool = True) -> None:
        """Change the theme of JupyterLab, and wait until it is there."""
        self.command("apputils:change-theme", {"theme": f"JupyterLab {'Dark' if on else 'Light'}"})
        self.page.wait_for_selector(f'body[data-jp-theme-light="{str(not on).lower()}"]', state="attached")


@pytest.fixture(scope="session")
def jupyterlab(chromium, tmp_path_factory: pytest.TempPathFactory):
    """Give a real JupyterLab with nothing of the user's own in it."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    home = tmp_path_factory.mktemp("jupyter")
    root = home / "notebooks"
    settings = home / "settings" / "@jupyterlab" / "notebook-extension"
    for folder in (root, settings):
        folder.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    port = reserved_port()
    folders = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "LMVP_HOME": "lmvp",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", "--allow-root", "--IdentityProvider.token=test",
        f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly", "--JupyterNotebookApp.expose_app_in_browser=True",
        "--ServerApp.base_url=/user/ada/", "--ServerApp.jpserver_extensions={'lmvp_jupyter': True}",
    ]  # fmt: skip
    environment = {**os.environ, **{name: str(home / folder) for name, folder in folders.items()}}
    shutil.copytree(TESTS.parent / "lmvp_jupyter" / "labextension", home / "data" / "labextensions" / "lmvp")
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=root)
        try:
            url = f"http://127.0.0.1:{port}/user/ada"
            _wait_for(f"{url}/api?token=test", process, home / "log")
            yield Lab(chromium, url, root)
        finally:
            process.terminate()
            process.wait(30)
            local.stop(home / "lmvp")  # kernels and the launcher tile start it


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


# -- the console: a server with a team's work in it, and whoever looks at it


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    sys.path[:0] = [str(TESTS), str(TESTS.parent / "tools")]
    from console_pictures import fill
    from support.real_server import Server

    from lmvp.client.models import Client

    server = Server(tmp_path_factory.mktemp("console"))
    server.token = server.start()
    fill(server.url, server.token)
    server.client = Client(server.url, server.token)
    yield server
    server.end()


@pytest.fixture(scope="module")
def browser(chromium):
    """The browser of the session, which makes contexts of its own for each look."""
    assert chromium.browser is not None
    return chromium.browser


@pytest.fixture
def looker(server, browser):
    from console_pictures import Looker

    looker = Looker(browser, server.url, server.token, "light")
    yield looker
    assert looker.wrong == []
