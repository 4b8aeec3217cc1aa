"""Publishing a version from within a training that must not fail for want of a server."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from lmvp.errors import LmvpError, ServerUnavailable
from lmvp.hints import translated
from lmvp.records import Version


def publish(update: Callable[[], Version], what: str, *, strict: bool) -> Version | None:
    """Publish a version; a server that is not there is told of, and training goes on.

    Parameters
    ----------
    what : str
        What to call it in the warning, with how to publish it later.
    strict : bool
        Raise all the same.

    Returns
    -------
    Version or None
        None where it was not published.
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
    """Return hyperparameters as a nested dict: of a Namespace, a config object, or a mapping.

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
