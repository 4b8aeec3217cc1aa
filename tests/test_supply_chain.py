"""What a release needs, seen from outside: pins, a build and an audit as commands, a list of licences."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def text_of(name):
    """Return the text of a file of the checkout; nothing where there is none."""
    path = ROOT / name
    return path.read_text("utf-8") if path.is_file() else ""


def test_constraints_pin_what_development_installs():
    pins = re.findall(r"^([A-Za-z0-9._-]+)==\S+", text_of("constraints.txt"), re.MULTILINE)
    assert {"numpy", "pytest", "torch", "tornado"} <= {name.lower() for name in pins}


@pytest.mark.parametrize("target", ["wheel", "audit", "lock", "licences"])
def test_makefile_has_the_commands_of_a_release(target):
    asked = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr


def test_licences_are_listed():
    assert len(re.findall(r"^\| .+ \| .+ \|$", text_of("docs/licences.md"), re.MULTILINE)) > 100


def test_security_policy_tells_how_to_report():
    assert "## Reporting a vulnerability" in text_of("SECURITY.md")


def test_security_page_names_tests_for_its_promises():
    named = re.findall(r"`(tests/[\w/]+\.py)::test_\w+`", text_of("docs/security.md"))
    assert len(named) > 60
    assert [path for path in named if not (ROOT / path).is_file()] == []
