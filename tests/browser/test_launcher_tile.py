"""The launcher tile of a real JupyterLab opens the console, signed in, or says how to make that possible."""

from __future__ import annotations

import numpy as np
import pytest
from support.waiting import counted
from test_high_contrast import contrast

from lmvp import config, local
from lmvp.client.models import Client

TIMEOUT = 30_000
THEMES = ["JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"]
PARTS = """() => {
  const mark = document.querySelector('.jp-Launcher .lmvp-mark');
  let ground = mark;
  while (/rgba\\(.*, 0\\)/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
  const fills = Object.fromEntries([...mark.querySelectorAll('rect')].map((each) =>
    [each.getAttribute('class'), getComputedStyle(each).fill]));
  return { ...fills, ground: getComputedStyle(ground).backgroundColor };
}"""


@pytest.fixture
def home(jupyterlab, monkeypatch):
    """The LMVP_HOME of the Jupyter server."""
    home = jupyterlab.root.parent / "lmvp"
    for name in ("LMVP_URL", "LMVP_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LMVP_HOME", str(home))
    yield home
    config.logout()


@pytest.fixture(scope="module")
def launcher(jupyterlab):
    """A page with the launcher of JupyterLab."""
    opened = jupyterlab.open_launcher()
    page = opened.page
    page.watch = opened.watch
    tile(page).wait_for(timeout=60_000)
    yield page
    page.close()


@pytest.fixture
def page(launcher, home):
    """The launcher; no request of it may leave this machine."""
    launcher.watch.errors.clear()  # JupyterLab raises some of its own while it starts
    yield launcher
    assert launcher.watch.strangers == []
    launcher.unroute_all()


def tile(page):
    return page.locator(".jp-LauncherCard", has_text="LMVP Console")


def change_theme(page, theme):
    """Change the theme of JupyterLab, and wait until its styles are there."""
    page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
    page.wait_for_selector(f'body[data-jp-theme-name="{theme}"]', state="attached")
    page.wait_for_function("() => getComputedStyle(document.body).getPropertyValue('--jp-layout-color0') !== ''")


def opened_by(page, action):
    """Return the page of the tab that an action opens, once the console is in it."""
    with page.context.expect_page() as opened:
        action()
    opened.value.wait_for_url("**/user/ada/lmvp/", timeout=TIMEOUT)
    return opened.value


def message_of(page, action):
    """Return the text of the dialog that an action opens; no other tab may stay open."""
    before = len(page.context.pages)
    action()
    dialog = page.locator(".jp-Dialog-content")
    dialog.wait_for(timeout=TIMEOUT)
    text = dialog.inner_text()
    page.keyboard.press("Escape")
    counted(dialog, 0)
    assert len(page.context.pages) == before, "the tab is closed again"
    return text


def test_tile_opens_the_console_signed_in(page, home, jupyterlab):
    seen = []
    page.context.on("request", lambda request: seen.append(f"{request.url} {request.headers} {request.post_data}"))
    page.context.on("response", lambda response: seen.append(f"{response.url} {response.headers}"))
    console = opened_by(page, tile(page).click)
    server = local.find(home)
    Client(server.url, server.token).update("tiles/mlp", {"w": np.ones(3)}, create=True, progress=False)
    with console.expect_response("**/lmvp/"):
        console.reload()
    assert console.get_by_role("link", name="tiles", exact=True).count() == 1, "nobody sees it without signing in"
    assert console.evaluate("window.opener") is None
    assert f"{jupyterlab.url}/api/lmvp/console" in " ".join(seen)
    assert server.token not in " ".join(seen) + console.content() + page.content()
    assert all(line.startswith(("http://127.0.0.1:", "data:", "blob:")) for line in seen), "no other host is asked"
    assert page.watch.errors == []
    console.close()


def test_tile_opens_the_console_by_key(page):
    tile(page).focus()
    console = opened_by(page, lambda: page.keyboard.press("Enter"))
    console.close()


def test_command_opens_the_console_from_the_palette(page):
    page.keyboard.press("Control+Shift+C")
    page.get_by_role("textbox").last.wait_for()
    page.keyboard.type("Open LMVP Console")
    item = page.locator(".lm-CommandPalette-item", has_text="Open LMVP Console")
    counted(item, 1)
    console = opened_by(page, item.click)
    console.close()


def test_command_is_in_notebook_7(jupyterlab, home):
    notebook = jupyterlab.open_in_notebook_7("tile7.ipynb", ["1"])
    assert notebook.page.evaluate("window.jupyterapp.commands.hasCommand('lmvp:open-console')")
    notebook.close()


@pytest.mark.parametrize("theme", THEMES)
def test_mark_of_the_tile_is_visible_in_the_theme(page, theme):
    change_theme(page, theme)
    parts = page.evaluate(PARTS)
    ratios = {name: contrast(colour, parts["ground"]) for name, colour in parts.items() if name != "ground"}
    assert set(ratios) == {"little", "same", "more", "most"}
    assert ratios["little"] < ratios["more"] < ratios["most"], "more change, more contrast"
    assert ratios["most"] > 7
    if "Contrast" in theme:
        assert min(ratios.values()) >= 3, ratios
    change_theme(page, "JupyterLab Light")


def test_tile_names_the_login_that_is_missing(page, home):
    config.login("https://models.example.org")
    text = message_of(page, tile(page).click)
    assert "No token is stored for https://models.example.org." in text
    assert "To fix it: run lmvp login https://models.example.org in a terminal of Jupyter." in text


def test_tile_names_the_login_that_has_ended(page, home):
    url = local.connection().url
    config.login(url, "t" * 40)
    text = message_of(page, tile(page).click)
    assert f"{url} does not accept the stored token." in text
    assert f"To fix it: run lmvp login {url} in a terminal of Jupyter." in text
    assert "t" * 40 not in text


@pytest.mark.parametrize(
    ("answer", "message", "fix"),
    [
        ({"status": 404}, "LMVP's extension of the Jupyter server is off", "Run jupyter server extension enable"),
        ({"status": 403, "json": {"message": "Forbidden"}}, "may not use LMVP's console", "Sign in to Jupyter again"),
        ({"status": 500, "body": "<html>"}, "answered with status 500", "Its log"),
        (None, "The Jupyter server does not answer", "Check that it is running"),
    ],
)  # fmt: skip
def test_tile_names_the_fault_of_the_jupyter_server(page, answer, message, fix):
    page.route("**/api/lmvp/console*", lambda route: route.fulfill(**answer) if answer else route.abort())
    text = message_of(page, tile(page).click)
    assert message in text
    assert f"To fix it: {fix}" in text


def test_tile_gives_a_link_where_tabs_are_blocked(page, jupyterlab):
    page.evaluate("window.opens = window.open; window.open = () => null")
    tile(page).click()
    link = page.get_by_role("dialog").get_by_role("link", name="Open LMVP's console")
    link.wait_for(timeout=TIMEOUT)
    assert link.get_attribute("href") == f"{jupyterlab.url}/lmvp/"
    console = opened_by(page, link.click)
    assert console.evaluate("window.opener") is None
    console.close()
    page.keyboard.press("Escape")
    page.evaluate("window.open = window.opens")
