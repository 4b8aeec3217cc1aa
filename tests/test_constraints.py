"""constraints.txt pins every dependency of development and CI for each supported Python."""

import re
from pathlib import Path

import pytest
from licences import PYTHONS, declared
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LINES = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if line and not line.startswith("#")]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def environment(python):
    return {**default_environment(), "python_version": python, "python_full_version": f"{python}.9", "extra": ""}


def applies(requirement, python):
    return requirement.marker is None or requirement.marker.evaluate(environment(python))


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_each_direct_dependency_in_its_range(python):
    pins = {}
    for pin in PINS:
        if applies(pin, python):
            assert pins.setdefault(canonicalize_name(pin.name), pin) is pin, f"{pin.name} has two pins for {python}"
    extras = declared()
    assert {"", "dev", "test", "lightning", "transformers"} <= set(extras)
    for extra, requirements in extras.items():
        for requirement in requirements:
            if requirement.name == "lmvp" or not applies(requirement, python):
                continue
            pin = pins.get(canonicalize_name(requirement.name))
            assert pin, f"{requirement} of [{extra}] has no pin for Python {python}: run `make lock`"
            (version,) = [each.version for each in pin.specifier]
            assert requirement.specifier.contains(version), (
                f"[{extra}] {requirement}, but constraints.txt has {version}"
            )


def test_constraints_are_exact_and_name_no_place():
    for pin in PINS:
        assert [each.operator for each in pin.specifier] == ["=="], pin
        assert pin.url is None, pin
        assert not pin.extras, pin
    assert not [line for line in LINES if "://" in line or line.startswith("-")]


def test_constraints_keep_the_torch_that_make_test_installs():
    (torch,) = [pin for pin in PINS if pin.name == "torch"]
    assert torch.marker is None
    assert str(torch.specifier) == f"=={re.search(r'^TORCH := (.+)$', MAKEFILE, re.MULTILINE)[1]}"


def test_every_install_of_the_makefile_uses_the_constraints():
    installs = re.findall(r"^.*\b(?:pip install|pip_progress)\b.*$", MAKEFILE, re.MULTILINE)
    assert installs == ["PIP := $(BIN)/python tools/pip_progress.py -c constraints.txt"]
