"""A store in a folder with its services, used without HTTP: push trees of arrays, read versions back byte for byte."""

import secrets

import msgspec
import numpy as np

from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import Frame
from lmvp.core.schemas import NewPush
from lmvp.formats import pack
from lmvp.transfer.manifest_builder import describe
from lmvp_server.services import Services
from lmvp_server.services.access import Caller
from lmvp_server.services.delta_graph import DeltaGraph

ADA = Caller("ada", is_operator=True, scope="admin")


class Maintains:
    """Gives everybody the same role everywhere."""

    def role(self, caller, project):
        return "maintainer"


GRACE = Caller("grace", user="u-grace", scope="admin", roles=Maintains())
"""Somebody with an account who maintains every project, and owns none."""


def weights(seed, layers=3, rows=700, dtype=np.float32):
    """Return a tree of arrays like a small network's; some MB of them."""
    rng = np.random.default_rng(seed)
    return {f"layers.{i}.weight": (rng.standard_normal((rows, 512)) * 0.02).astype(dtype) for i in range(layers)}


def step(tree, seed=0, size=1e-5, names=None):
    """Return a tree after a small step of training; only in some tensors, if they are named."""
    rng = np.random.default_rng(seed)
    return {
        name: (w + rng.standard_normal(w.shape).astype(w.dtype) * w.dtype.type(size))
        if not names or name in names
        else w
        for name, w in tree.items()
    }


class Shop:
    def __init__(self, folder):
        self.folder = folder
        self.services = Services.open(folder)

    def reopen(self):
        self.services.close()
        self.services = Services.open(self.folder)
        return self

    def begin(self, tree, model="m", project="p", **fields):
        """Begin a push; return its id and what it is made of."""
        described = describe(pack(tree))
        encoded = msgspec.Raw(msgspec.json.encode(described.manifest, order="sorted"))
        body = NewPush(push=secrets.token_hex(16), manifest=encoded, **fields)
        answer = self.services.pushes.begin(ADA, project, model, body)
        return body.push, described, answer

    def send(self, push_id, described, missing, model="m", project="p"):
        push = self.services.pushes.resume(ADA, project, model, push_id)
        for chunk in missing:
            data = b"".join(described.places[chunk].read())
            self.services.pushes.receive(push, Frame(chunk, len(data), len(data)), [memoryview(data)])

    def push(self, tree, model="m", project="p", **fields):
        push_id, described, answer = self.begin(tree, model, project, **fields)
        self.send(push_id, described, answer.missing, model, project)
        return self.services.pushes.commit(ADA, project, model, push_id)

    def files(self, revision, model="m", project="p"):
        """Return the files of a version as {path: bytes}."""
        space, manifest = self.services.versions.content(ADA, project, model, str(revision))
        return {
            file.path: b"".join(bytes(self.services.files.read(space, part)) for part in parts(file))
            for file in manifest.files
        }

    @property
    def space(self):
        return self.services.catalog.find_project(ADA, "p").id

    def links(self):
        return DeltaGraph.read(self.services.chunks, self.space)

    def chunks_of(self, revision, model="m"):
        manifest = manifests.decode(self.services.versions.manifest(ADA, "p", model, str(revision))[1])
        return [chunk.id for file in manifest.files for chunk in file.chunks]

    def on_disk(self, *kinds):
        """Return the bytes of all files below some folders of the data folder."""
        return sum(path.stat().st_size for kind in kinds for path in (self.folder / kind).rglob("*") if path.is_file())


def parts(file):
    from lmvp_server.services.files import parts

    return parts(file.chunks, 0, file.size)


def bytes_of(tree):
    """Return the file that a tree is pushed as."""
    [packed] = pack(tree).files
    return b"".join(bytes(source.read(0, source.size)) for source in packed.sources)
