"""The verbs that keep house, on a real server, as a user types them."""

import io
import re

import numpy as np
import pytest

import lmvp
from lmvp.cli import main
from lmvp.core.server_file import data_home


@pytest.fixture
def lines(home, capsys):
    """A model of four versions with metrics; gives a function that types a command and returns code and output."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((300, 1000)).astype(np.float32)
    for number in range(1, 5):
        weights = weights + np.float32(1e-5) * rng.standard_normal(weights.shape).astype(np.float32)
        lmvp.update("digits/mlp", {"w": weights}, metrics={"loss": 1 / number})

    def typed(*words):
        code = main(words)
        said = capsys.readouterr()
        return code, said.out.strip() + said.err.strip()

    return typed


def test_du_tells_what_compact_saved(lines):
    code, before = lines("du", "digits/mlp")
    assert code == 0
    assert before.splitlines()[1].split() == ["digits/mlp@v4", "1", "1.2", "MB", "1.2", "MB", "0", "%"]
    code, said = lines("compact")
    assert (code, said.endswith("saved")) == (0, True)
    code, after = lines("du")
    assert code == 0
    assert "digits" in after.splitlines()[1]
    saved = int(after.splitlines()[1].split()[-2])
    assert 20 < saved < 80
    assert "On the disk of the server: " in after


def test_du_adds_up_to_the_disk(lines):
    lines("compact")
    usage = lmvp.Client().usage("digits/")
    kept = {kind: usage.disk[kind] for kind in ("chunks", "manifests", "notes", "staging", "damaged")}
    found = {
        kind: sum(path.stat().st_size for path in (data_home() / kind).rglob("*") if path.is_file()) for kind in kept
    }
    assert kept == found
    assert usage.stored == usage.disk["chunks"]
    assert usage.logical == sum(version.size for version in lmvp.showHistory("digits/mlp"))


def test_rm(lines):
    assert lines("rm", "digits/mlp@v2", "--now")[1].startswith("1 version removed, 1.")
    code, said = lines("rm", "digits/mlp@v2")
    assert (code, "no version v2" in said) == (3, True)
    code, said = lines("rm", "digits/mlp")
    assert (code, said) == (
        2,
        "lmvp: 'digits/mlp' has 3 versions\n  hint: `--yes` removes all of them",
    )
    assert lines("rm", "digits/", "--yes", "--now")[1].startswith("3 versions removed, ")
    assert lines("ls")[1] == "no projects yet"
    assert lines("undelete") == (0, "nothing was removed that you could bring back")


def test_undelete(lines):
    before = lmvp.download("digits/mlp@v2", progress=False)["w"]
    code, said = lines("rm", "digits/mlp@v2")
    assert (code, said.startswith("1 version removed; `lmvp undelete digits/mlp@v2` restores")) == (0, True)
    code, said = lines("pull", "digits/mlp@v2", "--to", "out")
    assert (code, "it was removed\n  hint: `lmvp undelete digits/mlp@v2` brings it back" in said) == (3, True)
    assert "digits/mlp@v2" in lines("undelete")[1]
    assert lines("undelete", "digits/mlp@v2") == (0, "digits/mlp@v2 is back")
    assert (lmvp.download("digits/mlp@v2", progress=False)["w"] == before).all()
    lines("rm", "digits/mlp", "--yes")
    assert lines("undelete", "digits/mlp") == (0, "digits/mlp is back")
    lines("rm", "digits/", "--yes")
    assert lines("du")[1].splitlines()[1].startswith("digits (removed)")
    assert lines("undelete", "digits/") == (0, "digits/ is back")
    assert [one.name for one in lmvp.showHistory("digits/mlp")] == ["v4", "v3", "v2", "v1"]
    lines("rm", "digits/mlp@v2")
    assert lines("gc", "--removed")[1].startswith("1 chunk deleted, 1.")
    code, said = lines("undelete", "digits/mlp@v2")
    assert (code, "no version v2 of digits/mlp can be brought back" in said) == (3, True)


def test_prune(lines):
    lmvp.alias("digits/mlp@v2", "production")
    rule = "best:loss:1,last:1"
    code, told = lines("prune", "digits/mlp", "--keep", rule, "--dry-run")
    assert (code, told.startswith("1 version (v3) would go, 1.")) == (0, True)
    assert len(lmvp.showHistory("digits/mlp")) == 4
    assert lines("prune", "digits/mlp", "--keep", rule, "--save")[1].startswith("1 version (v3) removed, 1.")
    assert lines("prune", "digits/mlp")[1] == "no version removed, 0 B freed"
    assert lines("prune", "digits/mlp", "--forget")[0] == 0
    code, said = lines("prune", "digits/mlp")
    assert (code, "best:METRIC:N" in said) == (2, True)


def test_gc_after_rm_explains_what_stays(lines):
    lines("rm", "digits/mlp@v2")
    (item,) = lmvp.Client().removed("digits")
    code, said = lines("gc")
    assert code == 0
    until = f"{item.until.astimezone():%Y-%m-%d %H:%M}"
    deleted, waiting = said.splitlines()
    assert deleted == "0 chunks deleted, 0 B freed"
    assert waiting.startswith(f"1 removed object can be restored until {until}; the bytes stay until then: ")
    assert waiting.endswith("`lmvp undelete` lists them, `lmvp gc --removed` deletes them now")
    said = lines("gc", "--removed")[1]
    assert said.startswith("1 chunk deleted, 1.")
    assert "restored" not in said


def test_gc_and_fsck(lines):
    assert lines("gc")[1] == "0 chunks deleted, 0 B freed"
    assert lines("fsck")[1].endswith("no problem found")
    path = max((data_home() / "chunks").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    code, said = lines("fsck", "--no-progress")
    assert code == 9
    assert "1 problem in 4 versions" in said
    assert "digits/mlp@v" in said
    assert "lmvp fsck --repair" in said
    assert lines("fsck", "--repair", "--no-progress")[0] == 9
    assert list((data_home() / "damaged").rglob("*"))


def test_diff_says_how_much(lines):
    code, said = lines("diff", "digits/mlp@v1", "@v4")
    assert code == 0
    assert "Relative change" in said
    assert "0.0017 %" in said


def test_the_help_of_prune_tells_what_stays_in_any_case(capsys):
    with pytest.raises(SystemExit):
        main(["prune", "--help"])
    assert "versions with an alias and their first parents are always kept" in " ".join(capsys.readouterr().out.split())


def test_backup_and_fsck_count_the_same_versions(lines, tmp_path):
    lmvp.update("p/trash", {"w": np.arange(3)})
    lmvp.update("p/copy", {"w": np.arange(3)})
    lmvp.rm("p/trash@v1")
    counts = re.search(r"[0-9]+ versions \(1 in the trash\)", lines("fsck")[1])
    assert counts
    assert counts.group() in lines("backup", str(tmp_path / "safe"))[1]
    assert main(["restore", str(tmp_path / "safe"), "--data", str(tmp_path / "data"), "--json"]) == 0


def test_rm_asks_on_a_terminal(lines, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    lmvp.update("p/asked", {"w": np.arange(3)})
    lmvp.update("p/asked", {"w": np.arange(4)})
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert main(["rm", "p/asked@v1"]) == 2
    told = capsys.readouterr().err
    assert "`lmvp undelete p/asked@v1` restores it" in told
    assert "--yes" in told
    assert len(lmvp.history("p/asked")) == 2
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert main(["rm", "p/asked@v1"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", Terminal(""))
    assert main(["rm", "p/asked", "--yes"]) == 0
    assert "Continue?" not in capsys.readouterr().err
