"""What made a run is kept; what is secret is not."""

import subprocess
import sys
import threading
import time

import msgspec
import pytest

import lmvp
from lmvp.core.redaction import (
    BLOT,
    is_secret,
    redact,
    redact_command,
    redact_text,
)
from lmvp.core.schemas.runs import RunRecord
from lmvp.tracking import provenance
from lmvp.tracking.start import rank

SECRETS = [
    "AKIA" + "A" * 16,
    "ghp_" + "a1" * 15,
    "github_pat_" + "a" * 30,
    "hf_" + "b" * 30,
    "sk-" + "c" * 40,
    "xoxb-1234567890-abcdef",
    "AIza" + "d" * 35,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-def_123",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "glpat-" + "e" * 20,
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "key: {} # mine", "https://x.org/?a={}", "x = '{}'"])
def test_secrets_are_known_by_their_form(secret, around):
    found = redact_text(around.format(secret))
    assert secret not in found
    assert BLOT in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('password = "hunter2"', f"password = {BLOT}"),
        ("os.environ['WANDB_API_KEY'] = 'abc'", f"os.environ['WANDB_API_KEY'] = {BLOT}"),
        ('{"secret": "x", "lr": 0.1}', f'{{"secret": {BLOT}, "lr": 0.1}}'),
        ("login(token='abc', url='u')", f"login(token={BLOT}, url='u')"),
        (
            "requests.get(u, headers={'Authorization': f'Bearer abc'})",
            f"requests.get(u, headers={{'Authorization': f{BLOT}}})",
        ),
        ("git@example.org:a/b", "git@example.org:a/b"),
        ("https://ada:pw@example.org/x", f"https://{BLOT}@example.org/x"),
        ("curl -H 'x: Bearer abcdefghij'", f"curl -H 'x: Bearer {BLOT}'"),
        ("max_tokens = 100", "max_tokens = 100"),
        ("tokenizer = 'bpe'", "tokenizer = 'bpe'"),
        ("if password == 'x': pass", "if password == 'x': pass"),
        ("loss: float = 0.5", "loss: float = 0.5"),
    ],
)
def test_texts(text, expected):
    assert redact_text(text) == expected


@pytest.mark.parametrize("name", ["password", "DB_PASSWORD", "token", "hf_token", "api_key", "apikey", "aws.secret",
                                  "client_secret", "Authorization", "private_key", "my-api-key", "credentials",
                                  "access_token"])  # fmt: skip
def test_names_of_secrets(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", ["lr", "max_tokens", "token_dim", "num_tokens", "pad_token", "tokenizer", "key",
                                  "keys", "secretary", "n_tokens", "tokens_per_step", "passes", "author"])  # fmt: skip
def test_names_of_harmless_things(name):
    assert not is_secret(name)


def test_plain_data_is_walked():
    given = {"token": "abc", "nested": [{"password": "x", "n": 1}], "empty": {"secret": ""}, "number": {"token": 3}}
    expected = {"token": BLOT, "nested": [{"password": BLOT, "n": 1}], "empty": {"secret": ""}, "number": {"token": 3}}
    assert redact(given) == expected


def test_commands():
    words = [
        "python",
        "x.py",
        "--hf-token",
        "abc",
        "--lr",
        "3",
        "--password=p",
        "--tokenizer",
        "bpe",
        "--secret",
        "--flag",
    ]
    told = [
        "python",
        "x.py",
        "--hf-token",
        BLOT,
        "--lr",
        "3",
        f"--password={BLOT}",
        "--tokenizer",
        "bpe",
        "--secret",
        "--flag",
    ]
    assert redact_command(words) == told


def test_facts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--token", "abc"])
    for command in (
        ["init", "-q", "-b", "main"],
        ["config", "user.email", "ada@example.org"],
        ["config", "user.name", "ada"],
        ["remote", "add", "origin", "https://ada:hunter2@example.org/x.git"],
        ["commit", "-q", "--allow-empty", "-m", "first"],
    ):
        subprocess.run(["git", *command], check=True, capture_output=True)
    facts = provenance.facts(["import os", "password = 'x'"], capture=True)
    assert len(facts["git"]["commit"]) == 40
    assert (facts["git"]["branch"], facts["git"]["dirty"]) == ("main", False)
    assert facts["git"]["remote"] == f"https://{BLOT}@example.org/x.git"
    assert facts["command"] == {"arguments": ["train.py", "--token", BLOT], "folder": str(tmp_path)}
    assert facts["code"] == {"cells": ["import os", f"password = {BLOT}"]}
    assert facts["python"]
    assert facts["installed"]["msgspec"]
    assert "code" not in provenance.facts(["x"], capture=False)


def test_no_git_is_no_trouble(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "git" not in provenance.facts(capture=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git" not in provenance.facts(capture=False)


def test_the_rank(monkeypatch):
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert rank() == 0
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert rank() == 3
    monkeypatch.setenv("RANK", "0")
    assert rank() == 0


def test_the_rank_of_torch_distributed(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    if not torch.distributed.is_available():
        pytest.skip("this torch has no distributed")
    monkeypatch.setenv("RANK", "7")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        assert rank() == 0
    finally:
        torch.distributed.destroy_process_group()


def test_records_have_floats():
    import math
    from datetime import datetime, timezone

    record = RunRecord(
        id="a" * 32,
        project="p",
        name="n",
        status="running",
        created_at=datetime.now(timezone.utc),
        metrics={"x": "NaN"},
    )
    assert math.isnan(record.metrics["x"])


def lines(count):
    """Code with secrets, and with assignments that span lines."""
    secret = "sk-" + "c" * 40
    return "".join(
        f"x_{number} = '{secret}'\npassword =\n  'hunter{number}'\n\ntoken\n= 'abc{number}'\n"
        for number in range(count)
    )


def test_code_is_redacted_in_blocks_as_it_is_as_a_whole():
    key = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIE\n" * 3000 + "-----END RSA PRIVATE KEY-----\n"
    text = lines(300) + key + lines(300)
    parts = list(provenance.blocks(text))
    assert "".join(parts) == text
    assert max(len(part) for part in parts if "PRIVATE" not in part) < 2 * provenance._BLOCK
    assert "".join(map(redact_text, parts)) == redact_text(text)
    assert "hunter" not in redact_text(text)


def test_capture_leaves_out_long_lines_of_code():
    found = provenance.facts(["x = '" + "GATTACA" * 10_000 + "'\ny = 1\n"], capture=True)
    assert found["code"]["cells"] == ["# a line of 70,006 characters is left out\ny = 1\n"]


@pytest.mark.parametrize("hurry", [False, True])
def test_capture_waits_for_the_first_step_and_takes_a_small_share_of_a_core(hurry):
    """Work of 0.1 s of one core takes 2 s, unless the run ends meanwhile."""
    begun, told = threading.Event(), []
    capture = provenance.Capture(code=False, begun=begun.is_set, tell=told.append)
    work = []

    def facts(*_, pause, **__):
        work.append(time.monotonic())
        while time.thread_time() - capture._mark + capture._used < 0.1:
            sum(range(1000))
            pause()
        return {"done": time.monotonic() - work[0]}

    original, provenance.facts = provenance.facts, facts
    try:
        capture.start()
        time.sleep(0.5)
        assert work == []
        if hurry:
            capture.finish(30)
        else:
            begun.set()
            capture.join(30)
    finally:
        provenance.facts = original
    ((_, took),) = told[0].items() if told else ((None, None),)
    assert (took < 1.5) if hurry else (took >= 0.09 / provenance.SHARE)


def test_capture_is_bounded_in_time_and_size(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "PROCESSOR_LIMIT", 0.0)
    told = []
    capture = provenance.Capture(code=True, begun=lambda: True, tell=told.append)
    monkeypatch.setattr(provenance, "_SLICE", 0.0)
    capture.run()
    assert "installed" not in told[0]
    assert told[0]["python"]
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["train.py", *["a" * 100_000] * 5000])
    found = provenance.facts(["\0" * 190_000] * 2, capture=True)
    assert len(msgspec.json.encode(found)) <= provenance._FACTS_LIMIT
    assert found["python"]


def test_facts_of_a_run_wait_for_its_first_step(begin):
    """A run that was killed before is known by its command; one that ends before has all facts."""
    run = begin()
    run.flush()
    time.sleep(1.0)
    assert sorted(lmvp.run(run.id, "digits").environment) == ["command", "user"]
    run.finish()
    assert lmvp.run(run.id, "digits").environment["installed"]["msgspec"]


def test_facts_initialize_no_accelerator():
    torch = pytest.importorskip("torch")
    provenance.facts(capture=False)
    assert not torch.cuda.is_initialized()


def test_facts_of_a_branch_that_is_not_utf8(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (
        [b"init", b"-q", b"-b", b"caf\xe9"],
        [
            b"-c",
            b"user.email=ada@example.org",
            b"-c",
            b"user.name=ada",
            b"commit",
            b"-q",
            b"--allow-empty",
            b"-m",
            b"x",
        ],
    ):
        subprocess.run([b"git", *command], check=True, capture_output=True)
    assert provenance.facts(capture=False)["git"]["branch"] == r"caf\xe9"
