"""Build the wheel, the sdist and the SBOM reproducibly: `python tools/build_wheel.py FOLDER`.

The same commit, built with the same releases of Python and setuptools (constraints.txt), gives the same bytes.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from sbom import sbom

ROOT = Path(__file__).resolve().parent.parent
UNTRACKED = {".git", ".venv", "__pycache__", "build", "dist"}


def main(target: str) -> int:
    """Build wheel, sdist and SBOM into a folder and print the names of the files."""
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    seconds = epoch()
    with tempfile.TemporaryDirectory() as temporary:
        source, built = Path(temporary, "source"), Path(temporary, "built")
        _stage(source)
        _run_backend(source, built, seconds)
        (wheel,) = built.glob("*.whl")
        (sdist,) = built.glob("*.tar.gz")
        sdist.write_bytes(_normalized(sdist, seconds))
        document = built / ("-".join(wheel.name.split("-")[:2]) + ".cdx.json")
        document.write_text(sbom(wheel, seconds), encoding="utf-8")
        for path in (wheel, sdist, document):
            print(shutil.copyfile(path, folder / path.name))
    return 0


def epoch() -> int:
    """Return SOURCE_DATE_EPOCH, or else the time of the last commit, in seconds since 1970."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    shown = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)
    if not shown.stdout.strip():
        sys.exit("no commit gives the time of the build; set SOURCE_DATE_EPOCH to its seconds since 1970")
    return int(shown.stdout)


def _stage(target: Path) -> None:
    """Copy the source with fixed file modes: a wheel stores modes, and git creates files according to the umask."""
    for path in _source_files():
        copied = target / path
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, copied)
        copied.chmod(0o755 if (ROOT / path).stat().st_mode & 0o100 else 0o644)


def _source_files() -> list[str]:
    """Return the files that git tracks, so that no other file gets into a wheel; outside of git, return all files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    # In a folder inside another checkout, git lists no files.
    names = [name for name in listed.stdout.split("\0") if name] or [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*")
        if not UNTRACKED.intersection(path.relative_to(ROOT).parts) and ".egg-info" not in str(path)
    ]
    return sorted(name for name in names if (ROOT / name).is_file())


def _run_backend(source: Path, built: Path, seconds: int) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--sdist",
        "--wheel",
        "--outdir",
        str(built),
        str(source),
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(seconds), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command,
        cwd=source,
        env=environment,
        umask=0o022,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout)


def _normalized(sdist: Path, seconds: int) -> bytes:
    """Return an sdist in the order of its names, without the times, users and groups of this machine.

    setuptools uses SOURCE_DATE_EPOCH for wheels only.
    """
    packed = io.BytesIO()
    with (
        tarfile.open(sdist) as old,
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=seconds) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.size, plain.mtime = member.type, member.size, seconds
            plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(plain, old.extractfile(member) if member.isfile() else None)
    return packed.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/build_wheel.py FOLDER")
    sys.exit(main(sys.argv[1]))
