"""Data of embedded widgets, and downloads, as in the API but with session authentication."""

from __future__ import annotations

from lmvp_server.api import downloads, sse, versions
from lmvp_server.web.base_page import BySession, Drawn


class File(Drawn, downloads.FileHandler):
    """`/p/{project}/{model}@{revision}/-/files/{path}`: a file, or a range of it."""


class Histograms(BySession, versions.HistogramsHandler):
    """`/p/{project}/{model}@{revision}/-/histograms`."""


class Live(BySession, sse.LiveHandler):
    """`/p/{project}/-/live`."""
