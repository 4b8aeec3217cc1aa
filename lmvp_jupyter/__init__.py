"""The notebook layer: `%load_ext lmvp_jupyter`."""

from __future__ import annotations

from typing import Any


def load_ipython_extension(ip: Any) -> None:
    """Add `%lmvp`, its completion, and live forms of what LMVP returns to a shell."""
    from lmvp_jupyter import completion, display, magics

    magics.install(ip)
    display.install(ip)
    completion.install(ip)


def unload_ipython_extension(ip: Any) -> None:
    """Take all of it back."""
    from lmvp_jupyter import completion, display, magics

    completion.uninstall(ip)
    display.uninstall(ip)
    magics.uninstall(ip)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Return the extensions of the Jupyter server: the console at `<base_url>/lmvp/`."""
    from lmvp_jupyter.server_extension import LmvpExtension

    return [{"module": "lmvp_jupyter", "app": LmvpExtension}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Return the folder of the JupyterLab extension in this package, and its installed name."""
    return [{"src": "labextension", "dest": "lmvp"}]
