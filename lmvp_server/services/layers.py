"""Layer strips: the changes of each layer from version to version.

The digests of the tensors in the manifests show whether a layer changed. The amount of change is shown once it is
measured.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from lmvp.core import manifest as manifests
from lmvp.core.layers import group_of, is_counter, layer_of, shade, sum_amounts
from lmvp.core.manifest import Manifest, Tensor
from lmvp.core.schemas import (
    ABSENT,
    CHANGED,
    IDENTICAL,
    NEW,
    Amount,
    Layer,
    Layers,
)
from lmvp.errors import IntegrityError, InvalidArgument
from lmvp_server.process import cancellation
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog, Place
from lmvp_server.services.tensors import TensorChanges
from lmvp_server.services.versions import Versions
from lmvp_server.stores.base import Record

_CACHED = 2048
"""Versions in the cache of states."""

_CACHED_LAYERS = 400_000
"""Layers of all states in the cache, at about 300 bytes each. A manifest can have 100,000 layers."""

_MOST = 200
"""Versions of one request."""

CELLS_LIMIT = 2_000_000
"""Layers of the axis times versions of an answer. Above this limit, the older versions have no strip."""


@dataclass(frozen=True, slots=True)
class LayerState:
    """A layer in one version.

    Attributes
    ----------
    size : int
        The number of values.
    form : int
        A hash of the names, dtypes and shapes of its tensors.
    bytes : int
        A hash of the digests of its tensors.
    counters : tuple of str
        The names of its tensors that count steps or batches. They do not count for the amount of change of a layer.
    """

    size: int
    form: int
    bytes: int
    counters: tuple[str, ...] = ()


State = Mapping[str, LayerState]


class LayerStrips:
    """The use case of `…/layers`. The states of versions are immutable, so the last used ones are cached in memory."""

    def __init__(self, catalog: Catalog, versions: Versions, tensor_changes: TensorChanges) -> None:
        self._catalog, self._versions, self._tensor_changes = catalog, versions, tensor_changes
        self._states: OrderedDict[tuple[str, str], State] = OrderedDict()
        self._layers = 0
        self._lock = Lock()

    def strips(self, caller: Caller, project: str, model: str, numbers: Sequence[int]) -> Layers:
        """Return the strips of versions of a model on one axis. Above `CELLS_LIMIT`, only the newest have a strip.

        A version whose manifest, or whose parent's manifest, is damaged has no strip, so that the others are shown.

        Raises
        ------
        InvalidArgument
            If more than 200 versions are requested.
        """
        numbers = tuple(dict.fromkeys(numbers))
        if len(numbers) > _MOST:
            raise InvalidArgument(f"strips of {len(numbers)} versions at once; the limit is {_MOST}")
        place = self._catalog.find_model(caller, project, model)
        found = [self._versions.by_number(place, number) for number in numbers]
        versions, states, before = self._newest(place, [version for version in found if version is not None])
        axis = _axis(states[number] for number in sorted(states, reverse=True))
        strips = {
            str(number): self._strip(place, version, axis, states[number], before[number])
            for version in versions
            if (number := version.data["number"]) in states
        }
        return Layers(axis=axis, strips=strips)

    def _newest(self, place: Place, found: Sequence[Record]) -> tuple[list[Record], dict[int, State], dict[int, State]]:
        """Return the newest of some versions within `CELLS_LIMIT`, with their states and those of their parents."""
        states: dict[int, State] = {}
        before: dict[int, State] = {}
        axis: set[str] = set()
        kept: list[Record] = []
        for version in sorted(found, key=lambda one: int(one.data["number"]), reverse=True):
            cancellation.check()
            try:
                state, parent = self._state(place, version.data["digest"]), self._parent(place, version)
            except IntegrityError:  # a damaged manifest, or `NoBaseline`
                continue
            axis |= state.keys()
            if kept and len(axis) * (len(kept) + 1) > CELLS_LIMIT:
                break
            states[version.data["number"]], before[version.data["number"]] = state, parent
            kept.append(version)
        return kept, states, before

    def one(self, caller: Caller, project: str, model: str, revision: str) -> Layers:
        """Return the strip of one version or contribution, on the axis of its layers."""
        place = self._catalog.find_model(caller, project, model)
        version = self._versions.find(place, revision)
        state = self._state(place, version.data["digest"])
        axis = _axis([state])
        try:
            strip = self._strip(place, version, axis, state, self._parent(place, version))
        except NoBaseline:
            return Layers(axis=axis, strips={})
        return Layers(axis=axis, strips={str(version.data["number"]): strip})

    def _strip(self, place: Place, version: Record, axis: Sequence[Layer], state: State, before: State) -> str:
        cancellation.check()
        amounts = self._amounts(place, version, state)
        return "".join(_code(state.get(one.path), before.get(one.path), amounts.get(one.path)) for one in axis)

    def _amounts(self, place: Place, version: Record, state: State) -> dict[str, Amount]:
        """Return the amount of change of each layer since the first parent, if it is measured."""
        parent = _first_parent(version)
        # If the parent is deleted, the strip compares with another version, for which there is no measurement.
        known = parent and self._versions.in_project(place.space, parent)
        kept = self._tensor_changes.kept(place.space, version.data["digest"], parent) if known else None
        found: dict[str, list[tuple[bool, Amount | None]]] = {}
        for name, amount in kept.tensors.items() if kept else ():
            layer = layer_of(name)
            counts = layer in state and name in state[layer].counters
            found.setdefault(layer, []).append((counts, amount))
        return {layer: total for layer, each in found.items() if (total := sum_amounts(each)) is not None}

    def _parent(self, place: Place, version: Record) -> State:
        """Return the state that a strip compares with: of the first parent, or if that is deleted, of an older version.

        Raises
        ------
        IntegrityError
            If the manifest is damaged.
        NoBaseline
            If the parent is deleted, and there is no older version.
        """
        if not _first_parent(version):
            return {}
        try:
            return self._state(place, _first_parent(version))
        except IntegrityError:
            if self._versions.in_project(place.space, _first_parent(version)):  # it exists, so the manifest is damaged
                raise
        older = self._versions.older(place, version.data["number"])
        if older is None:
            raise NoBaseline(f"the parent of v{version.data['number']} is deleted")
        return self._state(place, older.data["digest"])

    def _state(self, place: Place, digest: str) -> State:
        key = place.space, digest
        with self._lock:
            if key in self._states:
                self._states.move_to_end(key)
                return self._states[key]
        # Not under the lock, because a large manifest takes long. Two threads can compute one state, which is harmless.
        state = state_of(manifests.decode(self._versions.manifest_bytes(place.space, digest)))
        with self._lock:
            self._layers += len(state) - len(self._states.get(key, ()))
            self._states[key] = state
            while len(self._states) > _CACHED or self._layers > _CACHED_LAYERS:
                self._layers -= len(self._states.popitem(last=False)[1])
        return state


class NoBaseline(IntegrityError):
    """There is no version to compare with. The version has no strip, because all its layers would look new."""


def _first_parent(version: Record) -> str:
    """Return the digest of the first parent; empty if the version has none."""
    parents = version.data["parents"]
    return str(parents[0]["digest"]) if parents else ""


def state_of(manifest: Manifest) -> State:
    """Return the layers of a version by their paths, in the order of the model.

    A layer consists of all tensors whose names are equal up to the last dot or slash. A tensor whose name has neither
    is a separate layer.
    """
    tensors: dict[str, list[Tensor]] = {}
    for tensor in manifest.tensors:
        tensors.setdefault(layer_of(tensor.name), []).append(tensor)
    return {path: _layer(members) for path, members in tensors.items()}


def _layer(tensors: Sequence[Tensor]) -> LayerState:
    return LayerState(
        sum(_count(tensor.shape) for tensor in tensors),
        hash(tuple((tensor.name, tensor.dtype, tensor.shape) for tensor in tensors)),
        hash(tuple(tensor.digest for tensor in tensors)),
        tuple(tensor.name for tensor in tensors if is_counter(tensor.name, tensor.dtype, tensor.shape)),
    )


def _count(shape: Iterable[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _axis(states: Iterable[State]) -> tuple[Layer, ...]:
    """Return the union of the layers. A layer that only older versions have follows the layer before it there.

    Parameters
    ----------
    states : iterable of State
        Newest version first.
    """
    behind: dict[
        str | None, str | None
    ] = {}  # a linked list, because search and insertion in a list of 100,000 layers are slow
    sizes: dict[str, int] = {}
    for state in states:
        cancellation.check()
        place: str | None = None
        for path, layer in state.items():
            if path not in sizes:
                behind[path] = behind.get(place)
                behind[place] = path
            place = path
            sizes[path] = max(layer.size, sizes.get(path, 0))
    return tuple(Layer(path=path, group=group_of(path), size=sizes[path]) for path in _chain(behind))


def _chain(behind: dict[str | None, str | None]) -> Iterable[str]:
    """Yield the paths of the linked list in order. The first one follows None."""
    path = behind.get(None)
    while path is not None:
        yield path
        path = behind[path]


def _code(layer: LayerState | None, before: LayerState | None, amount: Amount | None) -> str:
    if layer is None:
        return ABSENT
    if before is None or before.form != layer.form:
        return NEW
    if before.bytes == layer.bytes:
        return IDENTICAL
    return CHANGED if amount is None else shade(amount.relative)
