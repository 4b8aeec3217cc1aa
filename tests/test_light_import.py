"""`import lmvp` loads nothing heavy."""

import subprocess
import sys

HEAVY = (
    "numpy",
    "requests",
    "tornado",
    "IPython",
    "ipywidgets",
    "jupyter_server",
    "torch",
    "sklearn",
    "keras",
    "onnx",
    "tqdm",
    "anywidget",
    "zstandard",
)


def test_import_is_light():
    code = f"import sys, lmvp, lmvp.core.codecs; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_the_server_needs_no_numpy():
    code = "import sys, lmvp_server.routes, lmvp_server.stores.local.records; print('numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "False"
