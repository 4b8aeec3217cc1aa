"""The Jupyter extension: magics, completion and widgets in IPython, and the console in the Jupyter server.

`%load_ext lmvp_jupyter` loads it in a kernel. The Jupyter server and JupyterLab find their parts through entry points.
"""

from __future__ import annotations

from typing import Any


def load_ipython_extension(ip: Any) -> None:
    """Register the magics, their completion and the widgets with an IPython shell."""
    # Imported here, because the Jupyter server imports this package, too, and does not need the widgets.
    from lmvp_jupyter import completion, display, magics

    magics.install(ip)
    display.install(ip)
    completion.install(ip)


def unload_ipython_extension(ip: Any) -> None:
    """Undo `load_ipython_extension`."""
    from lmvp_jupyter import completion, display, magics

    completion.uninstall(ip)
    display.uninstall(ip)
    magics.uninstall(ip)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Return the extensions of the Jupyter server: the console at `<base_url>/lmvp/`."""
    from lmvp_jupyter.server_extension import LmvpExtension

    return [{"module": "lmvp_jupyter", "app": LmvpExtension}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Return the folder of the JupyterLab extension in this package and its installed name."""
    return [{"src": "labextension", "dest": "lmvp"}]
