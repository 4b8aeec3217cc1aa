"""A folder that becomes read-only under a running process: for real in a namespace of mounts, or by injected errors."""

import builtins
import errno
import io
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

PATHS = ("unlink", "remove", "mkdir", "rmdir", "truncate", "chmod", "utime")
PAIRS = ("replace", "rename", "link", "symlink")
DESCRIPTORS = ("write", "pwrite", "writev", "pwritev", "ftruncate", "fchmod", "posix_fallocate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@contextmanager
def read_only(folder):
    """Let every change below a folder fail with EROFS in this process, also through files that are open already."""
    root = str(Path(folder).resolve())
    real = {name: getattr(os, name) for name in (*PATHS, *PAIRS, *DESCRIPTORS, "open")}
    opened, refused = io.open, []

    def refuse(path):
        if isinstance(path, int):
            path = os.path.realpath(f"/proc/self/fd/{path}")
        path = str(Path(os.fsdecode(path)).absolute())
        if path == root or path.startswith(root + os.sep):
            refused.append(path)
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def wrap(name, count):
        def call(*args, **options):
            for path in args[:count]:
                refuse(path)
            return real[name](*args, **options)

        return call

    def open_descriptor(path, flags, *args, **options):
        if flags & WRITING:
            refuse(path)
        return real["open"](path, flags, *args, **options)

    def open_file(file, mode="r", *args, **options):
        if set(mode) & set("wax+"):
            refuse(file)
        return opened(file, mode, *args, **options)

    for name in (*PATHS, *DESCRIPTORS):
        setattr(os, name, wrap(name, 1))
    for name in PAIRS:
        setattr(os, name, wrap(name, 2))
    os.open, io.open, builtins.open = open_descriptor, open_file, open_file
    try:
        yield refused
    finally:
        for name, function in real.items():
            setattr(os, name, function)
        io.open, builtins.open = opened, opened


def can_mount():
    """Tell whether this process may mount in a namespace of its own."""
    if not (shutil.which("unshare") and shutil.which("nsenter") and hasattr(os, "geteuid") and os.geteuid() == 0):
        return False
    return subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0


NAMESPACE = ("unshare", "-m", "--propagation", "private")


def in_namespace(process, *command):
    """Run a command where a process has its mounts."""
    subprocess.run(["nsenter", "-t", str(process.pid), "-m", *command], check=True)


def remount_read_only(process, folder):
    """Make a folder read-only for a process; files that it has open for writing stay so."""
    in_namespace(process, "mount", "--bind", str(folder), str(folder))
    in_namespace(process, "mount", "-o", "remount,ro,bind", str(folder))


def remount_writable(process, folder):
    """Take back `remount_read_only`."""
    in_namespace(process, "umount", str(folder))
