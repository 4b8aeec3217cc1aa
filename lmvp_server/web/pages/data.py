"""Data of embedded widgets, and downloads, as in the API but with session authentication."""

from __future__ import annotations

from lmvp_server.api import downloads, sse, versions
from lmvp_server.web.base_page import PageHandler, SessionHandler


class PageFileHandler(PageHandler, downloads.FileHandler):
    """`/p/{project}/{model}@{revision}/-/files/{path}`: a file, or a range of it."""


class PageHistogramsHandler(SessionHandler, versions.HistogramsHandler):
    """`/p/{project}/{model}@{revision}/-/histograms`."""


class PageLiveHandler(SessionHandler, sse.LiveHandler):
    """`/p/{project}/-/live`."""
