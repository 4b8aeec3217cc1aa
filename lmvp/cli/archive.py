"""Verbs for exports, imports and backups."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from lmvp.cli.tables import Line
from lmvp.cli.verbs import Host, confirmed
from lmvp.client.models import Client
from lmvp.core import number_format


def export(options: Namespace, _host: object) -> Any:
    """Write a model with its history to a folder or a .tar file."""
    how = {"versions": options.versions, "force": options.force, "progress": _progress(options)}
    done = Client().export_model(options.model, options.to, **how)
    kept = f" ({done.kept} there already)" if done.kept else ""
    versions = number_format.plural(done.versions, "version")
    return Line(f"{versions} in {done.path}{kept}, {number_format.size(done.bytes)} written", done)


def import_(options: Namespace, host: Host) -> Any:
    """Import a model from an export."""
    how = {"progress": _progress(options)}
    client = Client()
    # An import can move a protected alias of an existing model, which needs a confirmation.
    done = confirmed(
        lambda yes: client.import_model(options.source, options.model, yes=yes, **how), host, yes=options.yes
    )
    kept = f" ({done.kept} there already)" if done.kept else ""
    return Line(
        f"{done.name}: {number_format.plural(done.versions, 'version')}{kept}, {number_format.size(done.bytes)} sent",
        done,
    )


def backup(options: Namespace, _host: object) -> Any:
    """Back up the whole server to a folder."""
    done = Client().back_up(options.to, quick=options.quick, progress=_progress(options))
    versions = number_format.versions_with_trash(done.versions, done.removed)
    what = f"{number_format.plural(done.projects, 'project')}, {versions}"
    chunks = number_format.plural(done.chunks, "chunk")
    return Line(
        f"{what}, {chunks} in {done.path}; {done.copied} copied, {number_format.size(done.written)} written", done
    )


def _progress(options: Namespace) -> bool | None:
    """Return False for `--no-progress`; None shows a bar only on a terminal."""
    return False if options.no_progress else None
