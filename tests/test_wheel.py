"""The wheel: the same bytes from each build, only the packages, and an SBOM that describes it."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

import build_wheel
import licences
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import lmvp

ROOT = Path(__file__).resolve().parent.parent
WHEEL = f"lmvp-{lmvp.__version__}-py3-none-any.whl"
SDIST = f"lmvp-{lmvp.__version__}.tar.gz"
SBOM = f"lmvp-{lmvp.__version__}.cdx.json"
EPOCH = "1700000000"
LABEXTENSION = ("install.json", "package.json", "static/remoteEntry.js")


def build(source, folder, umask, **environment):
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, **environment}
    command = [sys.executable, source / "tools" / "build_wheel.py", folder]
    done = subprocess.run(command, env=environment, umask=umask, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The files of one build of this checkout."""
    return build(ROOT, tmp_path_factory.mktemp("dist"), 0o022)


@pytest.fixture(scope="module")
def contents(dist):
    """The files in the wheel, by name."""
    with zipfile.ZipFile(dist / WHEEL) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


@pytest.fixture(scope="module")
def document(dist):
    return json.loads((dist / SBOM).read_text("utf-8"))


def test_builds_have_the_same_bytes_on_another_machine(dist, tmp_path):
    """The other checkout has other modes and times, no git, and lies in another folder and another time zone."""
    copy = tmp_path / "elsewhere" / "src"
    for name in build_wheel._source_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
        (copy / name).chmod(0o600 | ((ROOT / name).stat().st_mode & 0o100))
    other = build(copy, tmp_path / "dist", 0o077, TZ="Asia/Tokyo", LC_ALL="C")
    for name in (WHEEL, SDIST, SBOM):
        assert (other / name).read_bytes() == (dist / name).read_bytes(), name
    assert sorted(path.name for path in dist.iterdir()) == sorted((WHEEL, SDIST, SBOM))


def test_a_wheel_built_from_the_sdist_has_the_same_files(dist, contents, tmp_path):
    with tarfile.open(dist / SDIST) as sdist:
        members = sdist.getmembers()
        sdist.extractall(tmp_path, filter="data")
    assert {(each.uid, each.gid, each.uname, each.mtime) for each in members} == {(0, 0, "", int(EPOCH))}
    assert not [each.name for each in members if each.name.split("/")[1:2] in (["tests"], ["tools"], [".venv"])]
    (source,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path / "again", source]
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH}, umask=0o022
    )
    with zipfile.ZipFile(tmp_path / "again" / WHEEL) as wheel:
        assert {name: wheel.read(name) for name in wheel.namelist()} == contents


def test_the_time_of_a_build_is_that_of_the_commit(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    assert build_wheel.epoch() == 7
    if (ROOT / ".git").exists():
        monkeypatch.delenv("SOURCE_DATE_EPOCH")
        shown = subprocess.run(
            ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert build_wheel.epoch() == int(shown.stdout)


def test_the_wheel_contains_the_packages_and_nothing_else(contents):
    info, data = f"lmvp-{lmvp.__version__}.dist-info", f"lmvp-{lmvp.__version__}.data"
    assert {name.split("/")[0] for name in contents} == {"lmvp", "lmvp_server", "lmvp_jupyter", info, data}
    expected = {
        name
        for name in build_wheel._source_files()
        if name.startswith(("lmvp/", "lmvp_server/", "lmvp_jupyter/")) and not name.endswith(".gitignore")
    }
    assert {name for name in contents if not name.startswith((info, data))} == expected
    assert {name for name in contents if name.startswith(data)} == {
        f"{data}/data/etc/jupyter/jupyter_server_config.d/lmvp_jupyter.json",
        *(f"{data}/data/share/jupyter/labextensions/lmvp/{name}" for name in LABEXTENSION),
    }
    for name in LABEXTENSION:
        source = (ROOT / "lmvp_jupyter" / "labextension" / name).read_bytes()
        assert contents[f"{data}/data/share/jupyter/labextensions/lmvp/{name}"] == source, "it is not built"
    licence_texts = {f"{info}/licenses/LICENSE", f"{info}/licenses/lmvp_server/static/vendor/uPlot-1.6.32.LICENSE"}
    assert licence_texts <= set(contents)
    assert contents[f"{info}/entry_points.txt"].decode() == "[console_scripts]\nlmvp = lmvp.cli:main\n"
    for record, digest, _ in csv.reader(io.StringIO(contents[f"{info}/RECORD"].decode())):
        assert record in contents
        assert digest.startswith("sha256=") or record.endswith("RECORD")


def test_the_distribution_names_no_place_of_the_machine(dist, contents):
    documents = {**contents, SBOM: (dist / SBOM).read_bytes()}
    for name, text in documents.items():
        assert str(ROOT).encode() not in text, name
        assert f"{tempfile.gettempdir()}/tmp".encode() not in text, name
        if not name.endswith((".py", ".js")):
            assert b"file://" not in text, name
            assert b"/simple/" not in text, name


class Installed:
    """An environment with the wheel; the dependencies come from the environment of the tests."""

    def __init__(self, folder, wheel):
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        self.folder, self.prefix = folder, folder / "venv"
        self.python = self.prefix / "bin" / "python"
        packages = sysconfig.get_path("purelib", vars={"base": str(self.prefix)})
        (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        names = ("PYTHON", "LMVP_", "COV", "JUPYTER")
        self.environment = {name: text for name, text in os.environ.items() if not name.startswith(names)}
        folders = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
        self.environment |= {**folders, "HOME": str(folder)}
        self.pip("install", "--no-index", "--no-deps", "--no-compile", "--ignore-installed", wheel)

    def pip(self, *arguments):
        self.run(sys.executable, "-m", "pip", "--python", self.python, "--quiet", *arguments)

    def run(self, *command):
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


def test_the_wheel_runs_in_an_environment_of_its_own(dist, tmp_path):
    """The dependencies come from the environment of the tests, LMVP from the wheel alone."""
    installed = Installed(tmp_path, dist / WHEEL)
    code = (
        "import lmvp, lmvp_server.app, lmvp_jupyter; print(lmvp.__file__, lmvp_server.__file__, lmvp_jupyter.__file__)"
    )
    files = installed.run(installed.python, "-c", code).split()
    assert all(Path(file).is_relative_to(tmp_path) for file in files), files
    assert lmvp.__version__ in installed.run(installed.prefix / "bin" / "lmvp", "--version")


def test_the_wheel_installs_the_extension_of_jupyterlab_and_removes_it(dist, tmp_path):
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    installed = Installed(tmp_path, dist / WHEEL)
    folder = installed.prefix / "share" / "jupyter" / "labextensions"
    listing = installed.run(installed.python, "-c", "from jupyterlab.labextensions import main; main()", "list")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", listing)
    assert f"{folder}\n        lmvp v{lmvp.__version__} enabled OK (python, lmvp)\n" in plain
    code = "import lmvp_jupyter; print(lmvp_jupyter.__path__[0], lmvp_jupyter._jupyter_labextension_paths()[0]['src'])"
    package, source = installed.run(installed.python, "-c", code).split()
    for name in LABEXTENSION:
        assert (folder / "lmvp" / name).read_bytes() == (Path(package) / source / name).read_bytes()
    installed.pip("uninstall", "--yes", "lmvp")
    assert not (folder / "lmvp").exists()


def test_the_extension_of_jupyterlab_has_the_version_of_the_package():
    """The release in the address of the script makes browsers load the script of the new release."""
    package = json.loads((ROOT / "lmvp_jupyter" / "labextension" / "package.json").read_text("utf-8"))
    assert package["version"] == lmvp.__version__
    assert package["jupyterlab"]["_build"]["load"] == f"static/remoteEntry.js?release={lmvp.__version__}"


def test_the_sbom_is_valid(dist):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str((dist / SBOM).read_text("utf-8")) is None


def test_the_sbom_describes_the_wheel(dist, document):
    product = document["metadata"]["component"]
    assert (product["name"], product["version"], product["purl"]) == (
        "lmvp",
        lmvp.__version__,
        f"pkg:pypi/lmvp@{lmvp.__version__}",
    )
    assert product["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256((dist / WHEEL).read_bytes()).hexdigest()}]
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"


def test_the_sbom_lists_every_package_and_what_it_needs(document):
    listed = {each["name"]: each for each in document["components"]}
    needed = {each.name: each for each in licences.packages() if each.installed}
    assert set(listed) == {*needed, "uplot"}
    assert listed["tornado"]["scope"] == "required"
    assert listed["scikit-learn"]["scope"] == "optional"
    assert all(each["licenses"] and each["version"] for each in listed.values())
    graph = {each["ref"]: each.get("dependsOn", []) for each in document["dependencies"]}
    direct = {ref.rpartition("@")[0] for ref in graph[f"lmvp@{lmvp.__version__}"]}
    assert direct == {*(name for name, each in needed.items() if each.direct), "uplot"}
    assert any(ref.startswith("urllib3@") for ref in graph[listed["requests"]["bom-ref"]])


def test_the_sbom_lists_every_vendored_file_with_its_hash(document, contents):
    (uplot,) = [each for each in document["components"] if each["name"] == "uplot"]
    assert uplot["licenses"] == [{"license": {"id": "MIT"}}]
    hashes = {each["name"]: each["hashes"][0]["content"] for each in uplot["components"]}
    folder = "lmvp_server/static/vendor/"
    assert set(hashes) == {name for name in contents if name.startswith(folder)} - {f"{folder}VENDORED.md"}
    assert all(hashlib.sha256(contents[name]).hexdigest() == digest for name, digest in hashes.items())
