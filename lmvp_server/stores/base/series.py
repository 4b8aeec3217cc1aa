"""Interface of the series of runs: points of metrics, and the state of each key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmvp_server.stores.base.chunks import Buffer

if TYPE_CHECKING:
    from lmvp.core.columns import Columns, ParsedFrames


class Gap(Exception):
    """Appended bytes of a journal begin after the end of the applied bytes.

    Attributes
    ----------
    applied : int
        The number of bytes that are applied. The writer must send from there.
    """

    def __init__(self, applied: int) -> None:
        super().__init__(f"applied up to byte {applied}")
        self.applied = applied


class CursorLost(Exception):
    """The points after a cursor are no longer available one by one. The reader must read the curves again."""


@dataclass(frozen=True, slots=True)
class KeyState:
    """State of one metric of a series. `lmvp.core.schemas.runs.KeyRecord` explains the fields."""

    name: str
    count: int
    first: int
    step: int
    value: float
    time: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SeriesState:
    """Properties of a series without its points.

    Attributes
    ----------
    points : int
        The number of points received. It is also the cursor of a reader that has received all of them.
    keys : int
        The number of metrics.
    epoch : int
        The newest attempt. (An attempt begins at the start, a resume or a rewind of a run.)
    touched : float
        The time of the last sign of life, in seconds since 1970.
    """

    points: int
    keys: int
    epoch: int
    touched: float


class SeriesStore(ABC):
    """Points of runs. Each run is one series. docs/runs.md explains which point counts at a (key, step).

    The first `append` creates a series. Points can be read as soon as `append` returns.
    """

    @abstractmethod
    def append(
        self,
        project: str,
        run: str,
        writer: str,
        start: int,
        data: Buffer,
        shipment: ParsedFrames,
        *,
        alive: bool = True,
    ) -> int:
        """Apply frames of a writer's journal and return the number of its bytes that are applied.

        Bytes that were applied before are skipped, so a request can be repeated. Several writers can append at the same
        time. The points are durable on return.

        Parameters
        ----------
        project, run, writer : str
            The ids of the project, the run and the writer.
        start : int
            The position of `data` in the journal, in bytes.
        data : bytes-like
            Complete frames. Empty data is a sign of life.
        shipment : Shipment
            The parsed `data`. It is ignored if a part of `data` was applied before.
        alive : bool, default True
            Whether the frames are a sign of life of the run.

        Returns
        -------
        int
            The number of bytes of the journal that are applied.

        Raises
        ------
        Gap
            If `start` is after the end of the applied bytes.
        InvalidRequest
            If a point names a key that the writer has not defined. No point is stored.
        """

    @abstractmethod
    def applied(self, project: str, run: str, writer: str) -> int:
        """Return how many bytes of a writer's journal are applied.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        writer : str
            The id of the writer: 32 hex digits.

        Returns
        -------
        int
            The number of bytes; 0 for an unknown writer.
        """

    @abstractmethod
    def attempt(self, project: str, run: str, writer: str) -> int:
        """Return the attempt to which the next points of a writer belong.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        writer : str
            The id of the writer: 32 hex digits.

        Returns
        -------
        int
            The number of the attempt; 0 for an unknown writer.
        """

    @abstractmethod
    def touch(self, project: str, run: str) -> None:
        """Record a sign of life. It need not survive a power failure.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        """

    @abstractmethod
    def touched(self, project: str, run: str) -> float:
        """Return the time of the last sign of life.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Returns
        -------
        float
            Seconds since 1970; 0 if the run has never sent a sign of life.
        """

    @abstractmethod
    def state(self, project: str, run: str) -> SeriesState | None:
        """Return the properties of a series without its points.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Returns
        -------
        SeriesState or None
            None if the series does not exist.
        """

    @abstractmethod
    def keys(self, project: str, run: str) -> list[KeyState]:
        """Return the state of each metric.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Returns
        -------
        list of KeyState
            The keys with points that count, in the order of their first points.
        """

    @abstractmethod
    def count(self, project: str, run: str, key: str, first: int | None = None, last: int | None = None) -> int:
        """Return the number of points of a key with a step from `first` to `last`, inclusive.

        It is an upper bound: sealed points that a newer attempt replaced count until their segments are merged.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        key : str
            The key of the metric.
        first : int, optional
            The first step of the range, inclusive. Default: no limit.
        last : int, optional
            The last step of the range, inclusive. Default: no limit.

        Returns
        -------
        int
            The number of points, or an upper bound of it.
        """

    @abstractmethod
    def read(
        self, project: str, run: str, key: str, first: int | None = None, last: int | None = None
    ) -> Iterator[Columns]:
        """Yield all points of a key that count.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        key : str
            The key of the metric.
        first : int, optional
            The first step of the range, inclusive. Default: no limit.
        last : int, optional
            The last step of the range, inclusive. Default: no limit.

        Returns
        -------
        iterator of Columns
            Pages of at most 65,536 points, in the order of steps.
        """

    @abstractmethod
    def sample(
        self, project: str, run: str, key: str, points: int, first: int | None = None, last: int | None = None
    ) -> Columns:
        """Return at most `points` points of a key that preserve the shape of its curve, in the order of steps.

        The range of steps is divided into at most `points // 3` ranges of equal width. The result contains the exact
        minimum and maximum of the finite values of each range, one value that is not finite, and the first and last
        point. If the key has at most `points` points, the result contains all of them. The cost depends on `points`,
        not on the number of stored points.

        Parameters
        ----------
        project, run, key : str
            The ids of the project and the run, and the key of the metric.
        points : int
            The maximum number of points.
        first, last : int, optional
            The range of steps, inclusive. Default: all steps.

        Returns
        -------
        Columns
            The points, as columns.
        """

    @abstractmethod
    def since(
        self, project: str, run: str, cursor: int, keys: Sequence[str] | None = None, limit: int = 100_000
    ) -> tuple[int, dict[str, Columns]]:
        """Return the points that were received after `cursor`, in that order, and the new cursor.

        Parameters
        ----------
        project, run : str
            The ids of the project and the run.
        cursor : int
            The cursor of the previous call, or `SeriesState.points`.
        keys : sequence of str, optional
            The metrics to return. Default: all.
        limit : int, default 100_000
            The maximum number of points.

        Returns
        -------
        tuple of (int, dict of str to Columns)
            The new cursor, and the points of each key.

        Raises
        ------
        CursorLost
            If the points are already sealed, or points that the reader has received no longer count.
        """

    @abstractmethod
    def wait(self, project: str, run: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever points are received.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        wake : callable
            Called without arguments, from any thread. It must not block.

        Returns
        -------
        callable
            Unsubscribes `wake`.
        """

    @abstractmethod
    def settle(self, project: str, run: str) -> None:
        """Seal all points of a finished run into compact segments that are fast to read.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        """

    @abstractmethod
    def settle_soon(self, project: str, run: str) -> None:
        """Settle a series in the background. `close` waits for it.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        """

    @abstractmethod
    def tidy(self, go_on: Callable[[], bool]) -> None:
        """Seal and merge segments while the server is idle.

        Parameters
        ----------
        go_on : callable
            Returns whether to continue. Called before each step of the work.
        """

    @abstractmethod
    def projects(self) -> list[str]:
        """Return the ids of all projects that have series.

        Returns
        -------
        list of str
            The ids.
        """

    @abstractmethod
    def runs(self, project: str) -> list[str]:
        """Return the ids of all series of a project.

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
    def size(self, project: str, run: str) -> int:
        """Return the size of a series on disk.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Returns
        -------
        int
            The size in bytes; 0 if the series does not exist.
        """

    @abstractmethod
    def verify(self, project: str, run: str) -> None:
        """Verify that the files of a series are complete and unchanged.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Raises
        ------
        IntegrityError
            If a file is damaged. The message names it.
        """

    @abstractmethod
    def damage(self, project: str, run: str) -> list[str]:
        """Describe the damage that makes points of a series unavailable.

        A series with a damaged log still serves its sound points and accepts new ones. The damaged file is not deleted.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Returns
        -------
        list of str
            The problems. Each text begins with the name of the file, without its folder. Empty if all points are
            available.
        """

    @abstractmethod
    def dump(self, project: str, run: str) -> Iterator[bytes]:
        """Yield a consistent snapshot of a series as one stream: writers, keys, points, attempts and cuts.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Returns
        -------
        iterator of bytes
            The stream, in pieces of any size. Empty if the series does not exist.
        """

    @abstractmethod
    def load(self, project: str, run: str, pieces: Iterable[bytes]) -> None:
        """Replace a series with the stream of `dump`.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        pieces : iterable of bytes
            The stream, in pieces of any size.

        Raises
        ------
        IntegrityError
            If the stream is damaged or incomplete. Nothing is changed.
        """

    @abstractmethod
    def drop(self, project: str, run: str | None = None) -> int:
        """Delete one series, or all series of a project.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str, optional
            The id of the run. Default: all runs of the project.

        Returns
        -------
        int
            The bytes freed.
        """

    @abstractmethod
    def close(self) -> None:
        """Close all files."""
