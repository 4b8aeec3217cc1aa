"""The public widgets. Each displays a JavaScript module of `lmvp_server/static/widgets`, like the console."""

from __future__ import annotations

from lmvp_jupyter.curves import CurvesPlot
from lmvp_jupyter.history_table import HistoryTable
from lmvp_jupyter.live import LiveWidget
from lmvp_jupyter.plots import MetricsPlot
from lmvp_jupyter.views import ConsoleButton, DiffView, ModelView

__all__ = ["ConsoleButton", "CurvesPlot", "DiffView", "HistoryTable", "LiveWidget", "MetricsPlot", "ModelView"]
