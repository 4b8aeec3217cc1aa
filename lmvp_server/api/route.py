"""Declarations of the routes of the API.

A handler class declares its path and its methods once: `class ModelHandler(Handler, path=…, routes=(Route(…), …))`. The
limits of the handler, the methods of plain routes, the OpenAPI document and the reference in docs/api.md come from the
declaration. `tests/api/test_roles.py` has the expected permission of each route and is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from types import SimpleNamespace
from typing import Any, TypeAlias

from lmvp_server.api.query import CURSOR, LIMIT, Parameter
from lmvp_server.services import Services
from lmvp_server.services.access import Caller

ANYONE = "anyone"
"""The permission of routes that need no token."""
JSON_LIMIT = 1 << 20
"""Maximum size of a JSON body in bytes, unless a route sets another limit."""


OnProgress: TypeAlias = Callable[[int, int], None]
"""A function that gets the finished and the total amount of work."""


class Given(SimpleNamespace):
    """The decoded input of a request: the parts of the path, `body`, the query parameters by name, and `page`."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the route declares no {name!r}")


class Cost(Enum):
    """The threads in which a route runs, by the name of the method of `Handler`."""

    SHORT = "run"
    """One record or one short list, independent of the amount of stored data."""
    PUBLIC = "run_public"
    """Costly only for callers without an account; cancelled when the client disconnects."""
    LONG = "run_long"
    """Read-only work that grows with the stored data."""
    COSTLY = "run_costly"
    """CPU-intensive work."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method of a path.

    Attributes
    ----------
    method : str
        The HTTP method in upper case.
    summary : str
        One sentence for the documents.
    response : type or None
        A struct, `bytes`, or None for a response without a body.
    right : str
        The permission that the method needs: a right of `lmvp_server.services.access`, or `ANYONE`.
    note : str
        Further sentences for docs/api.md: conditions, limits, and the meaning of particular errors.
    request : type or None
        A struct or `bytes`.
    status : int
        The status of a successful response.
    many : bool
        Whether the response is a page of a list.
    is_body_required : bool
        Whether a request without a body is invalid.
    query : tuple of Parameter
        The query parameters.
    public : bool
        Whether the method needs no token if the project is public.
    admission : str or None
        The right that is checked before the body is read. Default: `right` for methods with a body.
    creates_project : bool
        Whether the method can create the project of the path. It then needs only the right to create projects.
    body_limit : int
        Maximum size of the body in bytes.
    errors : tuple of int
        Error statuses besides those that follow from the declaration.
    cost, filtered_cost : Cost
        The threads of a plain route, and those of a request with query parameters other than the page.
    call : callable, optional
        The service call of a plain route.
    slow_call : callable, optional
        The same for long work, which also gets a function to report its progress. The response consists of JSON lines:
        progress, then the result or an error (`Handler.answer_slowly`). A route with neither has a method of its own.
    """

    method: str
    summary: str
    response: Any
    _: KW_ONLY
    right: str
    note: str = ""
    request: Any = None
    status: int = 200
    many: bool = False
    is_body_required: bool = True
    query: tuple[Parameter[Any], ...] = ()
    public: bool = False
    admission: str | None = None
    creates_project: bool = False
    body_limit: int = JSON_LIMIT
    errors: tuple[int, ...] = ()
    cost: Cost = Cost.SHORT
    filtered_cost: Cost | None = None
    call: Callable[[Services, Caller, Given], Any] | None = None
    slow_call: Callable[[Services, Caller, Given, OnProgress], Any] | None = None

    @property
    def admitted_by(self) -> str:
        """The right that is checked before the body is read; empty if there is no check."""
        if self.admission is not None:
            return self.admission
        return self.right if self.request is not None and self.right != ANYONE else ""

    def cost_of(self, given: Given) -> Cost:
        """Return the threads for a request."""
        if self.filtered_cost is None:
            return self.cost
        filters = (parameter for parameter in self.query if parameter is not LIMIT and parameter is not CURSOR)
        return self.filtered_cost if any(getattr(given, each.name) for each in filters) else self.cost


def names_in(path: str) -> list[str]:
    """Return the names of the parameters of a path.

    Examples
    --------
    >>> names_in("/projects/{project}/runs/{run}")
    ['project', 'run']
    """
    return re.findall(r"{(\w+)}", path)


def pattern_of(path: str) -> str:
    """Return the pattern of a path for Tornado. Only `path`, the path of a file, can contain slashes.

    Examples
    --------
    >>> pattern_of("/projects/{project}/files/{path}")
    '/projects/([^/]+)/files/(.+)'
    """
    return re.sub(r"{(\w+)}", lambda found: "(.+)" if found[1] == "path" else "([^/]+)", path)
