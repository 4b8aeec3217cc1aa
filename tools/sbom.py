"""Generator of a CycloneDX SBOM for a wheel of LMVP and its dependencies."""

from __future__ import annotations

import datetime
import hashlib
import uuid
from collections import defaultdict
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from licences import Package, Vendored, packages, vendored
from packageurl import PackageURL
from packaging.version import Version


def sbom(wheel: Path, epoch: int) -> str:
    """Return the SBOM of a wheel as JSON.

    It lists the installed packages that LMVP needs: as required, or as optional if only extras need them. The same
    wheel, packages and `epoch` (seconds since 1970) give the same text.
    """
    name, version = wheel.name.split("-")[:2]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    product = Component(
        name=name,
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=f"{name}@{version}",
        purl=PackageURL("pypi", name=name, version=version),
        licenses=[LicenseFactory().make_from_string("BSD-3-Clause")],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
    # A random serial number or the build time would make each build different.
    document = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{product.purl}?sha256={digest}&epoch={epoch}"),
        metadata=BomMetaData(
            component=product, timestamp=datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
        ),
    )
    installed = {package.name: package for package in packages() if package.installed}
    components = {package.name: _component(package) for package in installed.values()}
    bundled = _bundled(vendored())
    document.components.update(components.values(), bundled)
    direct = [components[package.name] for package in installed.values() if package.direct]
    document.register_dependency(product, [*direct, *bundled])
    for package in installed.values():
        needed = [components[name] for name in sorted(package.needs) if name in components]
        document.register_dependency(components[package.name], needed)
    return JsonV1Dot6(document).output_as_string(indent=2) + "\n"


def _component(package: Package) -> Component:
    assert package.installed is not None
    version = Version(package.installed.version).public  # package indexes have no local versions such as 2.13.0+cpu
    return Component(
        name=package.name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=f"{package.name}@{version}",
        purl=PackageURL("pypi", name=package.name, version=version),
        scope=ComponentScope.REQUIRED if "" in package.extras else ComponentScope.OPTIONAL,
        licenses=[LicenseFactory().make_from_string(package.licence)],
    )


def _bundled(files: list[Vendored]) -> list[Component]:
    """Return a component for each vendored package; its files are subcomponents."""
    parts = defaultdict(list)
    for file in files:
        parts[file.package, file.version, file.licence].append(
            Component(
                name=file.path,
                type=ComponentType.FILE,
                bom_ref=file.path,
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
                licenses=[LicenseFactory().make_from_string(file.licence)],
            )
        )
    return [
        Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{name}@{version}",
            purl=PackageURL("npm", name=name, version=version),
            scope=ComponentScope.REQUIRED,
            licenses=[LicenseFactory().make_from_string(licence)],
            components=contained,
        )
        for (name, version, licence), contained in parts.items()
    ]
