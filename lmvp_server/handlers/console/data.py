"""Data of embedded widgets, and downloads, as in the API but with session authentication."""

from __future__ import annotations

from lmvp_server.handlers import content, live, versions
from lmvp_server.handlers.pages import BySession, Drawn


class File(Drawn, content.File):
    """`/p/{project}/{model}@{revision}/-/files/{path}`: a file, or a range of it."""


class Histograms(BySession, versions.Histograms):
    """`/p/{project}/{model}@{revision}/-/histograms`."""


class Live(BySession, live.Live):
    """`/p/{project}/-/live`."""
