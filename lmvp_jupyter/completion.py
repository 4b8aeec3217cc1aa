"""Tab completion of `%lmvp`: verbs, options, variables and the names on the server.

A thread fetches the names and caches them for 5 seconds. Completion waits at most 300 ms for it, and does not start the
local server.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from lmvp.cli.completion import known_names, names_for
from lmvp.cli.parser import (
    NOTEBOOK,
    Argument,
    Verb,
    verbs_of,
)
from lmvp.errors import LmvpError

PATIENCE = 0.3
"""Maximum time for which completion waits for names, in seconds."""
FRESH = 5.0
"""Time for which names are cached, in seconds."""
_LINE = re.compile(r"%%?lmvp\s+(.*)$")
_VARIABLES = {"object", "variable", "into"}


class Names:
    """A cache of the names on the server."""

    def __init__(self, fetch: Callable[[], list[str]]) -> None:
        self._fetch = fetch
        self._names: list[str] = []
        self._at = float("-inf")
        self._busy = threading.Lock()

    def get(self) -> list[str]:
        """Return the names. If fetching takes too long, return the previous ones; the next call has the new ones."""
        if time.monotonic() - self._at > FRESH:
            thread = threading.Thread(target=self._refresh, daemon=True)
            thread.start()
            thread.join(PATIENCE)
        return self._names

    def _refresh(self) -> None:
        """Fetch the names, unless another thread is fetching them."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            self._names = self._fetch()
            self._at = time.monotonic()
        except LmvpError:
            self._at = time.monotonic()  # do not send another request to a failing server with each key
        finally:
            self._busy.release()


def candidates(text: str, variables: Iterable[str], names: Callable[[], list[str]]) -> list[str]:
    """Return the completions of the last word of a line.

    Parameters
    ----------
    text : str
        The line after `%lmvp`, up to the cursor.
    variables : iterable of str
        The names of the variables of the notebook.
    names : callable
        Returns the names on the server, like `known_names`.

    Examples
    --------
    >>> candidates("pu", [], list)
    ['push', 'pull']
    >>> candidates("push digits/mlp mo", ["model", "x"], list)
    ['model']
    """
    words = text.split()
    word = "" if not text or text[-1].isspace() else words.pop()
    found = _for_verb(words, word, variables, names) if words else [*(verb.name for verb in verbs_of(NOTEBOOK)), "help"]
    return [name for name in found if name.startswith(word)]


def _for_verb(words: list[str], word: str, variables: Iterable[str], names: Callable[[], list[str]]) -> list[str]:
    """Return the possible values of the next word after a verb and its arguments."""
    if words == ["help"]:
        return [verb.name for verb in verbs_of(NOTEBOOK)]
    verb = next((verb for verb in verbs_of(NOTEBOOK) if verb.name == words[0]), None)
    if verb is None:
        return []
    if word.startswith("-"):
        mine = [argument for argument in verb.arguments if argument.only in (None, NOTEBOOK)]
        return [*(flag for argument in mine for flag in argument.flags if flag.startswith("--")), "--help"]
    expected = _expected(verb, words[1:])
    if expected in _VARIABLES:
        return [name for name in variables if not name.startswith("_")]
    return names_for(verb.name, expected, names)


def _expected(verb: Verb, words: list[str]) -> str | None:
    """Return the name of the argument that the next word is; None if the verb takes no further argument."""
    flags = {flag: argument for argument in verb.arguments for flag in argument.flags if flag.startswith("-")}
    positional = [argument.flags[0] for argument in verb.arguments if not argument.flags[0].startswith("-")]
    waiting: Argument | None = None
    for word in words:
        if waiting is not None:
            waiting = None
        elif word in flags:
            waiting = flags[word] if flags[word].settings.get("action") != "store_true" else None
        elif positional:
            positional.pop(0)
    if waiting is not None:
        return waiting.flags[-1].lstrip("-")
    return positional[0] if positional else None


def install(ip: Any) -> None:
    """Register the completion with a shell."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    names = Names(known_names)

    @context_matcher(identifier="lmvp.magic", priority=100)  # type: ignore[untyped-decorator]
    def matcher(context: Any) -> dict[str, Any]:
        line = context.full_text.split("\n")[context.cursor_line][: context.cursor_position]
        found = _LINE.search(line)
        if not found:
            return {"completions": []}
        text = found[1]
        word = "" if not text or text[-1].isspace() else text.split()[-1]
        completions = [SimpleCompletion(text=name, type="lmvp") for name in candidates(text, ip.user_ns, names.get)]
        return {"completions": completions, "suppress": bool(completions), "matched_fragment": word}

    uninstall(ip)  # `%reload_ext` must not register it twice
    ip.Completer.custom_matchers.append(matcher)


def uninstall(ip: Any) -> None:
    """Undo `install`."""
    matchers = ip.Completer.custom_matchers
    matchers[:] = [one for one in matchers if getattr(one, "matcher_identifier", "") != "lmvp.magic"]
