"""README works to the letter: all of its blocks run unchanged, in order, in a new environment and a new home folder.

Console blocks run in one bash, `ipython` blocks as cells of one notebook, and each `python` block as a script.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import build_wheel
import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)

NOT_HERE = {
    "make demo ": "it makes its own environment from the network; test_quickstart.py runs the same program, and `make "
    "test` is this suite",
    "lmvp server --host 0.0.0.0 ": "it runs until it is stopped; tests/process/test_local.py starts servers",
    "lmvp login http://SERVER": "a user approves it in a browser; tests/browser/test_console_story.py does",
    "lmvp push digits/cnn weights.safetensors --create": "it needs a shared server; tests/api/test_team.py runs it",
}
"""The blocks that are not run, by their first words, and the reason."""

MARK = "\ue000"


class Shell:
    """A bash that runs lines and returns what each prints; it keeps its folder and its activated environment."""

    def __init__(self, folder, environment):
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=environment,
        )

    def run(self, line):
        self._bash.stdin.write(f"{line} </dev/null\nprintf '\\n{MARK}%d\\n' $?\n")
        self._bash.stdin.flush()
        said = []
        for text in self._bash.stdout:
            if text.startswith(MARK):
                assert text == f"{MARK}0\n", f"{line}\n{''.join(said)}"
                return "".join(said)
            said.append(text)
        raise AssertionError(f"bash ended: {line}")

    def end(self):
        self._bash.stdin.close()
        self._bash.wait(30)
        self._bash.stdout.close()


class Reader:
    """A person who follows README: an account of their own, a checkout, and no packages but those of this machine.

    pip runs without a network: the new environment sees the dependencies that are installed for these tests.
    """

    def __init__(self, home):
        self.home, self.checkout = home, home / "lmvp"
        for name in build_wheel._source_files():
            (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, self.checkout / name)
        shutil.copyfile(ROOT / "constraints.txt", self.checkout / "constraints.txt")
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        self.environment = {
            **kept,
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONWARNINGS": "ignore",
        }
        self.shell = Shell(self.checkout, self.environment)
        self.kernel = None
        self.folder = None

    def console(self, text):
        said = []
        for line in text.splitlines():
            said.append(self.shell.run(line))
            if "-m venv" in line:
                self._share_packages(self.checkout / line.split()[-1])
            if line.startswith("cd "):
                self.folder = Path(line.split()[1].replace("~", str(self.home)))
        return "".join(said)

    def _share_packages(self, environment):
        """Let an environment find what is installed for the tests, behind what it has itself."""
        (packages,) = environment.glob("lib/python*/site-packages")
        lines = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
        for old in packages.glob("setuptools*"):  # of old Pythons; pip would fetch the newer one that builds LMVP
            shutil.rmtree(old)
        (packages / "zz_tests.pth").write_text("".join(f"{line}\n" for line in sorted(lines)))
        self.python = environment / "bin" / "python"
        self.environment["PATH"] = f"{environment / 'bin'}{os.pathsep}{self.environment['PATH']}"

    def script(self, text):
        path = self.folder / "script.py"
        path.write_text(text)
        command = [self.python, path.name]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def cells(self, text):
        """Run cells, which a blank line separates; return their outputs as text."""
        if self.kernel is None:
            manager = KernelManager()
            manager._kernel_spec = KernelSpec(
                argv=[str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python"
            )
            notebook = nbformat.v4.new_notebook()
            self.kernel = NotebookClient(notebook, km=manager, timeout=200)
            manager.start_kernel(cwd=str(self.folder), env=self.environment)
            self.kernel.kc = manager.client()
            self.kernel.kc.start_channels()
            self.kernel.kc.wait_for_ready(timeout=120)
        said = []
        for code in text.strip().split("\n\n"):
            cell = nbformat.v4.new_code_cell(code)
            self.kernel.nb.cells.append(cell)
            self.kernel.execute_cell(cell, len(self.kernel.nb.cells) - 1)
            said.append(shown(cell))
        return "\n".join(said)

    def end(self):
        if self.kernel is not None:
            self.kernel.kc.stop_channels()
            self.kernel.km.shutdown_kernel(now=True)
        with_server = [self.python, "-c", "from lmvp import local; local.stop()"]
        subprocess.run(with_server, env=self.environment, check=False, timeout=60)
        self.shell.end()


def shown(cell):
    """Return what a cell shows: the static form of results, as text."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(texts)


def reason(text):
    return next((why for words, why in NOT_HERE.items() if text.startswith(words)), None)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What all blocks print, in the order of README, by their numbers."""
    for module in ("sklearn", "skops", "ipykernel"):
        pytest.importorskip(module)
    reader, printed = Reader(tmp_path_factory.mktemp("reader")), {}
    run = {"console": reader.console, "ipython": reader.cells, "python": reader.script}
    try:
        for number, (language, text) in enumerate(BLOCKS):
            if reason(text) is None:
                printed[number] = run[language](text)
        yield printed
    finally:
        reader.end()


def number_of(words):
    """Return the number of the block that holds these words."""
    (found,) = [number for number, (_, text) in enumerate(BLOCKS) if words in text]
    return found


@pytest.mark.slow
def test_all_blocks_run_in_order(said):
    skipped = [text for number, (_, text) in enumerate(BLOCKS) if number not in said]
    assert len(skipped) == len(NOT_HERE)
    assert [text for text in skipped if "pip install" in text] == []


@pytest.mark.slow
def test_notebook_logs_the_metric_that_it_computed(said):
    text = said[number_of("%load_ext")]
    assert re.search(r"^v1 .*first try .*0\.9\d", text, re.MULTILINE), "the history shows a measured accuracy"
    assert "a higher rate" in text
    assert re.search(r"http://127\.0\.0\.1:\d+/p/digits/mlp", text), "where the console is"
    assert "/open#" not in text


@pytest.mark.slow
def test_python_says_what_readme_promises(said):
    assert "weights.safetensors" in said[number_of('"digits/mlp-copy"')]
    runs = said[number_of("start_run")]
    for name in ("quiet-wren-44", "bold-otter-7"):
        assert f"run digits/{name}: http://127.0.0.1:" in runs
    compared = said[number_of("%lmvp compare")]
    assert "quiet-wren-44" in compared
    assert "bold-otter-7" in compared


@pytest.mark.slow
def test_shell_says_what_readme_promises(said):
    shell = said[number_of("lmvp push digits/cnn folder/")]
    assert "digits/cnn@v1" in shell
    assert "/open#" in shell
    assert "no problem found" in said[number_of("lmvp fsck")]


def test_blocks_are_of_a_language_that_is_run():
    assert {language for language, _ in BLOCKS} == {"console", "python", "ipython"}
    for words in NOT_HERE:
        assert sum(text.startswith(words) for _, text in BLOCKS) == 1, words


def test_readme_links_every_page():
    """README links each page of docs/. The decision records are linked by their index, see test_decisions.py."""
    links = set(re.findall(r"\]\(([^)#]+)", README))
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    pages = {page for page in pages if not page.startswith("docs/reference/")}  # `make docs` generates those
    records = {page for page in pages if re.fullmatch(r"docs/decisions/\d{4}-[\w-]+\.md", page)}
    assert records
    assert pages - records - links == set()
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_nothing_names_lmvp_as_a_published_package():
    """LMVP is on no package index; a wheel is a file, and a checkout is a folder."""
    wrong = re.compile(r"pip3? install[^\n`]*[\s'\"]lmvp(?:\[|\b(?!-))")
    texts = [ROOT / name for name in ("README.md", "SECURITY.md", "Makefile", "setup.cfg", "pyproject.toml")]
    for folder in ("docs", "lmvp", "lmvp_server", "lmvp_jupyter", "tools", "examples"):
        texts += [
            path for path in (ROOT / folder).rglob("*") if path.suffix in {".md", ".py", ".html", ".js", ".ipynb"}
        ]
    assert len(texts) > 300
    found = [f"{path.relative_to(ROOT)}: {line.strip()}" for path in texts
             for line in path.read_text("utf-8").splitlines() if wrong.search(line)]  # fmt: skip
    assert found == []


def test_readme_names_the_extras_that_there_are():
    extras = (ROOT / "setup.cfg").read_text("utf-8").partition("[options.extras_require]")[2].partition("\n[")[0]
    known = set(re.findall(r"^(\w+) =$", extras, re.MULTILINE))
    table = README.partition("| extra | adds |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines()[2:]))) <= known
    for text in re.findall(r"\[(\w+(?:,\w+)*)\]'", README):
        assert set(text.split(",")) <= known


def test_readme_names_targets_of_make():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in ("demo", "test", "lab", "lint", "fix", "browser", "bench", "wheel"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert README.index("make demo") < README.index("make test") < README.index("## In a notebook")
