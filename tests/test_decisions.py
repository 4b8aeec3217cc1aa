"""Each decision record has the same form, and the index lists all of them."""

import re
from datetime import date
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "decisions"
RECORDS = sorted(FOLDER.glob("[0-9]*.md"))
HEAD = re.compile(r"# (\d{4}): (.+)\n\n- Date: (\d{4}-\d\d-\d\d)\n- Status: (Accepted|Superseded by (\d{4}))\n\n")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_decision_has_its_sections(path):
    text = path.read_text("utf-8")
    head = HEAD.match(text)
    assert head, "a title, a date and a status"
    assert path.name.startswith(f"{head[1]}-")
    assert re.fullmatch(r"\d{4}(-[a-z0-9]+)+\.md", path.name)
    assert date.fromisoformat(head[3])
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert not re.search(r"^## .+\n\n(?=## |\Z)", text, re.MULTILINE), "a section is empty"
    assert 8 <= len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 120
    if head[5]:
        assert head[5] > head[1]
        assert list(FOLDER.glob(f"{head[5]}-*.md")), "the record that supersedes it"


def test_decisions_are_numbered_in_the_order_of_their_dates():
    assert len(RECORDS) > 40
    heads = [HEAD.match(path.read_text("utf-8")) for path in RECORDS]
    assert [int(head[1]) for head in heads] == list(range(1, len(RECORDS) + 1))
    assert [head[3] for head in heads] == sorted(head[3] for head in heads)


def test_decision_index_lists_every_record():
    lines = re.findall(r"^- .+$", (FOLDER / "index.md").read_text("utf-8"), re.MULTILINE)
    expected = []
    for path in RECORDS:
        head = HEAD.match(path.read_text("utf-8"))
        note = f" (superseded by {head[5]})" if head[5] else ""
        expected.append(f"- [{head[1]}: {head[2]}]({path.name}){note}")
    assert lines == expected


def test_decision_links_lead_to_files():
    found = [
        f"{path.name}: {link}"
        for path in FOLDER.glob("*.md")
        for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8"))
        if not (FOLDER / link).is_file()
    ]
    assert found == []
