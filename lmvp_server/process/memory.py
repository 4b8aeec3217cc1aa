"""Settings of glibc for freed memory.

A server that receives frames allocates and frees megabytes all the time. By default, glibc returns such blocks to the
kernel at once, which must then zero their pages for the next allocation, and each thread has its own arena. Two arenas
that retain up to 32 MiB are faster and smaller.
"""

from __future__ import annotations

import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # parameters of mallopt(3), in malloc.h
_MIB = 1 << 20


def keep_freed_memory() -> None:
    """Let the process retain up to 32 MiB of freed memory in few arenas. This has no effect without glibc."""
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # By default, glibc creates up to eight arenas per core, each with its own free memory.
        mallopt(_ARENA_MAX, 2)
        mallopt(_MMAP_THRESHOLD, 32 * _MIB)
        mallopt(_TRIM_THRESHOLD, 32 * _MIB)


def give_back() -> None:
    """Return all freed memory to the kernel, after work that needed much of it. This has no effect without glibc."""
    if sys.platform != "linux":
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
