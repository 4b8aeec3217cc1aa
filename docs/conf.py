"""Sphinx settings; `make docs` builds the site into `build/docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from reference import TOP_PAGES  # noqa: E402

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


def setup(app: Sphinx) -> None:
    """Write the generated pages before Sphinx reads the folder, and adapt pages that code hosts show unchanged."""
    from reference import write

    write(ROOT / "docs" / "reference")
    app.connect("source-read", _adapt)


def _adapt(_app: Sphinx, page: str, text: list[str]) -> None:
    """Let links to the top folder find the copies on the site, and list the decision records in its navigation."""
    for name, copy in TOP_PAGES.items():
        text[0] = re.sub(rf"\]\((\.\./)+{re.escape(name)}", f"](/reference/{copy}.md", text[0])
    if page == "decisions/index":
        text[0] += "\n```{toctree}\n:glob:\n:hidden:\n\n0*\n```\n"
