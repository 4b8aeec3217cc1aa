"""The verbs of the `lmvp` command and of the `%lmvp` magic, with their options.

Each verb is defined once and runs in both hosts; `verbs.Host` covers the differences between shell and notebook.
"""

from lmvp.cli.shell import main

__all__ = ["main"]
