"""Screenshots of every page of the console: light, dark, 360 px wide, and of an empty server.

    python tools/console_pictures.py FOLDER

The script starts a separate server, fills it with the client, and opens the pages in Chromium. It fails with a list if
there is an error in the browser's console, a request to another host, or a page that scrolls horizontally.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests

import lmvp
from lmvp.client.models import Client
from lmvp_server.routes import API

FORMS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "360": {"viewport": {"width": 360, "height": 780}, "color_scheme": "light"},
}
CARD = """Hears **240 species** in ten seconds of sound.

## Use

- 32 kHz, mono
- `log-mel` with 64 bands

| set | seconds |
| --- | ---: |
| train | 410,000 |
| test | 52,000 |
"""


@contextmanager
def serving(data: Path) -> Iterator[tuple[str, str]]:
    """Run a server during the context; yield its URL and its token."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lmvp_server", "--data", str(data), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "LOGNAME": "ada"})
    try:
        while not (data / "token").exists() or socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", (data / "token").read_text().strip()
    finally:
        process.terminate()
        process.wait()


def weights(random_: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the tensors of a small network."""
    found = {"stem.conv.weight": random_.normal(size=(24, 1, 7, 7)), "stem.conv.bias": np.zeros(24)}
    for block in range(6):
        width = 24 * (1 + block // 2)
        found[f"blocks.{block}.norm.weight"] = np.ones(width)
        found[f"blocks.{block}.attn.qkv.weight"] = random_.normal(size=(3 * width, width)) / 8
        found[f"blocks.{block}.mlp.up.weight"] = random_.normal(size=(4 * width, width)) / 8
        found[f"blocks.{block}.mlp.down.weight"] = random_.normal(size=(width, 4 * width)) / 8
    found["head.weight"] = random_.normal(size=(240, 72)) / 8
    return {name: value.astype("float32") for name, value in found.items()}


def fill(url: str, token: str) -> None:
    """Publish a model with twelve versions and a contribution, log six runs, and add descriptions."""
    client = Client(url, token)
    random_ = np.random.default_rng(7)
    now = weights(random_)
    messages = ["first try", "mix-up", "longer warm-up", "colder head", "specaugment", "head only", "label smoothing",
                "distilled", "wider stem", "half the rate", "ema", "cleaner labels"]  # fmt: skip
    for number, message in enumerate(messages):
        for name in now:
            if number and (name.startswith("head") or random_.random() < 0.3 + 0.05 * (number % 5)):
                now[name] = now[name] + (random_.normal(size=now[name].shape) * 0.02 * (1 + number % 4)).astype(
                    "float32"
                )
        accuracy = 0.71 + 0.2 * (1 - math.exp(-number / 4)) + random_.normal() * 0.004
        client.update(
            "birdsong/tagger",
            now,
            message=message,
            metrics={"val/acc": accuracy, "val/loss": 1.2 - accuracy},
            params={"lr": (0.003, 0.001, 0.0003)[number // 4], "epochs": 20 + number},
            create=True,
        )
    client.update("birdsong/tagger", now, message="bigger batches", metrics={"val/acc": 0.921}, propose=True)
    client.alias("birdsong/tagger@v11", "production")
    client.alias("birdsong/tagger@v12", "candidate")
    client.update("birdsong/denoiser", {"w": np.ones((64, 64), "float32")}, message="a filter bank", create=True)
    client.set_card("birdsong/tagger", CARD)
    client.update("birdsong/denoiser", {"w": np.zeros((64, 64), "float32")}, message="a wrong turn")
    client.remove("birdsong/denoiser@v2")
    client.add_user("grace", "a long password")
    client.set_group("listeners", ["grace"])
    client.set_member("birdsong", "grace", "maintainer")
    client.set_member("birdsong", "@listeners", "viewer")
    noise = np.random.default_rng(3)
    for number in range(6):
        rate, width = (0.01, 0.003, 0.001)[number // 2], (24, 32, 48)[number % 3]
        with client.start_run(
            "birdsong", params={"lr": rate, "width": width, "optimizer": ("adam", "sgd")[number % 2]}
        ) as run:
            for step in range(400):
                loss = 2.2 * math.exp(-step / (60 + 20 * number)) + 0.2 + 0.05 * number + noise.normal() * 0.03
                run.log({"train/loss": loss, "val/loss": loss + 0.05, "val/acc": 1 - loss / 2.6}, step=step)


def make_empty(url: str, token: str) -> None:
    """Create a model without versions in a separate project."""
    for where, name in (("", "quiet"), ("/quiet/models", "model")):
        headers = {"Authorization": f"Bearer {token}"}
        requests.post(
            f"{url}{API}/projects{where}", json={"name": name}, headers=headers, timeout=20
        ).raise_for_status()


def pages(client: Client) -> dict[str, str]:
    """Return the URL of each page by the name of its screenshot."""
    runs = [run.id for run in client.runs("birdsong")]
    files = [file.path for file in client.manifest(client.version("birdsong/tagger@v12")).files]
    compared = "&".join(f"run={run}" for run in runs[:5])
    return {
        "home": "",
        "project": "p/birdsong",
        "model": "p/birdsong/tagger",
        "version": "p/birdsong/tagger@v12",
        "file": f"p/birdsong/tagger@v12/-/view/{files[-1]}",
        "diff": "p/birdsong/tagger/-/diff?from=v8&to=v12",
        "contribution": "p/birdsong/tagger@c1",
        "contributions": "p/birdsong/-/contributions",
        "runs": "p/birdsong/-/runs",
        "runs-grouped": "p/birdsong/-/runs?group=params.optimizer&order=-metrics%5B%22val%2Facc%22%5D",
        "run": f"p/birdsong/-/runs/{runs[0]}",
        "compare": f"p/birdsong/-/compare?{compared}",
        "members": "p/birdsong/-/members",
        "activity": "p/birdsong/-/activity",
        "removed": "p/birdsong/-/removed",
        "settings": "p/birdsong/-/settings",
        "model-settings": "p/birdsong/tagger/-/settings",
        "search": "search?q=v1",
        "account": "account",
        "accounts": "admin",
        "groups": "admin/groups",
        "storage": "admin/storage",
        "audit": "admin/audit?project=birdsong",
        "server-settings": "admin/settings",
    }


EMPTY = {
    "home": "",
    "project": "p/quiet",
    "model": "p/quiet/model",
    "runs": "p/quiet/-/runs",
    "runs-filtered": "p/quiet/-/runs?where=metrics.acc+%3E+0.9",
    "contributions": "p/quiet/-/contributions",
    "members": "p/quiet/-/members",
    "activity": "p/quiet/-/activity",
    "removed": "p/quiet/-/removed",
    "search": "search",
    "search-vain": "search?q=nothing",
    "accounts": "admin",
    "groups": "admin/groups",
    "storage": "admin/storage",
    "audit": "admin/audit?action=nothing",
}
"""Pages of an empty project."""


class Looker:
    """A browser that is signed in, if a token is given, and collects errors."""

    def __init__(self, browser: Any, url: str, token: str, form: str) -> None:
        self.url, self.wrong = url, list[str]()
        self.page = browser.new_context(**FORMS[form]).new_page()
        self.page.on("console", lambda said: self._heard(said))
        self.page.on("pageerror", lambda error: self.wrong.append(f"{self.page.url}: {error}"))
        self.page.on("request", lambda sent: self._asked(sent.url))
        if token:
            self.sign_in(token)

    def sign_in(self, token: str) -> None:
        """Sign in with a token."""
        self.page.goto(f"{self.url}/login")
        self.page.evaluate("document.querySelector('details').open = true")
        self.page.fill("#token", token)
        self.page.click("text=Sign in with token")

    def _heard(self, said: Any) -> None:
        if said.type in ("error", "warning"):
            self.wrong.append(f"{self.page.url}: {said.text}")

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.wrong.append(f"{self.page.url} asks {url}")

    def shoot(self, where: str, picture: Path) -> None:
        """Open a page and save a screenshot."""
        answer = self.page.goto(f"{self.url}/{where}")
        if not answer.ok:
            self.wrong.append(f"{self.page.url} answers {answer.status}")
        self.page.wait_for_selector(".island:not([data-alive])", state="detached", timeout=5000)
        self.page.wait_for_timeout(400)
        self.page.screenshot(path=str(picture), full_page=True)
        over = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if over > 0:
            self.wrong.append(f"{self.page.url} is {over} px too wide")


def main(folder: Path) -> int:
    """Take all screenshots."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as data, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        with serving(Path(data) / "empty") as (url, token):
            for form in FORMS:
                looker = Looker(browser, url, token, form)
                looker.shoot("", folder / f"first-visit-{form}.png")
                wrong += looker.wrong
            make_empty(url, token)
            for form in FORMS:
                looker = Looker(browser, url, token, form)
                for name, where in EMPTY.items():
                    looker.shoot(where, folder / f"empty-{name}-{form}.png")
                wrong += looker.wrong
        with serving(Path(data) / "filled") as (url, token):
            fill(url, token)
            places = pages(Client(url, token))
            for form in FORMS:
                looker = Looker(browser, url, token, form)
                for name, where in places.items():
                    looker.shoot(where, folder / f"{name}-{form}.png")
                wrong += looker.wrong
    print("\n".join(wrong) or f"{folder}: LMVP {lmvp.__version__}, nothing is wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/screenshots")))
