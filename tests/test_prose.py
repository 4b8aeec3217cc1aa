"""tools/prose.py finds the phrases that the style rules forbid, and no file has more of them than its baseline."""

import json
import subprocess
import sys
from pathlib import Path

import prose
import pytest

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "tools" / "prose_baseline.json"


def phrases(tmp_path, name, text):
    """Return the (line, phrase) pairs that the check finds in a file."""
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return [(found.line, found.phrase) for found in prose.check([path])[path.as_posix()]]


@pytest.mark.parametrize(
    ("sentence", "phrase"),
    [
        ("An alias stands at v3.", "stands at"),
        ("The chunk leans\non another.", "leans on"),
        ("The frame is encoded anew.", "anew"),
        ("This is a heap that is none.", "is none"),
        ("There is no key that fits.", "no key that"),
        ("It starts of its own accord.", "of its own accord"),
        ("The server ends by itself.", "by itself"),
        ("The token of whoever signed in.", "whoever"),
        ("Return what is said of a run.", "what is said"),
        ("A class that nobody vouched for.", "vouched for"),
        ("The file is as it was.", "as it was"),
        ("The version is gone.", "is gone"),
        ("It is removed for good.", "for good"),
        ("Take an alias away.", "Take an alias away"),
        ("Tell whether it matches.", "Tell"),
        ("What a sweep did.", "What"),
        ("It ends. Who asks gets an error.", "Who"),
    ],
)
def test_phrase_that_is_forbidden_is_found(sentence, phrase):
    found = list(prose.findings_in(prose.Passage(1, sentence)))
    assert phrase in [each.phrase for each in found]
    assert all(each.advice for each in found)


@pytest.mark.parametrize(
    "sentence",
    [
        "What does a push send?",
        "Return the rows of a table; the server knows what changed.",
        "The default is None.",
        "An alias points at a version and is moved.",
        "The option `tell` and the text ``by itself`` are code.",
        "A sheepish guarantee of whatever size",
    ],
)
def test_plain_sentence_has_no_findings(sentence):
    assert list(prose.findings_in(prose.Passage(1, sentence))) == []


def test_python_prose_is_found_at_its_line(tmp_path):
    text = '''"""Sizes of
chunks, computed anew."""

# An alias
# stands at a version.
from lmvp.errors import NotFound

anew = "stands at"
LIMIT = 3
"""What a chunk has at most."""


def find(name: str, **fields: object) -> None:
    r"""What a version contains.

    Parameters
    ----------
    who : str
        Whoever asks.

    Examples
    --------
    >>> find("leans on")
    what: stands at v3
    """
    if fields:
        raise NotFound(f"what {name} needs is gone")
    find(name, hint="take it away", other="take it away")
'''
    assert phrases(tmp_path, "sizes.py", text) == [
        (2, "anew"),
        (5, "stands at"),
        (10, "What"),
        (14, "What"),
        (19, "Whoever"),
        (19, "Whoever"),
        (27, "is gone"),
        (27, "what"),
        (28, "take it away"),
    ]


def test_markdown_code_is_no_prose(tmp_path):
    text = """# What waits for you

    >>> stands
```python
x = "stands at"
```
It `stands at` v3, see [anew](whoever.md).
<!-- for good -->
- Whoever pushes.
"""
    assert phrases(tmp_path, "page.md", text) == [(1, "What"), (7, "anew"), (9, "Whoever"), (9, "Whoever")]


def test_template_texts_are_prose(tmp_path):
    text = """<p title="what it leans on">{{ what }}</p>
{# for good #}<button>Take it
away</button><code>anew</code>
<script>const anew = 1;</script>
"""
    assert phrases(tmp_path, "page.html", text) == [(1, "leans on"), (1, "what"), (2, "Take it away")]


def test_script_comments_and_texts_are_prose(tmp_path):
    text = """/** What a view is told. */
const anew = x / 2; // drawn anew
show("it is gone", 'https://whoever.example');
"""
    found = [(1, "What"), (1, "told"), (3, "is gone")]
    assert phrases(tmp_path, "view.js", text) == [*found[:2], (2, "anew"), *found[2:]]


def test_baseline_only_goes_down(tmp_path):
    """A file may have as many findings as its entry; `--update` lowers entries, and raises none without `--force`."""
    page, baseline = tmp_path / "page.md", tmp_path / "baseline.json"
    arguments = [sys.executable, "tools/prose.py", str(page), "--baseline", str(baseline)]

    def run(*more):
        return subprocess.run([*arguments, *more], cwd=ROOT, capture_output=True, text=True)

    def entries():
        return json.loads(baseline.read_text("utf-8"))

    page.write_text("Encode anew.\n\nRemove for good.\n", "utf-8")
    refused = run()
    assert (refused.returncode, refused.stdout.splitlines()[0]) == (
        1,
        f"{page}:1: 'anew': use `again`, or name the action: re-encode, rewrite, restart",
    )
    baseline.write_text(json.dumps({str(page): 2, "other.md": 7}), "utf-8")
    assert run().returncode == 0
    page.write_text("Encode anew.\n", "utf-8")
    assert run().returncode == 0
    assert run("--update").returncode == 0
    assert entries() == {str(page): 1, "other.md": 7}
    page.write_text("Encode anew.\n\nRemove for good.\n", "utf-8")
    refused = run("--update")
    assert refused.returncode == 1
    assert f"{page}: 2 findings; the baseline allows 1" in refused.stdout
    assert entries()[str(page)] == 1
    assert run("--update", "--force").returncode == 0
    assert entries()[str(page)] == 2


def test_repository_has_no_more_findings_than_its_baseline():
    allowed = json.loads(BASELINE.read_text("utf-8"))
    found = prose.check([ROOT / path for path in prose.PATHS if (ROOT / path).exists()])
    assert len(found) > 400
    assert [str(each) for name in prose.over(found, allowed) for each in found[name]] == []
    assert [name for name in allowed if name not in found] == []
