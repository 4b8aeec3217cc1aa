"""`python -m lmvp_server`: run a server in the foreground, or as a detached process for `lmvp.local`."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from lmvp_server.app import App
    from lmvp_server.settings import Provider


_MOST_DAYS, _MOST_PUSHES = 36_500, 1_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is stopped; return the exit code."""
    options = _parser().parse_args(argv)
    ready = _detach() if options.detach else None

    from lmvp.core import server_file
    from lmvp_server import app
    from lmvp_server.services.push_quota import PushLimits
    from lmvp_server.services.webhook_allowlist import WebhookAllowlist
    from lmvp_server.settings import Settings, checked_public_url

    settings = Settings(
        options.data or server_file.data_home(),
        options.host,
        options.port,
        public_url=options.public_url and checked_public_url(options.public_url),
        embedded=options.embedded,
        idle_seconds=options.idle,
        openid=_provider(options),
        webhook_to=WebhookAllowlist.parse(options.webhook_to),
        keep_removed=timedelta(days=options.keep_removed),
        push_limits=PushLimits(options.open_pushes, options.open_push_bytes),
    )
    return app.run(settings, ready or partial(greet, json=options.json, quiet=options.quiet))


def greet(app: App, *, json: bool = False, quiet: bool = False) -> None:
    """Print how to connect to a server in the foreground: the path of the token file, not the token.

    Parameters
    ----------
    json : bool, default False
        Print one JSON object on one line instead.
    quiet : bool, default False
        Print only the link that makes the first admin, because the server shows it once.
    """
    import lmvp

    token = app.settings.data / "token"
    others = [] if app.settings.embedded else addresses(app.settings.host, app.url)
    setup = f"{app.settings.public_url or app.url}/join?code={app.setup}" if app.setup else ""
    if json:
        about = {"version": lmvp.__version__, "data": str(app.settings.data), "url": app.url, "addresses": others}
        about |= {"token_file": str(token), "setup": setup}
        print(msgspec.json.encode(about).decode(), flush=True)
        return
    if quiet:
        if setup:
            print(setup, flush=True)
        return
    print(f"LMVP {lmvp.__version__} serves {app.settings.data} at {app.url}")
    if others:
        print(f"other machines reach it at {' or '.join(others)}")
    if not app.settings.embedded:
        print(f'connect with: LMVP_URL={app.url} LMVP_TOKEN="$(cat {token})"')
        print(f"or store that token: lmvp login {app.url} --with-token")
    if setup:
        print(f"make its first admin, within a day: {setup}")
    print("Ctrl-C ends it", flush=True)


def addresses(host: str, url: str) -> list[str]:
    """Return the URLs at which other machines reach a server that listens on all addresses; none for other servers.

    Parameters
    ----------
    host : str
        The address of `--host`.
    url : str
        The URL of the server on this machine.
    """
    if host not in ("", "0.0.0.0", "::"):  # noqa: S104 - a comparison
        return []
    port = url.rpartition(":")[2]
    found = [socket.gethostname()]
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # `connect` of UDP sends no packet; it only selects the address of the default route. 192.0.2.1 is reserved
        # for documentation (RFC 5737).
        probe.connect(("192.0.2.1", 9))
        found.append(probe.getsockname()[0])
    return [f"http://{name}:{port}" for name in dict.fromkeys(found) if name and name not in ("localhost", "127.0.0.1")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("lmvp server", description="Serve a data folder over HTTP.")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="data folder (default: LMVP_HOME, or the folder for your user data)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on; 0 selects a free port (default: %(default)s)"
    )
    parser.add_argument(
        "--public-url", default="", metavar="URL", help="URL of the server for its users, if it runs behind a proxy"
    )
    parser.add_argument(
        "--openid", default="", metavar="ISSUER", help="allow logins with this OpenID Connect provider (default: none)"
    )
    parser.add_argument("--openid-client", default="", metavar="ID", help="client id of this server at the provider")
    parser.add_argument("--openid-name", default="", metavar="NAME", help="name of the provider on the login button")
    parser.add_argument(
        "--openid-sign-up", action="store_true",
        help="create an account for each user of the provider at the first login, without an invitation",
    )  # fmt: skip
    parser.add_argument(
        "--webhook-to", action="append", default=[], metavar="HOST",
        help="host, *.domain or network that webhooks can send to; can be repeated (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-removed", type=_days, default=7.0, metavar="DAYS",
        help="days for which removed objects can be restored; 0 deletes them immediately (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--open-pushes", type=_count, default=200, metavar="NUMBER",
        help="maximum number of open pushes of one account (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--open-push-bytes", type=_size, default="1TiB", metavar="SIZE",
        help="maximum size of the open pushes of one account, for example 500GB (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--idle", type=float, metavar="SECONDS", help="stop after this time without a request (default: never)"
    )
    parser.add_argument("--json", action="store_true", help="print the addresses of the server as JSON on one line")
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="print no messages, only the link that makes the first admin"
    )
    parser.add_argument("--embedded", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--detach", action="store_true", help=argparse.SUPPRESS)
    return parser


def _provider(options: argparse.Namespace) -> Provider | None:
    """Return the OpenID provider of the options. Its secret is read only from the environment, not from an option."""
    if not options.openid:
        return None
    from lmvp_server.settings import Provider

    secret = os.environ.get("LMVP_OPENID_SECRET", "")
    return Provider(options.openid, options.openid_client, secret, options.openid_name, options.openid_sign_up)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST_PUSHES:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number between 1 and {_MOST_PUSHES:,}")
    return int(text)


def _size(text: str) -> int:
    from lmvp.core.validation import size_of
    from lmvp.errors import InvalidArgument

    try:
        size = size_of(text)
    except InvalidArgument:
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a size, such as 500GB or 2TiB")
    return size


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days <= _MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {_MOST_DAYS:,} days")
    return days


def _detach() -> Callable[[App], None]:
    """Continue in a forked child process. The parent exits when the child is ready or has failed.

    The exit code of the parent states the result. It forks before a file is opened or a thread is started, because a
    fork copies neither locks nor threads safely. The process that started the parent has no child process left to wait
    for.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        os._exit(0 if os.read(reading, 1) else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or 1)
    os.close(reading)
    return lambda _: _tell(writing)


def _tell(writing: int) -> None:
    try:
        os.write(writing, b"+")
    except BrokenPipeError:  # the parent process has exited
        return
    finally:
        os.close(writing)


if __name__ == "__main__":
    sys.exit(main())
