"""Everything that can go wrong, as one tree.

::

    LmvpError
    ├── UserError                    the caller can mend it: shown without a traceback
    │   ├── InvalidName              ValueError       a name, alias or path breaks its rule
    │   ├── InvalidReference         ValueError       not `[project/]model[@revision]`
    │   ├── InvalidArgument          ValueError       a metric, param, tag or option is not what it must be
    │   │   └── ProtectedAlias                        and `yes` is missing, which confirms a move
    │   ├── InvalidRequest           ValueError       the server cannot read what it was sent
    │   ├── InvalidManifest          ValueError       a manifest contradicts itself or the rules
    │   ├── NotFound                 LookupError      no such project, model, version, alias, file
    │   │   └── RunRemoved                            and the run was removed, for a while or for good
    │   ├── AlreadyExists            ValueError       the name is taken
    │   ├── Conflict                 RuntimeError     somebody else was first
    │   ├── MissingChunks            RuntimeError     a push was committed before all its bytes had come
    │   ├── NotAuthenticated         PermissionError  no token, or a wrong one
    │   ├── AccessDenied             PermissionError  a token without the right
    │   │   └── ProofRequired                         and the current password or a recent sign-in is missing
    │   ├── AuthorizationPending     RuntimeError     nobody has decided yet about a login by a code
    │   │   └── SlowDown                              and it was asked for too often
    │   ├── ExpiredCode              RuntimeError     a login by a code came too late
    │   ├── TooManyRequests          RuntimeError     an address asks too often
    │   ├── TooLarge                 ValueError       a body, a manifest or a path is over its limit
    │   ├── UnknownFormat            TypeError        no format knows how to keep this object
    │   ├── Untrusted                PermissionError  loading would run code of a class nobody vouched for
    │   ├── Mismatch                 ValueError       `into=` and the version differ in names, shapes or dtypes
    │   ├── DamagedFile              ValueError       a file is not what its name says
    │   ├── FileChanged              OSError          a file vanished or changed while it was pushed
    │   ├── StorageFull              OSError          no room on the disk
    │   ├── StorageReadOnly          OSError          no right to write there
    │   ├── StorageFailed            OSError          the disk reports an error, or no file can be opened
    │   ├── MissingDependency        ImportError      an optional package is not installed
    │   └── ServerUnavailable        ConnectionError  no server answers, or it is not an LMVP server
    │       └── ServerMismatch                        the server speaks another version of the API
    ├── IntegrityError               ValueError       bytes do not match their digest
    └── ServerError                  RuntimeError     a fault inside the server: our bug

Each class doubles as the builtin that a newcomer would catch. `code` is its name on the wire, `http_status` what
the server answers, `exit_code` what the shell command ends with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from lmvp import hints

# Control characters except tab and newline, marks that reorder text, and halves of surrogate pairs. Messages contain
# names and texts of other people and servers, which must not drive the terminal that shows them.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


class LmvpError(Exception):
    r"""The root: `except lmvp.LmvpError` catches all that LMVP raises.

    Parameters
    ----------
    message : str
        What happened, naming the thing and the rule.
    hint : str, optional
        The solution. It names commands as the shell takes them, in backticks; `str` translates them for the caller.

    Attributes
    ----------
    caller : str, optional
        The form of commands in `str`: `"shell"`, `"magic"` or `"python"`. None: the form for this process.

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
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(cls: type[LmvpError], message: str, hint: str | None) -> LmvpError:
    return cls(message, hint=hint)


class UserError(LmvpError):
    """A mistake that the caller can mend; notebooks show the message alone, without a traceback."""

    code = "bad_request"
    http_status = 400
    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """IPython prints these lines instead of a traceback; `%debug` still has the real one."""
        return f"{type(self).__name__}: {self}".split("\n")


class InvalidName(UserError, ValueError):
    """A name breaks its rule."""

    code = "invalid_name"


class InvalidReference(UserError, ValueError):
    """A text is not a reference to a model or a version."""

    code = "invalid_reference"


class InvalidArgument(UserError, ValueError):
    """A metric, a param, a tag or an option is not what it must be."""

    code = "invalid_argument"


class ProtectedAlias(InvalidArgument):
    """The move of a protected alias is not confirmed; nothing has changed."""

    code = "protected_alias"
    http_status = 409


class InvalidRequest(UserError, ValueError):
    """The server cannot read what it was sent."""

    code = "invalid_request"


class InvalidManifest(UserError, ValueError):
    """A manifest contradicts itself or the rules of the format."""

    code = "invalid_manifest"
    http_status = 422


class NotFound(UserError, LookupError):
    """No such project, model, version, alias or file."""

    code = "not_found"
    http_status = 404
    exit_code = 3


class RunRemoved(NotFound):
    """The run was removed by a maintainer; `lmvp undelete` may restore it."""

    code = "run_removed"


class AlreadyExists(UserError, ValueError):
    """The name is taken."""

    code = "already_exists"
    http_status = 409
    exit_code = 4


class Conflict(UserError, RuntimeError):
    """Somebody else was first."""

    code = "conflict"
    http_status = 409
    exit_code = 4


class MissingChunks(UserError, RuntimeError):
    """A push was committed before all its bytes had come; `missing` names the chunks."""

    code = "missing_chunks"
    http_status = 422
    exit_code = 4
    missing: Sequence[str] = ()


class NotAuthenticated(UserError, PermissionError):
    """No token, or one that the server does not know."""

    code = "not_authenticated"
    http_status = 401
    exit_code = 5


class AccessDenied(UserError, PermissionError):
    """The token is good, the right is missing."""

    code = "access_denied"
    http_status = 403
    exit_code = 5


class ProofRequired(AccessDenied):
    """A change of an account needs the caller's current password, or a recent sign-in to the console."""

    code = "proof_required"


class AuthorizationPending(UserError, RuntimeError):
    """Nobody has decided yet about a login by a code."""

    code = "authorization_pending"


class SlowDown(AuthorizationPending):
    """Nobody has decided yet, and it was asked for too often: five more seconds between two questions."""

    code = "slow_down"


class ExpiredCode(UserError, RuntimeError):
    """A login by a code came too late, or was used before."""

    code = "expired_token"


class TooManyRequests(UserError, RuntimeError):
    """A client asks too often; `retry_after` is the number of seconds to wait, if the server states it."""

    code = "too_many_requests"
    http_status = 429
    retry_after: int | None = None


class TooLarge(UserError, ValueError):
    """Something is over its limit."""

    code = "too_large"
    http_status = 413


class UnknownFormat(UserError, TypeError):
    """No format knows how to keep this object."""

    code = "unknown_format"


class Untrusted(UserError, PermissionError):
    """Loading would run code of a class that nobody vouched for."""

    code = "untrusted"
    exit_code = 5


class Mismatch(UserError, ValueError):
    """`into=` and the version differ in names, shapes or dtypes."""

    code = "mismatch"


class DamagedFile(UserError, ValueError):
    """A file is not what its name says."""

    code = "damaged_file"


class FileChanged(UserError, OSError):
    """A file vanished or changed while it was pushed."""

    code = "file_changed"
    exit_code = 6


class StorageFull(UserError, OSError):
    """No room on the disk."""

    code = "storage_full"
    http_status = 507
    exit_code = 6


class StorageReadOnly(UserError, OSError):
    """No right to write there."""

    code = "storage_read_only"
    http_status = 507
    exit_code = 6


class StorageFailed(UserError, OSError):
    """The disk reports an error, or the system has no resources to open a file."""

    code = "storage_failed"
    http_status = 503
    exit_code = 6


class MissingDependency(UserError, ImportError):
    """An optional package is not installed."""

    code = "missing_dependency"
    exit_code = 7


class ServerUnavailable(UserError, ConnectionError):
    """No server answers there, or what answers is not an LMVP server."""

    code = "server_unavailable"
    http_status = 503
    exit_code = 8


class ServerMismatch(ServerUnavailable):
    """The server speaks another version of the API."""

    code = "server_mismatch"


class IntegrityError(LmvpError, ValueError):
    """Bytes do not match their digest; they were not used."""

    code = "integrity"
    http_status = 422
    exit_code = 9


class ServerError(LmvpError, RuntimeError):
    """A fault inside the server: a bug of ours, never of the caller."""

    code = "server_error"


def _subclasses(cls: type[LmvpError]) -> list[type[LmvpError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in _subclasses(child))]


BY_CODE: dict[str, type[LmvpError]] = {cls.code: cls for cls in _subclasses(LmvpError)}
"""Error class by its `code` on the wire."""
