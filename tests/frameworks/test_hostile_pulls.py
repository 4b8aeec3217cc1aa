"""Pulls from a server or a member who lies: no code runs, no file outside the folder is touched, memory is bounded."""

import builtins
import io
import json
import os
import resource
import threading
import zipfile
import zlib
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import numpy as np
import pytest
from blake3 import blake3

import lmvp
from lmvp import connection, errors, formats
from lmvp.client.models import Client
from lmvp.core import chunk_frames, digest
from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import Frame
from lmvp.core.manifest import Chunk, File, Manifest
from lmvp.transfer import download
from lmvp.transfer.download import is_reserved, pull_files

MIB = 1 << 20
DATA = b"harmless bytes"


def chunk_of(data):
    return Chunk(blake3(data).hexdigest(), len(data))


def file_of(path, *pieces):
    chunks = tuple(chunk_of(piece) for piece in pieces)
    return File(path, sum(map(len, pieces)), digest.of_chunks([chunk.id for chunk in chunks]), chunks)


class Content:
    """A reader over files in memory, as a format gets one from a pull; notes the files that are asked for."""

    def __init__(self, manifest, files):
        self.manifest, self.files = manifest, files

    def read(self, path):
        return self.files[path]

    def fill(self, path, targets):
        spans = {tensor.name: tensor for tensor in self.manifest.tensors if tensor.path == path}
        for name, target in targets.items():
            target[:] = self.files[path][spans[name].offset :][: spans[name].size]

    def fill_all(self, targets):
        for path, buffers in targets.items():
            self.fill(path, buffers)

    def fetch_all(self, files, write):
        for file in files:
            write(file.path, 0, memoryview(self.files[file.path]))


def content(format_, files, meta=None):
    return Content(
        Manifest(format_, tuple(file_of(path, data) for path, data in files.items()), meta=meta or {}), files
    )


@pytest.fixture
def no_files(monkeypatch):
    """Fail when anything of the system is opened or run; modules may be imported."""
    seen = []
    opened = builtins.open

    def watched(file, *args, **options):
        if not str(file).endswith((".py", ".pyc", ".so", ".json")) and not isinstance(file, int):
            seen.append(file)
        return opened(file, *args, **options)

    monkeypatch.setattr(builtins, "open", watched)
    monkeypatch.setattr(io, "open", watched)
    monkeypatch.setattr(os, "system", seen.append)
    yield seen
    assert [one for one in seen if "passwd" in str(one) or "touch" in str(one)] == []


# -- a server that lies


class LyingServer:
    """A server that answers what `answers` says: bytes by the end of a path, or a function of the request."""

    def __init__(self):
        lying = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                lying.asked.append((self.command, self.path, self.headers.get("Authorization")))
                path = self.path.partition("?")[0]
                found = next((lying.answers[end] for end in lying.answers if path.endswith(end)), None)
                if callable(found):
                    with suppress(OSError):
                        found(self)
                    self.close_connection = True
                    return
                self.head(200 if found is not None else 404, len(found or b"{}"))
                self.wfile.write(found or b"{}")

            def head(self, status=200, length=None, **more):
                self.send_response(status)
                self.send_header("LMVP-API", "1")
                if length is not None:
                    self.send_header("Content-Length", str(length))
                for name, value in more.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()

            do_GET = do_POST = answer

            def log_message(self, *_):
                """Print nothing."""

        self.answers, self.asked = {}, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.client = Client(self.url, "a-token")

    def hold(self, files, **news):
        """Serve a version with these files."""
        manifest = Manifest("files", tuple(files), meta={"kind": "folder"})
        data = manifests.encode(manifest)
        version = {"project": "p", "model": "m", "number": 1, "digest": digest.of_bytes(data), "content": "0" * 64,
                   "message": "", "author": "ada", "created_at": "2026-01-01T00:00:00Z", "parents": [], "aliases": [],
                   "metrics": {}, "params": {}, "tags": {}, "size": manifest.size, "stored": 0, "environment": {},
                   "manifest": {}, "format": "files", "name": "v1", "reference": "p/m@v1"}  # fmt: skip
        self.answers = {"/versions/1": self._version(version), "/versions/latest": self._version(version),
                        "/versions/v1": self._version(version), "/manifest": data, **news}  # fmt: skip

    @staticmethod
    def _version(version):
        known = {field.name for field in msgspec.structs.fields(lmvp.core.schemas.Version)}
        return json.dumps({name: value for name, value in version.items() if name in known}).encode()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def lying(home, monkeypatch):
    monkeypatch.setattr(connection, "ATTEMPTS", 2)
    monkeypatch.setattr(connection, "LONGEST_WAIT", 0.01)
    lying = LyingServer()
    yield lying
    lying.close()


def raw_frame(chunk, data):
    return chunk_frames.header(Frame(chunk, len(data), len(data))) + data


def pull(lying, folder):
    return lying.client.download("p/m@v1", to=folder, progress=False)


def test_honest_version_is_pulled(lying, tmp_path):
    lying.hold([file_of("a/b.bin", DATA)], **{"/chunks": raw_frame(chunk_of(DATA).id, DATA)})
    assert pull(lying, tmp_path / "to") == [tmp_path / "to/a/b.bin"]
    assert (tmp_path / "to/a/b.bin").read_bytes() == DATA


OTHER = b"harmful, bytes"
FALSE = {
    "other bytes": raw_frame(chunk_of(DATA).id, OTHER),
    "other chunk": raw_frame(chunk_of(OTHER).id, OTHER),
    "shorter": raw_frame(chunk_of(DATA).id, DATA[:5]),
    "longer": raw_frame(chunk_of(DATA).id, DATA * 3),
    "cut off": raw_frame(chunk_of(DATA).id, DATA)[:-3],
    "nothing": b"",
    "no frame": b"\x00" * 200,
    "huge frame": chunk_frames.HEADER.pack(b"LMVC", 1, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0, bytes.fromhex(chunk_of(DATA).id)),
    "failure": raw_frame(chunk_of(DATA).id, DATA)[:4] + b"\xff" * 60,
}


@pytest.mark.parametrize("answer", FALSE)
def test_wrong_chunk_leaves_no_file(lying, tmp_path, answer):
    lying.hold([file_of("a.bin", DATA)], **{"/chunks": FALSE[answer]})
    with pytest.raises(errors.LmvpError):
        pull(lying, tmp_path / "to")
    assert [path for path in (tmp_path / "to").rglob("*") if path.is_file()] == []


def endless(first, piece=b" " * MIB, **more):
    def answer(request):
        request.head(**more)
        request.wfile.write(first)
        for _ in range(2000):
            request.wfile.write(piece)

    return answer


def bomb(request):
    request.head(Content_Encoding="gzip")
    packer = zlib.compressobj(1, wbits=31)
    for _ in range(300):
        request.wfile.write(packer.compress(b" " * MIB))
    request.wfile.write(packer.flush())


HUGE = {
    "endless": endless(b'{"a":"'),
    "bomb": bomb,
    "announced": lambda request: request.head(length=10**15),
    "deep": b"[" * 500_000,
    "deep objects": b'{"a":' * 200_000,
    "no JSON": b"<html>",
    "no UTF-8": b'{"a":"\xff"}',
    "long number": b'{"number":' + b"9" * 1_000_000 + b"}",
    "wrong types": b'{"project": 7}',
}


@pytest.mark.parametrize("path", ["/versions/v1", "/manifest"])
@pytest.mark.parametrize("answer", HUGE)
def test_huge_or_malformed_answer_is_a_clear_error(lying, tmp_path, monkeypatch, path, answer):
    monkeypatch.setattr(connection, "ANSWER_LIMIT", 8 * MIB)
    lying.hold([file_of("a.bin", DATA)])
    for end in ("/versions/v1", "/versions/1", "/versions/latest") if "v1" in path else (path,):
        lying.answers[end] = HUGE[answer]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(errors.LmvpError):
        pull(lying, tmp_path / "to")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10, "KiB"
    assert not (tmp_path / "to").exists()


def test_long_error_of_a_server_is_bounded(lying, tmp_path):
    def answer(request):
        request.head(500)
        for _ in range(2000):
            request.wfile.write(b" " * MIB)

    lying.answers = {"/versions/v1": answer, "/versions/latest": answer}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(errors.LmvpError):
        pull(lying, tmp_path / "to")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_takes_the_token_to_no_other_host(lying, tmp_path, status):
    other = LyingServer()
    try:
        lying.hold([file_of("a.bin", DATA)])
        for end in lying.answers:
            lying.answers[end] = lambda request: request.head(status, 0, Location=f"{other.url}/x")
        lying.answers["/chunks"] = lying.answers["/manifest"]
        with pytest.raises(errors.LmvpError):
            pull(lying, tmp_path / "to")
        assert other.asked == []
    finally:
        other.close()


def test_version_that_is_larger_than_the_disk_is_refused_before_a_byte_is_written(lying, tmp_path):
    block = b"\0" * (4 * MIB)
    chunks = (chunk_of(block),) * 100_000
    file = File("a.bin", len(block) * len(chunks), digest.of_chunks([chunk.id for chunk in chunks]), chunks)
    lying.hold([file], **{"/chunks": raw_frame(chunk_of(block).id, block)})
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    if free > 100_000 * len(block):
        pytest.skip("a disk of 400 GB")
    with pytest.raises(errors.StorageFull, match="no room for"):
        pull(lying, tmp_path / "to")
    assert not any(path.endswith("/chunks") for _, path, _ in lying.asked)
    assert not (tmp_path / "to").exists()


# -- names


BAD_NAMES = ["/etc/cron.d/x", "../x", "a/../../x", "a\x00b", "a\nb", "..", ".", "", "a//b", "a/", "C:x", "a\\..\\b",
             "\\\\host\\share", "\ud800", "x" * 2000, "a/" * 600 + "b"]  # fmt: skip


@pytest.mark.parametrize("path", BAD_NAMES)
def test_hostile_file_name_is_refused(tmp_path, path):
    files = {path: DATA}
    manifest = Manifest("files", (File(path, len(DATA), "0" * 64, (chunk_of(DATA),)),))
    with pytest.raises(errors.LmvpError):
        pull_files(Content(manifest, files), tmp_path / "in/to")
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == []


@pytest.mark.parametrize(
    "path", ["con", "a/NUL.txt", "COM1", "lpt9.bin", "ab:stream", "dot.", "blank ", "a/b?.bin", "CONOUT$"]
)
def test_name_that_windows_reserves_is_refused_there(tmp_path, monkeypatch, path):
    assert is_reserved(path)
    reader = content("files", {path: DATA})
    if os.name != "nt":
        assert pull_files(reader, tmp_path / "to") == [tmp_path / "to" / path]
        target, windows = tmp_path / "windows", type("os", (), {**vars(os), "name": "nt"})
        monkeypatch.setattr(download, "os", windows)
        with pytest.raises(errors.InvalidManifest, match="reserved"):
            pull_files(reader, target)


@pytest.mark.parametrize(
    "names",
    [("A.bin", "a.bin"), ("A/x", "a/y"), ("stra\u00dfe", "STRASSE"), ("\u00e4", "a\u0308"), ("A\u0308/x", "\u00e4/y")],
)
def test_names_that_the_disk_does_not_tell_apart_are_refused(tmp_path, monkeypatch, names):
    reader = content("files", dict.fromkeys(names, DATA))
    monkeypatch.setattr(download, "_are_two", lambda *_: False)
    with pytest.raises(errors.InvalidManifest, match="one name"):
        pull_files(reader, tmp_path / "to")
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == []
    monkeypatch.undo()
    if download._tells_apart(tmp_path, "A\u0308", "\u00e4"):
        assert len(pull_files(reader, tmp_path / "to")) == 2


@pytest.mark.parametrize("kind", ["file", "folder", "dangling", "above", "chain"])
def test_link_in_the_target_folder_is_not_followed(tmp_path, kind):
    outside, target = tmp_path / "outside", tmp_path / "to"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    target.mkdir()
    path = {"file": "a.bin", "folder": "sub/kept", "dangling": "sub/x", "above": "sub/deep/x", "chain": "sub/kept"}[
        kind
    ]
    if kind == "file":
        (target / "a.bin").symlink_to(outside / "kept")
    elif kind == "chain":
        (target / "other").symlink_to(outside)
        (target / "sub").symlink_to("other")
    else:
        (target / "sub").symlink_to(outside if kind != "dangling" else outside / "missing")
    reader = content("files", {path: DATA})
    if kind == "file":  # the link itself is replaced
        pull_files(reader, target)
        assert (target / "a.bin").read_bytes() == DATA
        assert not (target / "a.bin").is_symlink()
    else:
        with pytest.raises(errors.InvalidManifest, match="leads out"):
            pull_files(reader, target)
    assert {found.name: found.read_bytes() for found in outside.iterdir()} == {"kept": b"kept"}


def test_folder_where_a_file_belongs_leaves_the_folder_as_it_was(tmp_path):
    (tmp_path / "to/b").mkdir(parents=True)
    (tmp_path / "to/a").write_bytes(b"old")
    with pytest.raises(errors.InvalidArgument, match="is a folder"):
        pull_files(content("files", {"a": DATA, "b": DATA}), tmp_path / "to")
    assert (tmp_path / "to/a").read_bytes() == b"old"


# -- Keras


def keras_of(config):
    pytest.importorskip("keras")
    return content("keras", {"model.json": json.dumps(config).encode()})


def model_of(layer):
    return {
        "module": "keras", "class_name": "Sequential", "registered_name": None,
        "config": {"name": "s", "layers": [
            {"module": "keras.layers", "class_name": "InputLayer", "registered_name": None,
             "config": {"batch_shape": [None, 4], "dtype": "float32", "name": "i"}}, layer]},
    }  # fmt: skip


def layer_of(kind, module="keras.layers", registered=None, **config):
    return {"module": module, "class_name": kind, "registered_name": registered, "config": {"name": "x", **config}}


def function_of(name, module="builtins", registered="function"):
    return {"module": module, "class_name": "function", "config": name, "registered_name": registered}


TOUCH = "touch lmvp-was-here"
LAMBDA = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
HOSTILE_LAYERS = {
    "lambda": layer_of("Lambda", function=LAMBDA),
    "lambda list": layer_of("Lambda", function=["4wEAAAA=", None, None], function_type="lambda"),
    "lambda value": layer_of("Dense", units=2, activation={"value": ["4wEAAAA=", None, None]}),
    "lambda with safe_mode": layer_of("Lambda", function=LAMBDA, safe_mode=False),
    "system": function_of("system", "os"),
    "system as activation": layer_of("Dense", units=2, activation=function_of("system", "os")),
    "system as builtin": layer_of("Dense", units=2, activation=function_of("os.system")),
    "eval": layer_of("Dense", units=2, activation=function_of("eval", "builtins")),
    "exec as class": layer_of("exec", module="builtins"),
    "class of os": {"module": "os", "class_name": "system", "config": TOUCH, "registered_name": "os.system"},
    "popen": {"module": "subprocess", "class_name": "Popen", "config": {"args": TOUCH, "shell": True}},
    "registered": layer_of("Dense", registered="my>Dense", units=2),
    "registered os": layer_of("Dense", registered="os>system", units=2),
    "module without class": layer_of("load_model", module="keras.models", filepath="/etc/passwd"),
    "get_file": layer_of("get_file", module="keras.utils", origin="file:///etc/passwd"),
    "get_file function": layer_of("Dense", units=2, activation=function_of("get_file", "keras.utils")),
    "src utils": layer_of("Dense", units=2, activation=function_of("get_file", "keras.src.utils.file_utils")),
    "deserialize": layer_of("Dense", units=2, activation=function_of("deserialize", "keras.activations")),
    "foreign": layer_of("TorchModuleWrapper", module="keras.layers", module_={"a": 1}),
    "saved model": layer_of("TFSMLayer", filepath="/etc/passwd"),
    "vocabulary": layer_of("StringLookup", vocabulary="/etc/passwd"),
    "text vocabulary": layer_of("TextVectorization", vocabulary="/etc/passwd"),
    "dotted class": layer_of("layers.Dense", module="keras", units=2),
    "relative module": layer_of("system", module=".os"),
    "module is a list": layer_of("Dense", module=["keras.layers"], units=2),
    "class is a list": layer_of(["Dense"], units=2),
    "class is null": layer_of(None),
    "numpy object": layer_of("Dense", units={"class_name": "__numpy__", "config": {"value": [1], "dtype": "O"}}),
    "dunder": layer_of("__class__", module="keras.layers"),
    "legacy": {"class_name": "Lambda", "config": {"name": "x", "function": ["4wEAAAA=", None, None]}},
    "nested trick": layer_of("Dense", units=2, kernel_initializer=layer_of("system", module="os")),
    "compile": layer_of("Dense", units=2, compile_config={"loss": function_of("system", "os")}),
}


@pytest.mark.parametrize("layer", HOSTILE_LAYERS)
@pytest.mark.filterwarnings("ignore")
def test_keras_layer_runs_no_code_and_reads_no_file(tmp_path, monkeypatch, no_files, layer):
    monkeypatch.chdir(tmp_path)
    for config in (model_of(HOSTILE_LAYERS[layer]), HOSTILE_LAYERS[layer], [HOSTILE_LAYERS[layer]]):
        with pytest.raises(errors.LmvpError):
            formats.unpack(keras_of(config))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("config", [None, 7, "x", [], {}, {"class_name": "Sequential"}, {"module": "keras"}])
@pytest.mark.filterwarnings("ignore")
def test_keras_text_that_is_no_model_is_a_clear_error(config):
    with pytest.raises(errors.LmvpError):
        formats.unpack(keras_of(config))


def test_deep_keras_text_is_a_clear_error():
    pytest.importorskip("keras")
    for text in (b'{"a":' * 900 + b"1" + b"}" * 900, b"[" * 200_000):
        with pytest.raises(errors.LmvpError):
            formats.unpack(content("keras", {"model.json": text}))


def archive(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as found:
        for name, data in members.items():
            found.writestr(name, data)
    return buffer.getvalue()


LINK = zipfile.ZipInfo("config.json")
LINK.external_attr = 0o120777 << 16
ARCHIVES = {
    "traversal": archive({"../../evil": b"x", "/etc/evil": b"x", "config.json": b"{}"}),
    "lambda": archive({"config.json": json.dumps(model_of(HOSTILE_LAYERS["lambda"])), "metadata.json": b"{}"}),
    "link": archive({LINK: b"/etc/passwd"}),
    "bomb": archive({"model.weights.h5": b"\0" * (200 * MIB)}),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_keras_archive_is_bytes_and_is_not_unpacked(home, tmp_path, no_files, name):
    source = tmp_path / "in"
    source.mkdir()
    (source / "model.keras").write_bytes(ARCHIVES[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lmvp.update("p/m", source, progress=False)
    (path,) = lmvp.download("p/m", to=tmp_path / "to/here", progress=False)
    assert path.read_bytes() == ARCHIVES[name]
    assert sorted(found.name for found in tmp_path.rglob("*") if found.is_file() and home not in found.parents) == [
        "model.keras", "model.keras"]  # fmt: skip
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10
    with pytest.raises(errors.InvalidArgument, match="not an object"):
        lmvp.download("p/m", progress=False)


def test_hdf5_links_and_files_elsewhere_are_not_followed(home, tmp_path, no_files):
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"s" * 400)
    source = tmp_path / "in"
    source.mkdir()
    with h5py.File(source / "w.h5", "w") as file:
        file["w"] = np.arange(1000, dtype="f4")
        file["link"] = h5py.ExternalLink("/etc/passwd", "/")
        file["soft"] = h5py.SoftLink("/link/x")
        file.create_dataset("outside", (100,), "f4", external=[(str(secret), 0, 400)])
    version = lmvp.update("p/m", source, progress=False)
    assert {tensor.name for tensor in lmvp.Client().manifest(version).tensors} == {"w"}
    (path,) = lmvp.download("p/m", to=tmp_path / "to", progress=False)
    assert path.read_bytes() == (source / "w.h5").read_bytes()


# -- ONNX


def onnx_model(**tensor):
    onnx = pytest.importorskip("onnx")
    made = onnx.TensorProto(name="w", data_type=1, dims=[4], **tensor)
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[made])
    return onnx, onnx.helper.make_model(graph)


LOCATIONS = [
    "../../etc/passwd",
    "/etc/passwd",
    "weights.bin",
    "a/../../x",
    "\\\\host\\x",
    "file:///etc/passwd",
    "",
    "\0",
]


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("where", ["initializer", "attribute", "sparse", "subgraph", "function", "training"])
def test_onnx_external_data_is_refused_wherever_it_is(no_files, location, where):
    onnx, model = onnx_model(raw_data=b"\0" * 16)
    outside = onnx.TensorProto(name="o", data_type=1, dims=[4], data_location=1)
    outside.external_data.add(key="location", value=location)
    node = onnx.helper.make_node("Constant", [], ["c"], value=outside)
    if where == "initializer":
        model.graph.initializer.append(outside)
    elif where == "attribute":
        model.graph.node.append(node)
    elif where == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(outside)
    elif where == "subgraph":
        inner = onnx.helper.make_graph([node], "inner", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))
    elif where == "function":
        model.functions.add(name="f", domain="d").node.append(node)
    else:
        model.training_info.add().algorithm.node.append(node)
    with pytest.raises(errors.DamagedFile, match="another file"):
        formats.unpack(content("onnx", {"structure.onnx": model.SerializeToString()}))


@pytest.mark.parametrize("location", [*LOCATIONS[:2], "sub/../../secret.bin", "link.bin"])
def test_onnx_folder_whose_weights_lead_out_is_refused(home, tmp_path, location):
    _, model = onnx_model()
    source = tmp_path / "in"
    source.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"s" * 16)
    if location == "link.bin":
        (source / "link.bin").symlink_to(tmp_path / "secret.bin")
    tensor = model.graph.initializer[0]
    tensor.data_location = 1
    tensor.external_data.add(key="location", value=location)
    (source / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(errors.InvalidArgument):
        lmvp.update("p/m", source, create=True, progress=False)


@pytest.mark.parametrize("dims", [[2**62, 2**62], [-1], [2**63 - 1], [10**12], [0] * 5000])
def test_onnx_tensor_of_impossible_size_takes_no_memory(dims):
    _, model = onnx_model(raw_data=b"\0" * 16)
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = formats.unpack(content("onnx", {"structure.onnx": model.SerializeToString()}))
    assert list(found.graph.initializer[0].dims) == dims, "it is data: nothing is made of it"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


def test_deep_onnx_graph_is_a_clear_error():
    onnx, _ = onnx_model(raw_data=b"\0" * 16)
    inner = onnx.GraphProto(name="inner").SerializeToString()

    def field(number, data):
        length = bytearray()
        size = len(data)
        while size > 0x7F:
            length.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes([number << 3 | 2]) + bytes([*length, size]) + data

    for _ in range(5000):
        inner = field(1, field(5, field(6, inner)))  # graph.node.attribute.g
    with pytest.raises(errors.DamagedFile):
        formats.unpack(content("onnx", {"structure.onnx": field(7, inner)}))


def test_onnx_custom_operator_is_data():
    onnx, model = onnx_model(raw_data=b"\0" * 16)
    model.graph.node.append(onnx.helper.make_node("system", ["touch"], ["x"], domain="os"))
    model.opset_import.add(domain="os", version=1)
    assert formats.unpack(content("onnx", {"structure.onnx": model.SerializeToString()})) == model


@pytest.mark.parametrize("data", [b"\xff" * 1000, b"", b"\x3a\xff\xff\xff\xff\x7f", os.urandom(4096)])
@pytest.mark.parametrize("format_", ["onnx", "keras", "sklearn", "torch.module", "numpy", "files", "unknown", "torch"])
@pytest.mark.filterwarnings("ignore")
def test_garbage_in_any_format_is_a_clear_error(format_, data):
    names = ("structure.onnx", "model.json", "estimator.json", "structure.pt", "weights.safetensors")
    reader = content(format_, dict.fromkeys(names, data))
    with suppress(errors.LmvpError):
        formats.unpack(reader)
