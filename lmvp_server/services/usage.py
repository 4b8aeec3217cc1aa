"""`lmvp du`: the size of versions, models and projects, logical and stored.

A chunk that several versions share counts for the oldest of them, and a chunk that a fork shares with its source counts
for the older project. So the parts add up to the total, and no byte counts twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lmvp_server.process import cancellation
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import REMOVED, SERVER, Catalog, every_project
from lmvp_server.services.chunk_reader import read_manifest
from lmvp_server.services.versions import name_of
from lmvp_server.stores.base import ChunkStore, Document, Record, RecordStore, SeriesStore


class Usage:
    """Use cases of disk usage. All sizes are in bytes."""

    def __init__(self, records: RecordStore, chunks: ChunkStore, series: SeriesStore, catalog: Catalog) -> None:
        self._records, self._chunks, self._series, self._catalog = records, chunks, series, catalog

    def of_server(self, caller: Caller) -> Document:
        """Return the usage of each project."""
        access.require(caller, access.ADMIN)
        projects = every_project(self._records)
        rows = [self._sum(_named(project), self._versions(project)) for project in projects]
        spaces = [self._space(project) for project in projects]
        totals = {kind: sum(space[kind] for space in spaces) for kind in spaces[0]} if spaces else self._sizes("none")
        totals["records"] += self._records.size(SERVER)
        return _answer("", rows, totals)

    def of_project(self, caller: Caller, project: str) -> Document:
        """Return the usage of each model of a project."""
        home = self._catalog.find_project(caller, project)
        versions = list(self._versions(home))
        rows = [
            self._sum(f"{home.data['name']}/{_named(model)}", (one for one in versions if one[0] == model.id))
            for model in [*self._records.find(home.id, "models"), *self._records.find(home.id, REMOVED)]
        ]
        return _answer(home.data["name"], rows, self._space(home))

    def of_model(self, caller: Caller, project: str, model: str) -> Document:
        """Return the usage of each version of a model, newest first."""
        place = self._catalog.find_model(caller, project, model)
        rows = [
            {"name": f"{place.reference}@{name}", "versions": 1, "logical": logical, "stored": stored}
            for model_id, name, logical, stored in self._versions(place.project)
            if model_id == place.model.id
        ]
        return _answer(place.reference, rows[::-1], self._space(place.project))

    def _versions(self, project: Record) -> Iterator[tuple[str, str, int, int]]:
        """Yield model, name (`v3`), logical and stored bytes of each version, oldest first."""
        counted: set[str] = set()
        older = self._older(project)
        for version in self._records.find(project.id, "versions"):
            cancellation.check()
            # Each chunk counts once, for the oldest version.
            chunks = self._chunks_of(project.id, version.data["digest"]) - counted
            counted |= chunks
            stored = sum(self._size(project.id, chunk, older) for chunk in chunks)
            # Proposed and removed versions have the id of their model with a suffix.
            model = version.data["model"].partition(":")[0]
            yield model, name_of(version), version.data["size"], stored

    @staticmethod
    def _sum(name: str, versions: Iterable[tuple[str, str, int, int]]) -> Document:
        sizes = [(logical, stored) for _, _, logical, stored in versions]
        logical, stored = sum(size[0] for size in sizes), sum(size[1] for size in sizes)
        return {"name": name, "versions": len(sizes), "logical": logical, "stored": stored}

    def _chunks_of(self, space: str, digest: str) -> set[str]:
        try:
            manifest = read_manifest(self._chunks, space, digest)
        except ValueError:  # missing or damaged: `fsck` reports it, and `du` shows the other sizes
            return set()
        return {chunk.id for file in manifest.files for chunk in file.chunks}

    def _size(self, space: str, chunk: str, older: Sequence[str]) -> int:
        """Return the bytes of a chunk that count for a project: 0 if an older project shares the chunk."""
        try:
            return 0 if self._chunks.sharers(space, chunk, older) else self._chunks.size(space, chunk)
        except KeyError:
            return 0

    def _older(self, project: Record) -> list[str]:
        """Return the projects for which shared chunks count instead."""
        return [each.id for each in every_project(self._records) if each.seq < project.seq]

    def _space(self, project: Record) -> dict[str, int]:
        return self._sizes(project.id, self._older(project))

    def _sizes(self, space: str, older: Sequence[str] = ()) -> dict[str, int]:
        series = sum(self._series.size(space, run) for run in self._series.runs(space))
        return {**self._chunks.usage(space, older), "series": series, "records": self._records.size(space)}


def _named(record: Record) -> str:
    """Return the name of a project or model, marked if it is in the trash."""
    return f"{record.data['name']} (removed)" if "removed" in record.data else str(record.data["name"])


def _answer(name: str, rows: list[Document], disk: dict[str, int]) -> Document:
    return {
        "name": name,
        "rows": rows,
        "logical": sum(row["logical"] for row in rows),
        "stored": sum(row["stored"] for row in rows),
        "disk": disk,
        "total": sum(disk.values()),
    }
