"""docs/licences.md lists each package and vendored file that users get, with a licence that LMVP accepts."""

import hashlib
import re
from pathlib import Path

import licences

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "licences.md").read_text("utf-8")
PACKAGES = dict(re.findall(r"^\| \**([a-z0-9-]+)\** \| ([^|]+) \| `[^|]+ \|$", PAGE, re.MULTILINE))
FILES = {
    path: (licence, sha256)
    for path, licence, sha256 in re.findall(
        r"^\| (lmvp_server/\S+) \| \S+ \| \S+ \| (\S+) \| ([0-9a-f]{64}) \|$", PAGE, re.MULTILINE
    )
}


def test_licences_list_every_package_that_users_need():
    found = {package.name for package in licences.packages()}
    assert found <= set(PACKAGES), "run `make licences`"
    for extra, requirements in licences.declared().items():
        if extra not in licences.DEVELOPMENT:
            assert {licences.canonicalize_name(each.name) for each in requirements} <= set(PACKAGES), extra


def test_licences_of_installed_packages_are_known_and_allowed():
    for package in licences.packages():
        assert not licences.not_allowed(package.licence), f"{package.name}: {package.licence}"


def test_licences_on_the_page_are_known_and_allowed():
    assert len(PACKAGES) > 100
    for name, licence in PACKAGES.items():
        assert not licences.not_allowed(licence), f"{name}: {licence}"
    assert licences.not_allowed("MIT AND AGPL-3.0-or-later") == {"AGPL-3.0-or-later"}
    assert licences.not_allowed("GPL-3.0-only OR LGPL-3.0-only") == {"GPL-3.0-only", "LGPL-3.0-only"}


def test_licences_list_every_vendored_file_with_its_hash():
    on_disk = {path for path in licences.VENDOR.iterdir() if path.name != "VENDORED.md"}
    assert {licences.ROOT / path for path in FILES} == on_disk
    for path, (licence, sha256) in FILES.items():
        assert not licences.not_allowed(licence)
        assert hashlib.sha256((licences.ROOT / path).read_bytes()).hexdigest() == sha256
    assert [file.sha256 for file in licences.vendored()] == [sha256 for _, sha256 in FILES.values()]


def test_vendored_code_has_its_licence_text_beside_it():
    for file in licences.vendored():
        text = licences.VENDOR / f"{file.path.rpartition('/')[2].split('.iife')[0].split('.min')[0]}"
        name = text.name.removesuffix(".LICENSE")
        assert "Permission is hereby granted" in (licences.VENDOR / f"{name}.LICENSE").read_text("utf-8")
