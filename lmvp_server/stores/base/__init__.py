"""Interfaces of the stores: records with their event log, chunks with their manifests, and series of metrics.

Services use only these interfaces. `lmvp_server.stores.testing` has a contract test suite for each interface, and every
implementation must pass it. Unless a docstring states otherwise, a method blocks, can be called from any thread, and
its effect is durable when it returns.
"""

from lmvp_server.stores.base.chunks import Buffer, ChunkStore
from lmvp_server.stores.base.records import (
    Change,
    ConcurrentChange,
    Delete,
    Document,
    Put,
    Record,
    RecordStore,
    SpaceSnapshot,
)
from lmvp_server.stores.base.series import CursorLost, Gap, KeyState, SeriesState, SeriesStore

__all__ = [
    "Buffer",
    "Change",
    "ChunkStore",
    "ConcurrentChange",
    "CursorLost",
    "Delete",
    "Document",
    "Gap",
    "KeyState",
    "Put",
    "Record",
    "RecordStore",
    "SeriesState",
    "SeriesStore",
    "SpaceSnapshot",
]
