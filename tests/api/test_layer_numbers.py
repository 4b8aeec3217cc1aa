"""A layer has one number on all pages, and counters of batches are not ranked among weights."""

import json
import re

import numpy as np
import pytest
from support.in_process import TOKEN, Served

from lmvp.client.models import Client
from lmvp.views.diff import diff_data
from lmvp.views.version import showing_data

STEPS = 400


def network(batches, scale=1.0, *, shift=0.0, head=True):
    """Return a small network with batch normalisation, its weights scaled; `shift` moves one of them further."""
    net = {
        "conv1.weight": np.full((16, 3, 3, 3), 0.5 * scale, "float32"),
        "conv1.bias": np.full(16, 0.5 + shift, "float32"),
        "bn1.weight": np.full(16, scale, "float32"),
        "bn1.num_batches_tracked": np.array(batches, "int64"),
        "layer1.0.conv.weight": np.full((32, 16, 3, 3), 0.1 * scale, "float32"),
        "layer1.0.bn.weight": np.ones(32, "float32"),
        "layer1.0.bn.num_batches_tracked": np.array(batches, "int64"),
    }
    return net | ({"fc.weight": np.full((10, 32), 0.3 * scale, "float32")} if head else {})


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("served")) as served:
        client = Client(served.url, TOKEN)
        client.update("digits/cnn", network(100), create=True, progress=False)
        client.update("digits/cnn", network(100 + STEPS, 1.01, shift=0.2), progress=False)
        client.update("digits/cnn", network(100 + 2 * STEPS, 1.02, head=False), progress=False)
        client.get = lambda path: served("GET", path).text
        client.diff("digits/cnn@v1", "digits/cnn@v2")  # measures the changes, which strips show from then on
        yield client


def layers(data):
    """Return the layers of the data of a diff, by path."""
    return {
        one["path"]: one for block in data["blocks"] for group in block["groups"] for one in group["layers"]
    }  # fmt: skip


def test_counter_is_not_the_largest_change_of_a_diff(client):
    diff = client.diff("digits/cnn@v1", "digits/cnn@v2")
    found = layers(diff_data(diff))
    assert found["bn1"]["percent"] == "1.0 %"
    assert max(found.values(), key=lambda layer: layer["height"])["path"] == "conv1"
    assert {block["name"]: block["top"] for block in diff_data(diff)["blocks"]} == {
        "conv1": "≤ 7.6 %", "bn1": "≤ 1.0 %", "layer1.0": "≤ 1.0 %", "fc": "≤ 1.0 %",
    }  # fmt: skip
    for form in (repr(diff), re.sub("<[^>]+>", "", diff._repr_html_())):
        assert "399 %" not in form
        assert "Counters, not in the numbers above: bn1.num_batches_tracked by 400" in form


def test_counter_comes_last_and_tells_its_step(client):
    bn = layers(diff_data(client.diff("digits/cnn@v1", "digits/cnn@v2")))["bn1"]
    assert [one["name"] for one in bn["tensors"]] == ["weight", "num_batches_tracked"]
    assert bn["tensors"][1]["counter"] == "counter by 400"
    assert "percent" not in bn["tensors"][1]


def test_counter_is_not_the_largest_change_of_a_table(client):
    pytest.importorskip("pandas")
    found = client.diff("digits/cnn@v1", "digits/cnn@v2").to_pandas().set_index("name")["relative"]
    assert found.idxmax() == "conv1.bias"
    assert found["conv1.bias"] == pytest.approx(0.4)
    assert np.isnan(found["bn1.num_batches_tracked"])


def test_layer_whose_counter_alone_moved_has_the_smallest_change(client):
    diff = client.diff("digits/cnn@v1", "digits/cnn@v2")
    bn = layers(diff_data(diff))["layer1.0.bn"]
    assert (bn["code"], bn["counter"], bn["height"]) == ("1", "counters only", 0)
    assert re.search(r"layer1\.0\.bn +32 +33 +changed +counters only", repr(diff))


def test_strip_shades_a_layer_as_its_diff_does(client):
    shown = client.layers(client.version("digits/cnn@v2"))
    codes = {layer.path: code for layer, code in zip(shown.axis, shown.strips["2"], strict=True)}
    found = layers(diff_data(client.diff("digits/cnn@v1", "digits/cnn@v2")))
    assert codes == {path: layer["code"] for path, layer in found.items()}
    assert codes["bn1"] == "2"


def test_version_page_gives_a_layer_the_number_of_its_diff(client):
    data = showing_data(client.show("digits/cnn@v2"))
    groups = {group["name"]: group["change"] for group in data["groups"]}
    diff = diff_data(client.diff("digits/cnn@v1", "digits/cnn@v2"))
    found = layers(diff)
    for name in ("conv1", "bn1", "fc"):
        assert groups[name] == found[name]["percent"], name
    tops = {group["name"]: group["top"] for block in diff["blocks"] for group in block["groups"]}
    assert groups["layer1.0"] == tops["layer1.0"] == "≤ 1.0 %"
    tracked = next(one for group in data["groups"] for one in group["tensors"] if one["path"].startswith("bn1.num"))
    assert (tracked["change"], tracked["code"]) == ("by 400", "1")


@pytest.mark.parametrize(("version", "count", "gone"), [("v2", 5, 0), ("v3", 4, 1)])
def test_count_of_layers_agrees_on_all_pages(client, version, count, gone):
    parent = f"v{int(version[1:]) - 1}"
    diff = client.diff(f"digits/cnn@{parent}", f"digits/cnn@{version}")
    said = f"{count} of {count} layers changed"
    removed = f", {gone} removed" if gone else ""
    data = showing_data(client.show(f"digits/cnn@{version}"))
    page = client.get(f"~/p/digits/cnn/-/diff?from={parent}&to={version}")
    island = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])
    assert diff_data(diff)["sentence"] == island["sentence"] == said + removed
    assert repr(diff).splitlines()[0].endswith(said + removed)
    assert data["said"] == said
    assert f'aria-label="{said}"' in client.get(f"~/p/digits/cnn@{version}")
    assert f'aria-label="{said}"' in client.get("~/p/digits/cnn")
    history = client.show_history("digits/cnn")
    assert f'alt="{said}"' in history._repr_html_()
    assert len(data["codes"].replace(".", "")) == count


def test_bars_of_a_diff_have_the_names_of_their_layers(client, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # in a narrower terminal, the text has no bars
    diff = client.diff("digits/cnn@v1", "digits/cnn@v2")
    for name in ("conv1", "bn1", "conv", "bn", "layer1.0", "fc"):
        assert f">{name}</text>" in diff.to_svg()
    rows = {line.split()[0]: line for line in repr(diff).splitlines() if "█" in line}
    assert set(rows) == {"conv1", "bn1", "layer1.0.conv", "fc"}
    assert len(re.findall("█", rows["conv1"])) > len(re.findall("█", rows["bn1"])) > 0


def test_narrow_bars_of_a_diff_are_named_upright(client):
    def tree(scale):
        return {f"blocks.{b}.{part}.weight": np.full(64, scale, "float32") for b in range(8)
                for part in ("norm", "attention", "projection")}  # fmt: skip

    for scale in (1.0, 1.1):
        client.update("digits/deep", tree(scale), create=True, progress=False)
    drawing = client.diff("digits/deep@v1", "digits/deep@v2").to_svg()
    assert drawing.count("rotate(-90)") == 24
    assert len(re.findall(r"rotate\(-90\)[^>]*>attention</text>", drawing)) == 8
    assert re.findall(r">(blocks[.\d]*)</text>", drawing) == [f"blocks.{b}" for b in range(8)]


def test_counter_is_told_from_weights_by_form_and_name():
    from lmvp.core.layers import is_counter

    counters = [("bn.num_batches_tracked", "I64", ()), ("optimizer/iteration", "I64", ()), ("state.0.step", "F32", ()),
                ("seen", "U32", (1,)), ("scaler.n_samples_seen_", "I64", (30,))]  # fmt: skip
    weights = [("fc.weight", "I8", (10, 10)), ("scale", "F32", ()), ("fc.zero_point", "U8", (10,)),
               ("mask", "BOOL", ()), ("step.weight", "F32", (3,))]  # fmt: skip
    assert [is_counter(*one) for one in counters] == [True] * 5
    assert [is_counter(*one) for one in weights] == [False] * 5
