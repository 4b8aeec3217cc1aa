"""What the diff view draws: the layers as blocks, groups, layers and tensors; values; code."""

import json

from support import sample_history as sample

from lmvp.core.manifest import File, Manifest, Tensor
from lmvp.core.schemas import Amount, Changes
from lmvp.views.diff import Diff, diff_data


def tensor(name, digest="0", shape=(8, 8)):
    return Tensor(name, "F32", shape, "w.safetensors", 0, 4, digest)


def blocks(digest, *more):
    names = [f"blocks.{b}.{part}" for b in range(4) for part in ("norm.weight", "mlp.weight", "mlp.bias")]
    tensors = [tensor(name, digest if "mlp" in name else "0") for name in names]
    return Manifest("torch.module", (File("w.safetensors", 100, digest),), (*tensors, *more))


def amount(relative):
    return Amount(count=64, changed=64, squares=relative**2, base_squares=1.0, largest=0.5, after_squares=1.0)


def found(**fields):
    amounts = {f"blocks.{b}.mlp.{part}": amount(0.1) for b in range(4) for part in ("weight", "bias")}
    diff = Diff.between(
        sample.version(6, metrics={"val/loss": 0.3}, params={"lr": 0.1}, **fields.get("old", {})),
        sample.version(11, metrics={"val/loss": 0.2}, params={"lr": 0.2}, **fields.get("new", {})),
        blocks("0", tensor("old")),
        blocks("1", tensor("head.weight")),
        Changes(against="6", tensors=amounts),
    )
    return diff, diff_data(diff)


def test_blocks_that_tell_the_same_story_stand_together():
    _, data = found()
    assert [block["name"] for block in data["blocks"]] == ["blocks.0 to 3", "old", "head"]
    first = data["blocks"][0]
    assert (first["story"], first["top"], first["identical"]) == ("1 changed, 1 identical in each", "≤ 10 %", False)
    assert [group["label"] for group in first["groups"]] == ["0", "1", "2", "3"]
    norm, mlp = first["groups"][0]["layers"]
    assert (norm["kind"], norm["code"]) == ("identical", "0")
    assert "tensors" not in norm
    assert (mlp["name"], mlp["percent"], mlp["code"], mlp["height"]) == ("mlp", "10 %", "4", 75)
    assert [one["name"] for one in mlp["tensors"]] == ["weight", "bias"]
    assert mlp["cosine"] == "0.9950"
    assert data["blocks"][1]["groups"][0]["layers"][0]["kind"] == "removed"


def test_it_is_json_and_says_which_way_is_better():
    _, data = found()
    json.dumps(data, allow_nan=False)
    metrics, params = data["tables"][:2]
    assert (metrics["heads"][0], metrics["rows"], metrics["better"]) == (
        "Metric", [["val/loss", "0.300", "0.200", "−0.100"]], [1],
    )  # fmt: skip
    assert params["rows"] == [["lr", "0.1", "0.2"]]


def test_what_made_them_and_their_code():
    old = {"environment": {"python": "3.11.1", "packages": {"torch": "2.1"}, "git": {"commit": "a" * 40, "dirty": True},
                           "code": {"cells": ["lr = 0.1\ntrain()", "push()"]}}}  # fmt: skip
    new = {"environment": {"python": "3.12.0", "packages": {"torch": "2.2", "numpy": "2"}, "git": {"commit": "b" * 40},
                           "code": {"cells": ["lr = 0.2\n\ttrain()", "push()"]}}}  # fmt: skip
    diff, data = found(old=old, new=new)
    tables = {table["heads"][0]: table["rows"] for table in data["tables"]}
    assert tables["Package"] == [["torch", "2.1", "2.2"], ["numpy", "none", "2"]]
    assert tables["Made with"] == [
        ["commit", "aaaaaaaaaa with uncommitted changes", "bbbbbbbbbb"], ["python", "3.11.1", "3.12.0"],
    ]  # fmt: skip
    assert data["code"] == ["@@ -1,4 +1,4 @@", "-lr = 0.1", "-train()", "+lr = 0.2", "+    train()", " ", " push()"]
    for form in (repr(diff), diff._repr_html_()):
        assert "lr = 0.2" in form
        assert "torch" in form
    assert "data:image/svg" in diff._repr_html_()


def test_odd_environments_are_no_trouble():
    odd = {"environment": {"python": 3, "packages": ["torch"], "git": "main", "code": "x = 1"}}
    _, data = found(old=odd, new={"environment": {"code": {"cells": None, "source": 3}}})
    assert data["code"] == []
