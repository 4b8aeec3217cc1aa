"""Redaction takes linear time. Quadratic time would exceed the time-out of these tests a hundredfold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmvp.core.redaction import (
    BLOT,
    is_secret,
    redact_command,
    redact_text,
)

SIZE = 1 << 18

WORDS = {
    "DNA": "GATTACA",
    "hex": "0123456789abcdef",
    "base32": "MFRGGZDFMZTWQ2LK",
    "base64url": "aB-_9",
    "dotted names": "a.b_c.",
    "snake names": "a_",
    "dashes": "-",
    "dots": ".",
    "spaces": " ",
    "quotes": "'",
    "URL credentials": "://a:b",
    "token headers": "eyJhbGciOiJ-",
    "token headers with dots": "eyJhbGciOiJIUzI1.",
    "short token headers": "eyJ.",
    "names of secrets": "password",
    "assignments": "password='",
    "assignments with two kinds of quotes": "password=\"a'",
    "names and spaces": "token    ",
    "options": "a1-token",
    "private keys": "-----BEGIN PRIVATE KEY-----",
    "headings of private keys": "PRIVATE KEY-----BEGIN ",
    "authorization": "Bearer Basic ",
    "letters outside ASCII": "é",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_redaction_is_linear(word):
    text = word * (SIZE // len(word))
    redact_text(text)
    redact_text(f"://a:{text}")
    is_secret(text)
    redact_command([text, f"--{text}", f"--{text}=1"])


TRAINING = """
import time
import lmvp
word = "WORD"
with lmvp.start_run("digits", params={"word": word}, system_metrics=False) as run:
    run.log({"loss": 1.0})
    began, used = time.perf_counter(), time.process_time()
    for step in range(100):
        time.sleep(0.001)
        run.log({"loss": 1.0})
    print(time.perf_counter() - began, time.process_time() - used)
"""


@pytest.mark.timeout(120)
def test_steps_of_a_script_with_a_long_word_are_not_delayed(home, tmp_path):
    """The script and a param hold a word of 24,000 letters. The bounds are thousands of times the work of a step."""
    script = tmp_path / "train.py"
    script.write_text(TRAINING.replace("WORD", "GATTACA" * 3429))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    took, used = map(float, done.stdout.split())
    assert used < 2
    assert took < 6


@pytest.mark.timeout(60)
def test_redaction_finds_secrets_in_long_words():
    long = "GATTACA" * (SIZE // 7)
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-def_123"
    assert redact_text(f"{long}_password = 'x'") == f"{long}_password = {BLOT}"
    assert redact_text(f"{long}-{token}") == f"{long}-{BLOT}"
    assert redact_text(f"https://ada:{long}@example.org") == f"https://{BLOT}@example.org"
