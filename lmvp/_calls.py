"""Functions that create a client for each call; the public functions of `lmvp` are built from them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from lmvp.client.models import Client


class ClientPerCall:
    """Each method of `Client` as a function that creates a new client for every call.

    Examples
    --------
    >>> ClientPerCall().pull.__name__
    'pull'
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(Client, name)

        @functools.wraps(method)
        def call(*args: Any, **options: Any) -> Any:
            return method(Client(), *args, **options)

        # `help`, completion and type stubs must show the signature without `self`.
        signature = inspect.signature(method)
        call.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
        call.__module__, call.__name__, call.__qualname__ = "lmvp", name, name
        return call
