"""Sizes of the tests that repeat an action many times: small in `make test`, large in `make soak`."""

import os


def size(name: str, default: int) -> int:
    """Return the number of repetitions: the environment variable `LMVP_<name>`, or the default of `make test`."""
    return int(os.environ.get(f"LMVP_{name}", str(default)))
