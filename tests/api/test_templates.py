"""Rules for the templates of pages."""

import re
from pathlib import Path

import pytest

TEMPLATES = Path(__file__).parents[2] / "lmvp_server" / "templates"
NAMES = sorted(str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.html"))


@pytest.mark.parametrize("name", NAMES)
def test_templates_have_short_lines_and_no_inline_styles(name):
    text = (TEMPLATES / name).read_text("utf-8")
    assert [line for line in text.splitlines() if len(line) > 120] == []
    assert not re.search(r"\sstyle\s*=", text), "use a class of static/look.css"


def test_classes_of_templates_are_in_the_stylesheet():
    stylesheet = (TEMPLATES.parent / "static" / "look.css").read_text("utf-8")
    known = set(re.findall(r"\.([a-z][\w-]*)", stylesheet))
    used = set()
    for name in NAMES:
        text = re.sub(r"{[{%].*?[%}]}", " ", (TEMPLATES / name).read_text("utf-8"), flags=re.DOTALL)
        for found in re.findall(r'class="([^"]*)"', text):
            used |= set(found.split())
    assert used - known == {"system"}, "marks the section of system metrics for tests"
