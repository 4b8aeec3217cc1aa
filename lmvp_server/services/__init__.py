"""Use cases and permissions of the server, one module per noun. These modules do not use HTTP.

`Services` builds all of them over one set of stores. Each use case takes the caller and checks a right first; see
`lmvp_server.services.access`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from lmvp_server.services import grants
from lmvp_server.services.aliases import Aliases
from lmvp_server.services.audit import Audit
from lmvp_server.services.backups import Backups
from lmvp_server.services.catalog import Catalog
from lmvp_server.services.chunk_reader import ChunkReader
from lmvp_server.services.compaction import Compaction
from lmvp_server.services.contributions import Contributions
from lmvp_server.services.devices import Devices
from lmvp_server.services.files import Files
from lmvp_server.services.forks import Forks
from lmvp_server.services.fsck import Fsck
from lmvp_server.services.gc import Leases, Sweeping
from lmvp_server.services.histograms import TensorHistograms
from lmvp_server.services.identities import Identities
from lmvp_server.services.ingest import Intake
from lmvp_server.services.invitations import Invitations
from lmvp_server.services.layers import LayerStrips
from lmvp_server.services.maintenance import Upkeep
from lmvp_server.services.members import Members, ProjectRoles
from lmvp_server.services.metrics import Metrics
from lmvp_server.services.passwords import Passwords
from lmvp_server.services.push_quota import PushLimits
from lmvp_server.services.pushes import Pushes
from lmvp_server.services.retention import Retention
from lmvp_server.services.runs import Runs
from lmvp_server.services.search import Search
from lmvp_server.services.sessions import Credentials, Sessions
from lmvp_server.services.signin_links import SignInLinks
from lmvp_server.services.tensors import TensorChanges, TensorDigests
from lmvp_server.services.tokens import Tokens
from lmvp_server.services.trash import Trash
from lmvp_server.services.usage import Usage
from lmvp_server.services.users import Users
from lmvp_server.services.versions import Versions
from lmvp_server.services.webhook_allowlist import WebhookAllowlist
from lmvp_server.services.webhooks import Webhooks
from lmvp_server.stores.base import ChunkStore, RecordStore, SeriesStore

INDEXES = {
    "projects": ("key",),
    "models": ("key",),
    "versions": ("model", "digest", "push", "run"),
    "deleted_contributions": ("model", "push"),
    "aliases": ("model",),
    "runs": ("key", "phase"),
    "users": ("key",),
    "members": ("project", "subject"),
    "tokens": ("user",),
    "sessions": ("user",),
    "invitations": ("project", "user"),
    "webhooks": ("project",),
    "identities": ("user",),
    "belongings": ("user", "group"),
}
"""The indexed fields of each table. `RecordStore.find` scans the table for any other field."""

_NOWHERE, _PUSH_LIMITS = WebhookAllowlist(), PushLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All use cases over one set of stores."""

    records: RecordStore
    chunks: ChunkStore
    series: SeriesStore
    catalog: Catalog
    versions: Versions
    aliases: Aliases
    pushes: Pushes
    layers: LayerStrips
    histograms: TensorHistograms
    files: Files
    audit: Audit
    tensor_changes: TensorChanges
    upkeep: Upkeep
    trash: Trash
    retention: Retention
    usage: Usage
    fsck: Fsck
    backups: Backups
    runs: Runs
    intake: Intake
    metrics: Metrics
    tokens: Tokens
    devices: Devices
    users: Users
    members: Members
    roles: ProjectRoles
    sessions: Sessions
    signin_links: SignInLinks
    passwords: Passwords
    credentials: Credentials
    invitations: Invitations
    contributions: Contributions
    webhooks: Webhooks
    forks: Forks
    identities: Identities
    search: Search

    @classmethod
    def over(
        cls,
        records: RecordStore,
        chunks: ChunkStore,
        series: SeriesStore,
        *,
        shared: bool = False,
        keep_removed: timedelta = timedelta(0),
        allowlist: WebhookAllowlist = _NOWHERE,
        push_limits: PushLimits = _PUSH_LIMITS,
    ) -> Services:
        """Build the services over three stores; see `open` for the parameters."""
        # Services take each other as arguments, so the order follows their dependencies.
        catalog = Catalog(records)
        runs = Runs(records, series, catalog, shared=shared, keep=keep_removed)
        versions = Versions(records, chunks, catalog)
        chunk_reader = ChunkReader(chunks)
        tensor_changes = TensorChanges(chunks, catalog, versions, chunk_reader)
        compaction = Compaction(records, chunks, versions, chunk_reader, tensor_changes)
        leases = Leases()
        audit = Audit(records, catalog)
        passwords, roles = Passwords(records), ProjectRoles(records)
        users = Users(records, passwords)
        tokens = Tokens(records, catalog, users)
        sessions = Sessions(records, users, tokens, passwords)
        credentials = Credentials(users, tokens, sessions, roles)
        invitations = Invitations(records, catalog, users, roles)
        upkeep = Upkeep(records, chunks, compaction, Sweeping(records, chunks, chunk_reader, leases), leases)
        trash = Trash(records, series, catalog, versions, upkeep, keep_removed)
        digests = TensorDigests(chunk_reader)  # shared: it remembers the digests that it has verified
        pushes = Pushes(
            records, chunks, catalog, versions, chunk_reader, runs, digests, shared=shared, limits=push_limits
        )
        return cls(
            records=records,
            chunks=chunks,
            series=series,
            catalog=catalog,
            versions=versions,
            aliases=Aliases(records, catalog, versions),
            pushes=pushes,
            layers=LayerStrips(catalog, versions, tensor_changes),
            histograms=TensorHistograms(catalog, versions, chunk_reader),
            files=Files(chunks, versions, chunk_reader),
            audit=audit,
            tensor_changes=tensor_changes,
            upkeep=upkeep,
            trash=trash,
            retention=Retention(records, catalog, versions, trash, upkeep),
            usage=Usage(records, chunks, series, catalog),
            fsck=Fsck(records, chunks, series, chunk_reader, audit, digests),
            backups=Backups(records, chunks, series, chunk_reader, upkeep, leases),
            runs=runs,
            intake=Intake(records, series, catalog, runs),
            metrics=Metrics(series, catalog, runs),
            tokens=tokens,
            devices=Devices(records, tokens, credentials),
            users=users,
            members=Members(records, catalog, users),
            roles=roles,
            sessions=sessions,
            signin_links=SignInLinks(records, credentials, sessions),
            passwords=passwords,
            credentials=credentials,
            invitations=invitations,
            contributions=Contributions(records, catalog, versions, digests, keep_removed),
            webhooks=Webhooks(records, catalog, allowlist, users, roles),
            forks=Forks(records, chunks, catalog, versions, chunk_reader, upkeep, pushes, digests),
            identities=Identities(records, users, invitations, credentials),
            search=Search(records, catalog),
        )

    @classmethod
    def open(
        cls,
        data: Path,
        *,
        shared: bool = False,
        keep_removed: timedelta = timedelta(0),
        allowlist: WebhookAllowlist = _NOWHERE,
        push_limits: PushLimits = _PUSH_LIMITS,
    ) -> Services:
        """Open the stores of a data folder.

        This process must hold the lock of the folder.

        Parameters
        ----------
        data : Path
            The data folder.
        shared : bool, default False
            Whether several people use the server. If so, a push creates a model or project only on explicit request.
        keep_removed : timedelta, default 0
            How long removed objects stay in the trash. With 0, removing deletes them permanently at once.
        allowlist : WebhookAllowlist, optional
            The addresses that webhooks can call.
        push_limits : PushLimits, optional
            The limits of the open pushes of one account.

        Returns
        -------
        Services
            The use cases over the stores of the folder.
        """
        # Not at module level, so that `over` works with other stores without loading these.
        from lmvp_server.stores.local.chunks import FolderChunks
        from lmvp_server.stores.local.records import TinyDbRecords
        from lmvp_server.stores.local.series.folder import FolderSeries

        records = TinyDbRecords(data / "records", INDEXES)
        return cls.over(
            records,
            FolderChunks(data),
            FolderSeries(data),
            shared=shared,
            keep_removed=keep_removed,
            allowlist=allowlist,
            push_limits=push_limits,
        )

    def end_grants_without_holder(self) -> None:
        """End grants of an earlier release whose holder is missing or has lost the right to create them.

        Grants without a holder are logged, because an attacker can have created them.
        """
        grants.end_lost(self.records, "the server")
        self.tokens.warn_of_ended()
        self.sessions.end_without_holder()

    def tidy_up(self, go_on: Callable[[], bool]) -> None:
        """Run the maintenance that waits until the server is idle; stop as soon as `go_on` returns False."""
        self.passwords.report()
        # Deletion comes before compaction, which would otherwise encode chunks that are about to be deleted.
        self.retention.apply_rules(go_on)
        self.trash.purge(go_on)
        self.backups.forget_dead()  # before `settle_up`, which runs the deletions that these backups deferred
        self.upkeep.settle_up(go_on)
        self.upkeep.end_old_pushes(go_on)
        self.upkeep.tidy(go_on)
        self.runs.settle(go_on)

    def close(self) -> None:
        """Close the stores."""
        self.series.close()
        self.records.close()
