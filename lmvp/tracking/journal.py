"""The journal of a writer: a file mapped into memory, to which frames are stored without a system call.

What was stored is there when the process is killed the moment after. `sync`, which a thread calls once a second, makes
it survive a power cut. Where the disk refuses, frames are kept in memory, as far as there is room. See docs/runs.md.
"""

from __future__ import annotations

import mmap
import os
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Final
from zlib import crc32

from lmvp import private
from lmvp.tracking.frames import HEAD

_FIRST, _MOST = 1 << 20, 16 << 20
_MARK = 1 << 19
MEMORY: Final = 64 << 20
"""Bytes that are kept where the disk refuses, at most."""

_pack_head = HEAD.pack


class Journal:
    """Frames in a file, or in memory where there is no room for a file.

    Attributes
    ----------
    size : int
        Bytes of the frames so far.
    lost : int
        Frames that were dropped, for want of a disk and of memory.
    marks : list of int
        Places where a frame ends, some distance apart: whoever reads a part finds its end without reading frames.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.lost = 0
        self.marks: list[int] = []
        self._next_mark = _MARK
        self.lock = threading.Lock()
        self._synced = 0
        self._room = 0
        self._map: mmap.mmap | bytearray = bytearray()
        self._descriptor = -1
        self._on_disk = 0
        try:
            self._open()
        except OSError as error:
            self._go_without(error)

    def _open(self) -> None:
        private.make_folder(self.path.parent)
        self._descriptor = private.create(self.path, os.O_RDWR | os.O_EXCL)
        self._grow(_FIRST)

    def append(self, payload: bytes) -> None:
        """Store a frame. Never raises for want of a disk."""
        with self.lock:
            self.store(payload)

    def store(self, payload: bytes) -> None:
        """Store a frame; the caller holds `lock`."""
        at, length = self.size, len(payload)
        end = at + 8 + length
        if end + 8 > self._room and not self._make_room(end):  # eight zeros behind it end the journal
            self.lost += 1
            return
        base = self._on_disk if self._descriptor < 0 else 0
        room = self._map
        room[at + 8 - base : end - base] = payload
        room[at - base : at + 8 - base] = _pack_head(length, crc32(payload))
        self.size = end
        if end > self._next_mark:
            self.marks.append(end)
            self._next_mark = end + _MARK

    def _make_room(self, end: int) -> bool:
        if self._descriptor >= 0:
            try:
                self._grow(max(end + 8, min(2 * self._room, self._room + _MOST)))
            except OSError as error:
                self._go_without(error)
        if self._descriptor < 0:
            if end - self._on_disk > MEMORY:
                if not self.lost:
                    room = f"neither {self.path.parent} nor memory ({MEMORY >> 20} MiB) takes more metrics"
                    _warn(f"{room}: what is logged from now on is lost")
                return False
            self._map.extend(bytes(min(end + (1 << 16), self._on_disk + MEMORY + 8) - self._room))  # type: ignore[union-attr]
            self._room = self._on_disk + len(self._map)
        return True

    def _grow(self, size: int) -> None:
        """Give the file this length, in zeros, and map it anew."""
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._descriptor, 0, size)
        else:
            os.ftruncate(self._descriptor, size)
        fresh = mmap.mmap(self._descriptor, size)
        if isinstance(self._map, mmap.mmap):
            self._map.close()
        self._map, self._room = fresh, size

    def _go_without(self, error: OSError) -> None:
        """Keep frames in memory from now on; those on the disk stay there."""
        why = f"{self.path.parent} takes no metrics ({error.strerror})"
        _warn(f"{why}: they stay in memory until the server has them, and end with this process")
        with suppress(OSError):
            if self._descriptor >= 0:
                os.close(self._descriptor)
        self._descriptor, self._on_disk = -1, self.size
        if isinstance(self._map, mmap.mmap):
            self._kept = self._map
        self._map, self._room = bytearray(), self.size

    _kept: mmap.mmap | None = None
    _closed: bool = False
    """Whether its descriptor is another file's by now."""

    def read(self, start: int, limit: int) -> bytes:
        """Return whole frames from `start` on, where one begins: at most `limit` bytes, at least one frame."""
        with self.lock:
            end = self.size
            if end > start + limit:
                end = next((mark for mark in reversed(self.marks) if start < mark <= start + limit), end)
            if self._descriptor < 0 and start >= self._on_disk:
                return bytes(memoryview(self._map)[start - self._on_disk : end - self._on_disk])
            if self._descriptor >= 0:
                return bytes(self._map[start:end])
            assert self._kept is not None
            return bytes(self._kept[start : self._on_disk])

    def sync(self) -> None:
        """Bring what was stored to the disk, if there is news."""
        size = self.size
        if size == self._synced or self._descriptor < 0 or self._closed:
            return
        with suppress(OSError):
            (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(self._descriptor)
            self._synced = size

    def close(self) -> None:
        """Sync the file, and cut it to its frames."""
        with self.lock, suppress(OSError, ValueError):
            if isinstance(self._map, mmap.mmap):
                self._map.flush()
                self._map.close()
                os.ftruncate(self._descriptor, self.size)
                os.fsync(self._descriptor)
                os.close(self._descriptor)
                self._map, self._closed = bytearray(), True

    def abandon(self) -> None:
        """Let go of it in a forked child, without touching the file that the parent goes on with."""
        with suppress(OSError):
            if self._descriptor >= 0 and not self._closed:
                os.close(self._descriptor)
        self._descriptor = -1


def _warn(text: str) -> None:
    """Say it, but never fail a training for it, also where warnings are errors."""
    with suppress(Warning):
        warnings.warn(text, stacklevel=6)


def read_file(path: Path, start: int, limit: int) -> bytes:
    """Return bytes of a journal that another process writes, or wrote; zeros may stand at the end."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(limit)
