"""How the C library hands memory back: not at every frame.

A server that receives frames takes and frees megabytes all the time. glibc gives such blocks back to the kernel at
once and has every page of them zeroed anew, and it lets each thread hoard an arena of its own. One heap that keeps
some dozen megabytes is faster, and smaller.
"""

from __future__ import annotations

import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt(3), in malloc.h
_MIB = 1 << 20


def keep_freed_memory() -> None:
    """Let this process keep up to 32 MiB of freed memory, in few arenas; nothing where there is no glibc."""
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 2)
        mallopt(_MMAP_THRESHOLD, 32 * _MIB)
        mallopt(_TRIM_THRESHOLD, 32 * _MIB)


def give_back() -> None:
    """Hand all freed memory back to the kernel, after work that took much of it; nothing where there is no glibc."""
    if sys.platform != "linux":
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
