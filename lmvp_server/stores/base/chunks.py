"""Interface of the stored bytes: chunks, manifests, notes and open pushes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


class ChunkStore(ABC):
    """Frames by chunk id, manifests by digest, and the bodies of open pushes, separate for each project.

    A frame is the header and the payload of `lmvp.core.chunk_frames`. It has the same bytes on disk and on the wire.
    """

    @abstractmethod
    def missing(self, project: str, ids: Iterable[str]) -> list[str]:
        """Return those of `ids` that the project does not have.

        Parameters
        ----------
        project : str
            The id of the project.
        ids : iterable of str
            Ids of chunks.

        Returns
        -------
        list of str
            The missing ids, in the given order.
        """

    @abstractmethod
    def put(self, project: str, chunk: str, pieces: Sequence[Buffer]) -> int:
        """Store one verified frame.

        If several calls store the same chunk, also concurrently, only one of them adds bytes. The content is durable on
        return, but the name is durable only after `settle`: one folder sync then covers all chunks of a push.

        Parameters
        ----------
        project, chunk : str
            The id of the project and the digest of the chunk.
        pieces : sequence of bytes-like
            The frame, as consecutive parts.

        Returns
        -------
        int
            The bytes added; 0 if the chunk existed.
        """

    @abstractmethod
    def settle(self, project: str, ids: Iterable[str]) -> None:
        """Make the names of these chunks durable.

        Parameters
        ----------
        project : str
            The id of the project.
        ids : iterable of str
            Ids of chunks.
        """

    @abstractmethod
    def get(self, project: str, chunk: str) -> bytes:
        """Return one frame.

        Parameters
        ----------
        project : str
            The id of the project.
        chunk : str
            The id of the chunk: its BLAKE3 digest as 64 hex digits.

        Returns
        -------
        bytes
            The header and the payload.

        Raises
        ------
        KeyError
            If the project does not have the chunk.
        """

    @abstractmethod
    def size(self, project: str, chunk: str) -> int:
        """Return the length of one frame.

        Parameters
        ----------
        project : str
            The id of the project.
        chunk : str
            The id of the chunk: its BLAKE3 digest as 64 hex digits.

        Returns
        -------
        int
            The length of header and payload in bytes.

        Raises
        ------
        KeyError
            If the project does not have the chunk.
        """

    @abstractmethod
    def start(self, project: str, chunk: str, size: int) -> bytes:
        """Return the first bytes of one frame, or the whole frame if it is shorter.

        Parameters
        ----------
        project : str
            The id of the project.
        chunk : str
            The id of the chunk: its BLAKE3 digest as 64 hex digits.
        size : int
            The number of bytes.

        Returns
        -------
        bytes
            At most `size` bytes.

        Raises
        ------
        KeyError
            If the project does not have the chunk.
        """

    @abstractmethod
    def chunks(self, project: str) -> Iterator[str]:
        """Iterate over the ids of all chunks of a project.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        iterator of str
            The ids, in any order.
        """

    @abstractmethod
    def replace(self, project: str, chunk: str, pieces: Sequence[Buffer]) -> int:
        """Replace the frame of a chunk with another frame of the same chunk.

        A reader sees either the old or the new frame, complete. The new frame is durable on return.

        Parameters
        ----------
        project, chunk : str
            The id of the project and the digest of the chunk.
        pieces : sequence of bytes-like
            The new frame, as consecutive parts.

        Returns
        -------
        int
            The length of the new frame in bytes.

        Raises
        ------
        KeyError
            If the project does not have the chunk.
        """

    @abstractmethod
    def remove(self, project: str, ids: Iterable[str]) -> int:
        """Delete chunks. Chunks that do not exist are skipped.

        Parameters
        ----------
        project : str
            The id of the project.
        ids : iterable of str
            Ids of chunks.

        Returns
        -------
        int
            The bytes freed. A frame that another project shares frees no bytes.
        """

    @abstractmethod
    def adopt(self, project: str, source: str, chunk: str) -> None:
        """Add a chunk of another project to a project, without a copy of its bytes where the storage allows it.

        The two projects stay independent: a later change in one does not affect the other. If the project has the
        chunk, nothing happens. The name is durable after `settle`.

        Parameters
        ----------
        project : str
            The id of the project that gets the chunk.
        source : str
            The id of the project that has it.
        chunk : str
            The digest of the chunk.

        Raises
        ------
        KeyError
            If the source does not have the chunk.
        """

    @abstractmethod
    def sharers(self, project: str, chunk: str, others: Iterable[str]) -> list[str]:
        """Return those of `others` that share the stored bytes of this chunk with the project, instead of a copy.

        Parameters
        ----------
        project : str
            The id of the project.
        chunk : str
            The id of the chunk: its BLAKE3 digest as 64 hex digits.
        others : iterable of str
            Ids of other projects.

        Returns
        -------
        list of str
            The ids of those projects, in the given order.
        """

    @abstractmethod
    def share(self, project: str, source: str, chunk: str) -> None:
        """Replace a project's frame with the frame of another project, without a copy where the storage allows it.

        The change is durable on return.

        Parameters
        ----------
        project : str
            The id of the project.
        source : str
            The id of the project whose frame is used.
        chunk : str
            The id of the chunk: its BLAKE3 digest as 64 hex digits.

        Raises
        ------
        KeyError
            If one of the two projects does not have the chunk.
        """

    @abstractmethod
    def set_aside(self, project: str, chunk: str) -> None:
        """Move a damaged frame away without deleting it. The chunk is then missing and can be pushed again.

        Parameters
        ----------
        project : str
            The id of the project.
        chunk : str
            The id of the chunk: its BLAKE3 digest as 64 hex digits.
        """

    @abstractmethod
    def shared_lock(self, project: str) -> AbstractContextManager[None]:
        """Return a shared lock that excludes `exclusive_lock`: chunks that were found are not deleted while it is held.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        context manager
            Holds the lock while it is entered.
        """

    @abstractmethod
    def exclusive_lock(self, project: str) -> AbstractContextManager[None]:
        """Return an exclusive lock that excludes `shared_lock`: unused chunks do not come into use while it is held.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        context manager
            Holds the lock while it is entered.
        """

    @abstractmethod
    def manifests(self, project: str) -> Iterator[str]:
        """Iterate over the digests of all manifests of a project.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        iterator of str
            The digests, in any order.
        """

    @abstractmethod
    def remove_manifests(self, project: str, digests: Iterable[str]) -> int:
        """Delete manifests with their notes.

        Parameters
        ----------
        project : str
            The id of the project.
        digests : iterable of str
            Digests of manifests.

        Returns
        -------
        int
            The bytes freed.
        """

    @abstractmethod
    def put_note(self, project: str, digest: str, data: bytes) -> None:
        """Store data that was computed from a manifest, a note, next to it. A new note replaces the old one.

        Parameters
        ----------
        project : str
            The id of the project.
        digest : str
            The digest of the manifest.
        data : bytes
            The content of the note.
        """

    @abstractmethod
    def notes(self, project: str) -> Iterator[str]:
        """Iterate over the digests of all manifests that have a note.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        iterator of str
            The digests, in any order. They include those of damaged notes.
        """

    @abstractmethod
    def note(self, project: str, digest: str) -> bytes:
        """Return the note of a manifest.

        Parameters
        ----------
        project : str
            The id of the project.
        digest : str
            The digest of the manifest.

        Returns
        -------
        bytes
            The content of the note.

        Raises
        ------
        KeyError
            If the note is missing or damaged. The caller then computes it again.
        """

    @abstractmethod
    def usage(self, project: str, others: Iterable[str] = ()) -> Mapping[str, int]:
        """Return the size of a project on disk.

        Frames that the project shares with one of `others` do not count.

        Parameters
        ----------
        project : str
            The id of the project.
        others : iterable of str, optional
            Ids of other projects. Default: none.

        Returns
        -------
        mapping of str to int
            Bytes of `chunks`, `manifests`, `notes`, `staging` and `damaged`.
        """

    @abstractmethod
    def projects(self) -> list[str]:
        """Return the ids of all projects that have data in this store.

        Returns
        -------
        list of str
            The ids.
        """

    @abstractmethod
    def put_manifest(self, project: str, digest: str, data: bytes) -> None:
        """Store a manifest under its digest.

        Parameters
        ----------
        project : str
            The id of the project.
        digest : str
            The digest of the manifest.
        data : bytes
            The encoded manifest.
        """

    @abstractmethod
    def manifest(self, project: str, digest: str) -> bytes:
        """Return a manifest.

        Parameters
        ----------
        project : str
            The id of the project.
        digest : str
            The digest of the manifest.

        Returns
        -------
        bytes
            The encoded manifest.

        Raises
        ------
        KeyError
            If the project does not have it.
        """

    @abstractmethod
    def stage(self, project: str, push: str, data: bytes) -> None:
        """Store the body of an open push. It must survive a killed process, but not a power failure.

        Parameters
        ----------
        project : str
            The id of the project.
        push : str
            The id of the push: 32 hex digits.
        data : bytes
            The body of the push.
        """

    @abstractmethod
    def staged(self, project: str, push: str) -> tuple[bytes, float]:
        """Return the body of an open push and the time of its last request.

        Parameters
        ----------
        project : str
            The id of the project.
        push : str
            The id of the push: 32 hex digits.

        Returns
        -------
        tuple of (bytes, float)
            The body, and the time in seconds since 1970.

        Raises
        ------
        KeyError
            If the push does not exist or its body is damaged.
        """

    @abstractmethod
    def touch(self, project: str, push: str, *, at: float | None = None) -> None:
        """Set the time of the last request of an open push, by default to now. Unknown pushes are ignored.

        Parameters
        ----------
        project : str
            The id of the project.
        push : str
            The id of the push: 32 hex digits.
        at : float, optional
            The time in seconds since 1970. Default: now.
        """

    @abstractmethod
    def unstage(self, project: str, push: str) -> None:
        """Delete an open push. Unknown pushes are ignored.

        Parameters
        ----------
        project : str
            The id of the project.
        push : str
            The id of the push: 32 hex digits.
        """

    @abstractmethod
    def pushes(self, project: str) -> list[str]:
        """Return the ids of all open pushes of a project.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        list of str
            The ids.
        """

    @abstractmethod
    def drop(self, project: str) -> None:
        """Delete all data of a project.

        Parameters
        ----------
        project : str
            The id of the project.
        """
