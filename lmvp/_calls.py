"""Functions that create a client for each call; the public functions of `lmvp` are built from them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from lmvp.client.models import Client


class ClientPerCall:
    """Each method of `Client` as a function that creates a new client for every call.

    Parameters
    ----------
    public : mapping of str to object
        The names under which the functions are public, for error messages.

    Examples
    --------
    >>> ClientPerCall({}).pull.__name__
    'pull'
    """

    def __init__(self, public: Mapping[str, Any]) -> None:
        self._public = public

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(Client, name)
        # `help`, completion and type stubs must show the signature without `self`.
        whole = inspect.signature(method)
        signature = whole.replace(parameters=list(whole.parameters.values())[1:])

        @functools.wraps(method)
        def call(*args: Any, **options: Any) -> Any:
            # Python's own message would name the method and count `self`: "Client.update() takes 3 positional …".
            try:
                signature.bind(*args, **options)
            except TypeError as error:
                names = [each for each in self._public["__all__"] if self._public.get(each) is call]
                raise TypeError(f"{' or '.join(f'lmvp.{each}()' for each in names)}: {error}") from None
            return method(Client(), *args, **options)

        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__module__, call.__name__, call.__qualname__ = "lmvp", name, name
        return call
