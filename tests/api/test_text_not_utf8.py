"""Arguments of the shell that are not UTF-8: each verb stores them escaped or refuses them with a message."""

import io
import os

import numpy as np
import pytest

import lmvp
from lmvp import errors
from lmvp.cli import main

TEXT = os.fsdecode(b"caf\xe9")
ESCAPED = r"caf\xe9"


@pytest.fixture
def digits(home):
    lmvp.push("digits/mlp", {"w": np.zeros(3)}, metrics={"acc": 0.5})
    lmvp.push("digits/mlp", {"w": np.ones(3)}, propose=True)
    with lmvp.start_run("digits", name="first", system_metrics=False) as run:
        run.log({"loss": 0.5}, step=0)


def test_text_that_is_not_utf8_is_escaped_in_what_is_stored(digits):
    assert lmvp.push("digits/mlp", {"w": np.full(3, 2.0)}, message=TEXT, tags={TEXT: TEXT}).message == ESCAPED
    assert lmvp.amend("digits/mlp", message=TEXT, tags={TEXT: TEXT}).tags == {ESCAPED: ESCAPED}
    run = lmvp.run("first", "digits")
    run.notes = TEXT
    run.tags["a"] = TEXT
    assert (run.refresh().notes, run.tags) == (ESCAPED, {"a": ESCAPED})
    assert lmvp.annotate("first", "digits", notes=f"{TEXT}!", name=TEXT).notes == f"{ESCAPED}!"
    assert lmvp.run(ESCAPED, "digits").id == run.id
    lmvp.comment("digits/mlp@c1", TEXT)
    declined = lmvp.decline("digits/mlp@c1", TEXT)
    assert (declined.reason, declined.comments[0].words) == (ESCAPED, ESCAPED)


LINES = [
    "ls {}", "history {}", "history digits/mlp --where message=='{}'", "show digits/mlp@{}", "diff digits/mlp@v1 @{}",
    "alias digits/mlp@v1 {}", "alias digits/mlp {} --remove", "pull digits/mlp@v1 --to out-{}", "runs {}",
    "runs digits --where tags.a=='{}'", "runs digits --order {}", "metrics digits/{}", "metrics digits/first --key {}",
    "compare digits/first {}", "annotate digits/{} --notes x", "rm digits/runs/{}", "undelete digits/runs/{}",
    "contributions {}", "accept digits/{}@c1", "rollback digits/mlp@{}", "require digits/mlp acc>{}",
    "fork digits/{} other/mlp", "members digits add {}", "members digits remove {}", "users add {}",
    "groups set {} ada", "tokens revoke {}", "tokens make {}", "identities --user {}", "webhooks digits remove {}",
    "audit list --who {}", "audit list {}", "audit list digits --action {}", "devices approve {}", "project {}",
    "du {}", "prune digits/mlp --keep {}", "export digits/{} out", "import {}", "bisect digits/mlp --good {}",
    "open {}", "sync {}", "login http://{}", "best {} acc", "nothing-{}",
]  # fmt: skip


def test_argument_that_is_not_utf8_gets_an_answer_of_each_verb(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROWSER", "true")
    monkeypatch.setattr("sys.stdin", io.StringIO("a long password\n" * 9))
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.LmvpError)]
    known = {0, *(one.exit_code for one in classes)}
    for line in LINES:
        try:
            code = main([word.format(TEXT) for word in line.split()])
        except SystemExit as ended:  # of argparse
            code = ended.code
        except UnicodeError as error:
            raise AssertionError(line) from error
        assert code in known, line
