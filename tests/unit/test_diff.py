from __future__ import annotations

from support import sample_history as sample

from lmvp.core.layers import group_of
from lmvp.core.manifest import File, Manifest, Tensor
from lmvp.views.diff import Diff


def tensor(name, shape=(256, 256), digest="0", dtype="F32"):
    return Tensor(name, dtype, shape, "w.safetensors", 0, 4, digest)


def manifest(*tensors, files=(("w.safetensors", 100, "0"),)):
    return Manifest("torch.module", tuple(File(*f) for f in files), tensors)


def diff(before, after, **fields):
    return Diff.between(
        sample.version(6, **fields.get("old", {})), sample.version(11, **fields.get("new", {})), before, after
    )


def test_tensors_by_what_became_of_them():
    found = diff(
        manifest(tensor("a.w"), tensor("b.w"), tensor("c.w"), tensor("d.w"), tensor("e.w")),
        manifest(
            tensor("a.w"), tensor("b.w", digest="1"), tensor("c.w", (8, 256)), tensor("d.w", dtype="F16"), tensor("f.w")
        ),
    )
    kinds = {t.name: t.change for t in found.tensors}
    assert kinds == {
        "a.w": "identical",
        "b.w": "changed",
        "c.w": "reshaped",
        "d.w": "reshaped",
        "e.w": "removed",
        "f.w": "new",
    }
    assert [t.name for t in found.tensors] == ["a.w", "b.w", "c.w", "d.w", "e.w", "f.w"]
    text = repr(found)
    assert "256 × 256 → 8 × 256" in text
    assert "256 × 256, F32 → F16" in text
    assert "a  " not in text, "only what differs"


def test_files():
    before = manifest(files=(("a", 1, "0"), ("b", 2, "0"), ("c", 3, "0")))
    after = manifest(files=(("a", 1, "0"), ("b", 5, "1"), ("d", 4, "0")))
    found = diff(before, after)
    assert [(f.path, f.change) for f in found.files] == [
        ("a", "identical"),
        ("b", "changed"),
        ("c", "removed"),
        ("d", "added"),
    ]
    assert not found.identical
    assert "1 of 4 files changed, 1 added, 1 removed, 1 identical" in repr(found)


def test_metrics_and_params():
    nan = float("nan")
    found = diff(
        manifest(), manifest(),
        old={"metrics": {"f1": 0.806, "one": 1.0, "odd": nan}, "params": {"lr": 0.1, "flag": True, "n": None}},
        new={"metrics": {"f1": 0.839, "one": 1.0, "odd": nan, "up": 0.2}, "params": {"flag": 1, "lr": 0.1, "n": None}},
    )  # fmt: skip
    assert [(m.key, m.before, m.after) for m in found.metrics] == [("f1", 0.806, 0.839), ("up", None, 0.2)]
    assert [p.key for p in found.params] == ["flag"]
    assert "+0.033" in repr(found)


def test_neighbours_that_tell_the_same_story_share_a_row():
    before = manifest(*(tensor(f"blocks.{i}.fc.weight") for i in range(6)), tensor("head.weight"))
    after = manifest(*(tensor(f"blocks.{i}.fc.weight", digest="1") for i in range(6)), tensor("head.weight"))
    text = repr(diff(before, after))
    assert "blocks.0 to 5" in text
    assert "1 changed in each" in text
    assert "head" not in text


def test_equal_versions():
    found = diff(manifest(tensor("a.w")), manifest(tensor("a.w")))
    assert found.identical
    assert repr(found) == "birdsong/tagger v6 → v11: all 1 layer identical"
    assert "<table" not in found._repr_html_()


def test_html_is_escaped_and_draws_every_layer():
    found = diff(manifest(tensor("<b>x</b>.w")), manifest(tensor("<b>x</b>.w", digest="1")))
    html = found._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>x" not in html
    assert html.count("<img") == 1


def test_different_models_are_named():
    found = Diff.between(sample.version(1), sample.version(1, model="denoiser"), manifest(), manifest())
    assert found.title == "birdsong/tagger@v1 → birdsong/denoiser@v1"


def test_groups_end_at_the_first_block_index():
    assert group_of("model.layers.12.mlp.experts.3.up") == "model.layers.12"
    assert group_of("layer2norm.x") == "layer2norm"
