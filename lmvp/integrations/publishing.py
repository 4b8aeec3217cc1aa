"""Publication of versions during a training, which must continue if the server is unreachable."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from lmvp.core.schemas import Version
from lmvp.errors import LmvpError, ServerUnavailable
from lmvp.hints import translated


def publish(update: Callable[[], Version], what: str, *, strict: bool) -> Version | None:
    """Publish a version; on an error, warn and continue.

    Parameters
    ----------
    update : callable
        Publishes the version.
    what : str
        The name of the version in the warning, and the command that publishes it later.
    strict : bool
        Raise the error instead of the warning.

    Returns
    -------
    Version or None
        None if the version was not published.

    Raises
    ------
    LmvpError
        If `strict` is true and the version cannot be published.
    """
    try:
        return update()
    except ServerUnavailable as error:
        if strict:
            raise
        warnings.warn(translated(f"not published: {what} ({error.message})"), stacklevel=3)
    except LmvpError as error:
        if strict:
            raise
        warnings.warn(translated(f"not published: {what}: {error}"), stacklevel=3)
    return None


def plain_params(values: Any) -> dict[str, Any]:
    """Return hyperparameters as a nested dict. They can be a Namespace, a config object or a mapping.

    Examples
    --------
    >>> from argparse import Namespace
    >>> plain_params(Namespace(lr=0.1, model={"layers": 3}, data=[1, 2]))
    {'lr': 0.1, 'model': {'layers': 3}, 'data': '[1, 2]'}
    """
    from collections.abc import Mapping

    given = values if isinstance(values, Mapping) else vars(values)
    return {
        str(key): plain_params(value) if isinstance(value, Mapping) else _scalar(value) for key, value in given.items()
    }


def _scalar(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)[:1000]
