"""The verbs and their options, once, for the `lmvp` command and for `%lmvp`."""

from lmvp.commands.shell import main

__all__ = ["main"]
