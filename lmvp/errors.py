"""Exceptions of LMVP.

All of them derive from `LmvpError`::

    LmvpError
    ├── UserError                    the caller can fix it; notebooks show it without a traceback
    │   ├── InvalidName              ValueError       a name, alias or path breaks its rule
    │   ├── InvalidReference         ValueError       not `[project/]model[@revision]`
    │   ├── InvalidArgument          ValueError       a metric, param, tag or option is invalid
    │   │   └── ProtectedAlias                        the move of a protected alias is not confirmed
    │   ├── InvalidRequest           ValueError       the server cannot parse the request
    │   ├── InvalidManifest          ValueError       a manifest breaks the rules of the format
    │   ├── NotFound                 LookupError      the project, model, version, alias, run or file does not exist
    │   │   └── RunRemoved                            the run is in the trash, or was deleted
    │   ├── AlreadyExists            ValueError       the name is taken
    │   ├── Conflict                 RuntimeError     the state on the server does not allow the change
    │   ├── MissingChunks            RuntimeError     chunks of a push are missing at its commit
    │   ├── NotAuthenticated         PermissionError  the token is missing or invalid
    │   ├── AccessDenied             PermissionError  the account or the token lacks the permission
    │   │   └── ProofRequired                         the current password or a recent sign-in is missing
    │   ├── AuthorizationPending     RuntimeError     a login with a device code is not decided yet
    │   │   └── SlowDown                              the client polls too often
    │   ├── ExpiredCode              RuntimeError     a device code expired or was already used
    │   ├── TooManyRequests          RuntimeError     a client exceeds the rate limit
    │   ├── TooLarge                 ValueError       a body, a manifest or a path exceeds its limit
    │   ├── UnknownFormat            TypeError        no format can store this object
    │   ├── Untrusted                PermissionError  loading would run code of a class that is not trusted
    │   ├── Mismatch                 ValueError       `into=` and the version differ in names, shapes or dtypes
    │   ├── DamagedFile              ValueError       the content of a file does not fit its type
    │   ├── FileChanged              OSError          a file was deleted or changed while it was pushed
    │   ├── StorageFull              OSError          the disk is full
    │   ├── StorageReadOnly          OSError          the folder is not writable
    │   ├── StorageFailed            OSError          the disk reports an error, or too many files are open
    │   ├── MissingDependency        ImportError      an optional package is not installed
    │   └── ServerUnavailable        ConnectionError  the server does not answer, or is not an LMVP server
    │       └── ServerMismatch                        the server has another version of the API
    ├── IntegrityError               ValueError       bytes do not match their digest
    └── ServerError                  RuntimeError     a bug in the server

Each class also derives from the builtin exception in the second column, so `except ValueError` catches it too. `code`
is the name of the error in the HTTP API, `http_status` the status of the response, and `exit_code` the exit status of
the `lmvp` command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from lmvp import hints

# Control characters except tab and newline, characters that change the direction of text, line separators, lone
# surrogates and the byte order mark. Messages contain names and texts of other users and servers. Escape sequences in
# them must not reach the terminal.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


class LmvpError(Exception):
    r"""Base class of all exceptions of LMVP.

    `except lmvp.LmvpError` catches every error that LMVP raises.

    Parameters
    ----------
    message : str
        The problem, with the object and the rule that it breaks.
    hint : str, optional
        The solution. Commands in it are written as shell commands in backticks. `str` translates them to Python calls
        or magics for the caller.

    Attributes
    ----------
    caller : str, optional
        The form of commands in `str`: `"shell"`, `"magic"` or `"python"`. None: the form of this process.
    code : str
        The name of the error in the HTTP API.
    http_status : int
        The status of an HTTP response with this error.
    exit_code : int
        The exit status of the `lmvp` command after this error.

    Examples
    --------
    >>> print(LmvpError("no model 'mlp'", hint="did you mean 'mlp2'?"))
    no model 'mlp'
      hint: did you mean 'mlp2'?
    >>> print(LmvpError("no model 'm\x1b[31mlp'"))
    no model 'm�[31mlp'
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.caller: str | None = None

    def __str__(self) -> str:
        text = f"{self.message}\n  hint: {self.hint}" if self.hint else self.message
        text = hints.translated(text, self.caller or hints.caller())
        return _UNSAFE.sub("�", text)

    def __reduce__(self) -> tuple[Any, ...]:
        # The default passes `args` only, so an error of a worker process would lose its hint.
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(cls: type[LmvpError], message: str, hint: str | None) -> LmvpError:
    return cls(message, hint=hint)


class UserError(LmvpError):
    """An error that the caller can fix. Notebooks show only its message, without a traceback."""

    code = "bad_request"
    http_status = 400
    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython prints instead of a traceback; `%debug` still has the traceback."""
        return f"{type(self).__name__}: {self}".split("\n")


class InvalidName(UserError, ValueError):
    """A name, an alias or a path breaks its rule."""

    code = "invalid_name"


class InvalidReference(UserError, ValueError):
    """A text is not a valid reference to a model or a version."""

    code = "invalid_reference"


class InvalidArgument(UserError, ValueError):
    """A metric, a param, a tag or an option is invalid."""

    code = "invalid_argument"


class ProtectedAlias(InvalidArgument):
    """The move or removal of a protected alias is not confirmed by `yes`; nothing has changed."""

    code = "protected_alias"
    http_status = 409


class InvalidRequest(UserError, ValueError):
    """The server cannot parse the request."""

    code = "invalid_request"


class InvalidManifest(UserError, ValueError):
    """A manifest contradicts itself or breaks the rules of the format."""

    code = "invalid_manifest"
    http_status = 422


class NotFound(UserError, LookupError):
    """The project, model, version, alias, run or file does not exist."""

    code = "not_found"
    http_status = 404
    exit_code = 3


class RunRemoved(NotFound):
    """The run was removed by a maintainer. `lmvp undelete` can restore it until it is deleted permanently."""

    code = "run_removed"


class AlreadyExists(UserError, ValueError):
    """The name is taken."""

    code = "already_exists"
    http_status = 409
    exit_code = 4


class Conflict(UserError, RuntimeError):
    """The state on the server does not allow the change, often because another client changed it first."""

    code = "conflict"
    http_status = 409
    exit_code = 4


class MissingChunks(UserError, RuntimeError):
    """A push was committed before the server had all its chunks.

    Attributes
    ----------
    missing : sequence of str
        The digests of the missing chunks.
    """

    code = "missing_chunks"
    http_status = 422
    exit_code = 4
    missing: Sequence[str] = ()


class NotAuthenticated(UserError, PermissionError):
    """The token is missing, unknown to the server, or expired."""

    code = "not_authenticated"
    http_status = 401
    exit_code = 5


class AccessDenied(UserError, PermissionError):
    """The token is valid, but its account or its scope lacks the permission."""

    code = "access_denied"
    http_status = 403
    exit_code = 5


class ProofRequired(AccessDenied):
    """A change of an account requires the caller's current password, or a recent sign-in to the console."""

    code = "proof_required"


class AuthorizationPending(UserError, RuntimeError):
    """No user has approved or denied the login with a device code yet (RFC 8628, section 3.5)."""

    code = "authorization_pending"


class SlowDown(AuthorizationPending):
    """The client polls too often for a token; it must add five seconds to its interval (RFC 8628, section 3.5)."""

    code = "slow_down"


class ExpiredCode(UserError, RuntimeError):
    """The device code of a login expired, or was already used."""

    code = "expired_token"  # the name in RFC 8628, section 3.5


class TooManyRequests(UserError, RuntimeError):
    """The client exceeds the rate limit.

    Attributes
    ----------
    retry_after : int, optional
        Seconds to wait before the next request; None if the server does not state them.
    """

    code = "too_many_requests"
    http_status = 429
    retry_after: int | None = None


class TooLarge(UserError, ValueError):
    """A body, a manifest or a path exceeds its limit."""

    code = "too_large"
    http_status = 413


class UnknownFormat(UserError, TypeError):
    """No format can store this object."""

    code = "unknown_format"


class Untrusted(UserError, PermissionError):
    """Loading would run code of a class that is not trusted; `trust=` allows it."""

    code = "untrusted"
    exit_code = 5


class Mismatch(UserError, ValueError):
    """The object in `into=` and the version differ in names, shapes or dtypes; the object is unchanged."""

    code = "mismatch"


class DamagedFile(UserError, ValueError):
    """The content of a file is damaged, or does not fit its type."""

    code = "damaged_file"


class FileChanged(UserError, OSError):
    """A file was deleted or changed while it was pushed."""

    code = "file_changed"
    exit_code = 6


class StorageFull(UserError, OSError):
    """The disk is full, or the quota is used up."""

    code = "storage_full"
    http_status = 507
    exit_code = 6


class StorageReadOnly(UserError, OSError):
    """The folder or the file system is not writable."""

    code = "storage_read_only"
    http_status = 507
    exit_code = 6


class StorageFailed(UserError, OSError):
    """The disk reports an error, or the process cannot open more files. A later attempt can succeed."""

    code = "storage_failed"
    http_status = 503
    exit_code = 6


class MissingDependency(UserError, ImportError):
    """An optional package is not installed."""

    code = "missing_dependency"
    exit_code = 7


class ServerUnavailable(UserError, ConnectionError):
    """The server does not answer, or the response is not from an LMVP server."""

    code = "server_unavailable"
    http_status = 503
    exit_code = 8


class ServerMismatch(ServerUnavailable):
    """The server has another version of the API than this client."""

    code = "server_mismatch"


class IntegrityError(LmvpError, ValueError):
    """Bytes do not match their digest; LMVP did not use them."""

    code = "integrity"
    http_status = 422
    exit_code = 9


class ServerError(LmvpError, RuntimeError):
    """A bug in the server; the caller cannot fix it."""

    code = "server_error"


def _subclasses(cls: type[LmvpError]) -> list[type[LmvpError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in _subclasses(child))]


BY_CODE: dict[str, type[LmvpError]] = {cls.code: cls for cls in _subclasses(LmvpError)}
"""Error class by its `code` in the HTTP API."""
