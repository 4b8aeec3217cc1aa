"""Cells in a real kernel and in a terminal's IPython: `%%lmvp run`, `%%lmvp bisect`, and runs without the extension."""

import os
import re
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

import lmvp
from lmvp import errors, local

pytestmark = pytest.mark.notebook

pytest.importorskip("ipykernel")

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
INTERNAL = ("lmvp_jupyter", "interactiveshell.py", "run_cell_magic", "begin_run", "skipping hidden")
"""Texts of frames that are not the user's."""


class Kernel:
    """A kernel whose runs are in a home of its own."""

    def __init__(self, home):
        from jupyter_client.manager import start_new_kernel

        env = {key: value for key, value in os.environ.items() if not key.startswith("LMVP_")}
        self.home = home
        self.manager, self.client = start_new_kernel(kernel_name="python3", env={**env, "LMVP_HOME": str(home)})

    def __call__(self, code, *, interrupt_at=None):
        """Execute a cell; interrupt the kernel once it has printed a text."""
        printed, shown, error = [], [], None
        waiting = interrupt_at

        def hear(message):
            nonlocal error, waiting
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed.append(content["text"])
            elif kind in ("execute_result", "display_data"):
                shown.append(content["data"])
            elif kind == "error":
                error = SimpleNamespace(name=content["ename"], text=COLOURS.sub("", "\n".join(content["traceback"])))
            if waiting and waiting in "".join(printed):
                waiting = None
                self.manager.interrupt_kernel()

        reply = self.client.execute_interactive(textwrap.dedent(code), output_hook=hear, timeout=120)
        status = reply["content"]["status"]
        values = [data["text/plain"] for data in shown]
        return SimpleNamespace(printed="".join(printed), shown=shown, values=values, error=error, status=status)

    def end(self):
        process = self.manager.provisioner.process
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.client.context.destroy(linger=0)
        if process is not None:
            process.wait(10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells") / "home"
    yield folder
    local.stop(folder)


@pytest.fixture(scope="module")
def kernel(folder):
    kernel = Kernel(folder)
    kernel("%load_ext lmvp_jupyter\nimport asyncio, lmvp, sys, time\nimport numpy as np\nlmvp.set_project('cells')")
    yield kernel
    kernel.end()


@pytest.fixture
def run_of(folder, monkeypatch):
    """Give a function that returns a run as the server has it."""
    monkeypatch.setenv("LMVP_HOME", str(folder))
    return lambda name: lmvp.run(name, "cells")


def status(run):
    return run.status, run.record.error


# -- how curves are shown


def test_notebook_without_extension_says_once_how_curves_are_shown(folder):
    kernel = Kernel(folder)
    try:
        begin = "import lmvp\nwith lmvp.start_run('told', system_metrics=False) as run:\n    run.log({'x': 1})"
        quiet = begin.replace("system_metrics", "plot=False, system_metrics")
        printed = [kernel(code).printed.count("%load_ext lmvp_jupyter") for code in (quiet, begin, begin)]
        assert printed == [0, 1, 0]
    finally:
        kernel.end()


def test_notebook_with_extension_draws_curves_and_says_nothing(kernel):
    found = kernel("with lmvp.start_run('told', system_metrics=False) as run:\n    run.log({'x': 1})")
    assert "%load_ext" not in found.printed
    assert len(found.shown) == 1


def test_plain_python_never_mentions_the_extension(home, capsys):
    with lmvp.start_run("told", system_metrics=False):
        pass
    assert "load_ext" not in "".join(capsys.readouterr())


# -- top-level await


def test_cell_of_a_run_awaits_at_top_level(kernel, run_of):
    found = kernel("""\
        %%lmvp run cells --name awaits --param lr=0.1

        await asyncio.sleep(0)
        run.log({"loss": 0.5}, step=3)
        answer = await asyncio.sleep(0, 41)
        answer + 1""")
    assert (found.status, found.values[-1]) == ("ok", "42")
    assert kernel("_, answer, run.ended, run.status").values == ["(42, 41, True, 'finished')"]
    run = run_of("awaits")
    assert (status(run), run.params, run.metrics) == (("finished", ""), {"lr": 0.1}, {"loss": 0.5})
    assert run.environment["cell"].startswith("\nawait asyncio.sleep(0)\nrun.log(")


def test_tasks_run_while_a_cell_of_a_run_awaits(kernel, run_of):
    found = kernel("""\
        %%lmvp run cells --name tasks
        async def numbers():
            yield 7
        async def train(name):
            for step in range(3):
                run.log({name: step}, step=step)
                await asyncio.sleep(0)
        await asyncio.gather(train("a"), train("b"))
        async for number in numbers():
            print("number", number)""")
    assert (found.status, "number 7" in found.printed) == ("ok", True)
    assert run_of("tasks").metrics == {"a": 2, "b": 2}


def test_cell_of_bisect_awaits_at_top_level(kernel):
    kernel("for i in range(1, 6): lmvp.update('cells/halved', {'w': np.full(3, i)}, progress=False)")
    found = kernel("""\
        %%lmvp bisect cells/halved --good v1 --bad v5 net
        await asyncio.sleep(0)
        assert net["w"].sum() < 11""")
    assert found.error is None
    assert found.values[-1].startswith("cells/halved@v4 is the first bad version")


def test_terminal_ipython_awaits_in_a_cell_of_a_run(folder, run_of, tmp_path):
    script = tmp_path / "train.ipy"
    script.write_text(
        "%%lmvp run cells --name terminal\nimport asyncio\nx = await asyncio.sleep(0, 3)\nrun.log({'x': x})\n"
    )
    env = {**os.environ, "LMVP_HOME": str(folder), "IPYTHONDIR": str(tmp_path / "ipython")}
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "--ext=lmvp_jupyter", str(script)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    run = run_of("terminal")
    assert (status(run), run.metrics, "load_ext" in done.stdout + done.stderr) == (("finished", ""), {"x": 3}, False)


def test_metrics_of_a_model_are_drawn_in_a_notebook(kernel):
    kernel("""\
        with lmvp.start_run("drawn", system_metrics=False, plot=False) as run:
            run.log({"loss": 1.0})
            run.update("mlp", {"w": np.zeros(3)}, metrics={"acc": 0.5, "f1": 0.25}, progress=False)""")
    found = kernel("%lmvp metrics drawn/mlp")
    assert [text.split("  ")[0].partition(" by")[0] for text in found.values] == [
        "drawn/mlp: acc",
        "drawn/mlp: f1",
        kernel("print(run.name)").printed.strip(),
    ]
    assert all("<img" in data["text/html"] for data in found.shown)
    assert len(kernel("%lmvp metrics drawn").shown) == 1


# -- tracebacks


@pytest.mark.parametrize("awaits", ["", "await asyncio.sleep(0)"])
def test_error_in_a_cell_of_a_run_shows_frames_of_the_user_only(kernel, run_of, awaits):
    name = f"fails-{bool(awaits)}"
    found = kernel(f"%%lmvp run cells --name {name}\ndef inner():\n    return 1 / 0\n{awaits}\ninner()")
    assert (found.status, found.error.name) == ("error", "ZeroDivisionError")
    frames = re.findall(r"^Cell In\[\d+\], line (\d+)", found.error.text, re.MULTILINE)
    assert frames == ["5", "3"]  # as the cell numbers its lines
    assert not [text for text in INTERNAL if text in found.error.text]
    assert "File " not in found.error.text
    assert status(run_of(name)) == ("failed", "ZeroDivisionError: division by zero")


def test_interrupt_of_a_cell_of_a_run_shows_frames_of_the_user_only(kernel, run_of):
    train = "def train():\n    print('ready', flush=True)\n    time.sleep(60)\ntrain()"
    code = f"%%lmvp run cells --name interrupted\n{train}"
    found = kernel(code, interrupt_at="ready")
    assert found.error.name == "KeyboardInterrupt"
    assert re.findall(r"^Cell In\[\d+\], line (\d+)", found.error.text, re.MULTILINE) == ["5", "4"]
    assert not [text for text in INTERNAL if text in found.error.text]
    assert status(run_of("interrupted")) == ("killed", "KeyboardInterrupt")


def test_interrupt_of_a_cell_that_awaits_kills_its_run(kernel, run_of):
    # The kernel cancels a cell when its event loop runs again, so the cell awaits many short times.
    code = """\
        %%lmvp run cells --name cancelled
        print("ready", flush=True)
        for _ in range(600):
            await asyncio.sleep(0.1)"""
    found = kernel(code, interrupt_at="ready")
    assert found.status == "error"
    assert not [text for text in INTERNAL if text in found.error.text]
    assert run_of("cancelled").status == "killed"


def test_error_in_a_cell_of_bisect_shows_frames_of_the_user_only(kernel):
    kernel("for i in range(1, 4): lmvp.update('cells/raises', {'w': np.full(3, i)}, progress=False)")
    for cell in ("def inner():\n    1 / 0\ninner()", "await asyncio.sleep(0)\n\n1 / 0"):
        found = kernel("%%lmvp bisect cells/raises --good v1 --bad v3\n" + cell)
        assert found.error.name == "ZeroDivisionError"
        assert re.findall(r"^Cell In\[\d+\], line (\d+)", found.error.text, re.MULTILINE)[0] == "4"
        assert not [text for text in INTERNAL if text in found.error.text]


def test_interrupt_of_a_line_magic_shows_no_frames(kernel):
    kernel("""\
        class Slow:
            def __deepcopy__(self, memo):
                print("ready", flush=True)
                time.sleep(60)
        slow = Slow()""")
    found = kernel("%lmvp push cells/slow slow --no-wait", interrupt_at="ready")
    assert found.error.name == "KeyboardInterrupt"
    assert found.error.text == "KeyboardInterrupt: `%lmvp push`"


# -- a cell of a run is a cell


def test_magics_and_commands_work_in_a_cell_of_a_run(kernel, run_of):
    found = kernel("""\
        %%lmvp run cells --name magics
        !echo from the shell
        %timeit -n1 -r1 run.log({"x": 1.0})
        listed = !echo listed
        print(listed[0])
        6 * 7;""")
    assert found.status == "ok"
    assert [text for text in ("from the shell", "per loop", "listed") if text not in found.printed] == []
    assert "42" not in found.values
    assert run_of("magics").metrics == {"x": 1}


def test_name_of_the_run_is_a_variable_in_a_cell_of_one_line(kernel):
    found = kernel("%%lmvp run cells --name one-line\nrun")
    assert (found.status, found.values[-1].startswith("one-line")) == ("ok", True)


def test_cells_that_a_cell_executes_do_not_end_its_run(kernel, run_of):
    found = kernel("""\
        %%lmvp run cells --name outer
        get_ipython().run_cell("1 + 1")
        get_ipython().run_cell("")
        get_ipython().run_cell("2", silent=True)
        print("ended", run.ended)
        run.log({"x": 1})""")
    assert "ended False" in found.printed
    assert (run_of("outer").metrics, status(run_of("outer"))) == ({"x": 1}, ("finished", ""))


@pytest.mark.parametrize("magic", ["time", "capture kept"])
def test_run_spans_a_cell_of_another_magic(kernel, run_of, magic):
    name = f"within-{magic.split()[0]}"
    found = kernel(f"%%{magic}\n%%lmvp run cells --name {name}\nrun.log({{'x': 1}})\nprint('printed')")
    assert (found.status, "printed" in found.printed) == ("ok", magic == "time")
    run = run_of(name)
    assert (status(run), run.metrics, run.environment["cell"].rstrip()) == (
        ("finished", ""),
        {"x": 1},
        "run.log({'x': 1})\nprint('printed')",
    )


def test_cell_that_cannot_be_compiled_begins_no_run(kernel, run_of):
    found = kernel("%%lmvp run cells --name syntax\nx = (")
    assert found.error.name == "SyntaxError"
    with pytest.raises(errors.NotFound):
        run_of("syntax")


@pytest.mark.parametrize("options", ["--nonsense", "--param lr"])
def test_cell_with_wrong_options_is_not_executed(kernel, options):
    found = kernel(f"%%lmvp run cells {options}\nprint('executed')")
    assert (found.status, "executed" in found.printed) == ("error", False)


def test_help_for_a_cell_of_a_run_executes_nothing(kernel):
    found = kernel("%%lmvp run --help\nprint('executed')")
    assert (found.status, "executed" in found.printed, "--param" in found.printed) == ("ok", False, True)


def test_code_of_a_run_has_cells_as_they_were_typed(kernel, run_of):
    kernel("%%lmvp run cells --name typed\n%timeit -n1 -r1 1\nrun.log({'x': 1})")
    code = run_of("typed").environment["code"]["cells"]
    assert code[0].startswith("%load_ext lmvp_jupyter\n")
    assert code[-1] == "%%lmvp run cells --name typed\n%timeit -n1 -r1 1\nrun.log({'x': 1})"


def test_unloading_the_extension_ends_what_it_does_with_cells(folder):
    kernel = Kernel(folder)
    try:
        kernel("%load_ext lmvp_jupyter\n%unload_ext lmvp_jupyter")
        found = kernel("%%lmvp run cells\n1")
        assert "Cell magic `%%lmvp` not found" in found.printed
    finally:
        kernel.end()
