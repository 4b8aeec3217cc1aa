"""Sphinx settings; `make docs` builds the site into `build/docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import lmvp  # noqa: E402

project = "LMVP"
author = "the LMVP developers"
copyright = f"2026, {author}"  # noqa: A001
version = release = lmvp.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["images/*.txt"]
source_suffix = {".md": "markdown"}
root_doc = "index"
language = "en"
html_theme = "furo"
html_title = f"LMVP {version}"
html_static_path: list[str] = []
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "fieldlist"]
napoleon_numpy_docstring, napoleon_google_docstring = True, False
autodoc_typehints = "none"
exclude_patterns += ["decisions/template.md"]


def setup(app: Sphinx) -> None:
    """Write the generated pages before Sphinx reads the folder, and let links to the top folder find them."""
    from reference import write

    write(ROOT / "docs" / "reference")
    app.connect("source-read", lambda _app, _page, text: text.__setitem__(0, _link_to_site(text[0])))


def _link_to_site(text: str) -> str:
    """Let links to pages of the top folder point to their copies on the site. Elsewhere they point to the files."""
    return text.replace("](../SECURITY.md", "](reference/security_policy.md").replace(
        "](../README.md", "](reference/getting_started.md"
    )
