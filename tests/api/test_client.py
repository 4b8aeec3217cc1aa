"""The client against a real server: publish, fetch, look, change."""

import io
import math
import re
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import lmvp
from lmvp import errors
from lmvp.transfer.progress import LONG, showing


def weights(value=0.0):
    return {"body.weight": np.full((4, 3), value, dtype="f4"), "body.bias": np.zeros(4), "head.weight": np.ones(2)}


def test_update_and_download(home):
    version = lmvp.update(
        "digits/mlp", weights(), message="first", metrics={"acc": 0.5}, params={"lr": 1e-3}, tags={"by": "ada"}
    )
    assert (version.project, version.model, version.number, version.name) == ("digits", "mlp", 1, "v1")
    assert (version.message, version.metrics, version.params, version.tags) == (
        "first",
        {"acc": 0.5},
        {"lr": 0.001},
        {"by": "ada"},
    )
    assert version.size > 0
    assert version.author
    assert version.environment["packages"]["numpy"] == np.__version__
    pulled = lmvp.download("digits/mlp")
    assert list(pulled) == list(weights())
    assert all((pulled[name] == value).all() for name, value in weights().items())


def test_a_bare_name_is_in_the_current_project(home, monkeypatch):
    assert lmvp.update("mlp", weights()).reference == "default/mlp@v1"
    monkeypatch.setenv("LMVP_PROJECT", "digits")
    assert lmvp.update("mlp", weights()).reference == "digits/mlp@v1"


def test_the_same_again_makes_nothing(home):
    first = lmvp.update("digits/mlp", weights(), message="first", metrics={"acc": math.nan})
    assert lmvp.update("digits/mlp", weights(), message="first", metrics={"acc": math.nan}).number == 1
    assert lmvp.update("digits/mlp", weights(), alias="best").aliases == ("best",)
    assert lmvp.update("digits/mlp", weights(), message="other").number == 2
    assert lmvp.update("digits/mlp", weights(), message="other").content == first.content


@pytest.mark.parametrize("numbers", [10, 1_000_000])  # pushed in one request, and in several
def test_the_same_again_sends_nothing_and_says_so(home, numbers):
    weights = {"w": np.arange(numbers, dtype="f4")}
    first = lmvp.update("d/m", weights, progress=False)
    again = lmvp.update("d/m", weights, progress=False)
    assert (first.number, first.sent > 4 * numbers, again.number, again.sent) == (1, True, 1, 0)
    assert lmvp.show_history("d/m")[0].sent == first.sent


def test_only_what_changed_is_sent(home):
    model = {f"layer{i}.weight": np.random.default_rng(i).random(1 << 20, dtype=np.float32) for i in range(5)}
    first = lmvp.update("digits/big", model, progress=False)
    model["layer2.weight"] += 1
    second = lmvp.update("digits/big", model, progress=False)
    assert first.sent == first.size
    assert second.sent < 5 << 20
    assert lmvp.download("digits/big@v1")["layer2.weight"].max() < 1


def test_revisions(home):
    for value in range(1, 5):
        version = lmvp.update("digits/mlp", weights(value), alias="best" if value in (2, 3) else ())
    client = lmvp.Client()
    for revision, number in {
        "": 4, "@latest": 4, "@v2": 2, "@2": 2, "@best": 3, "@best~1": 2, "@latest~3": 1, "@best@{1}": 2,
        f"@{version.digest[:8]}": 4, "@best@2999-01-01": 3,
    }.items():  # fmt: skip
        assert client.version(f"digits/mlp{revision}").number == number, revision
    with pytest.raises(errors.NotFound, match="was not there"):
        client.version("digits/mlp@best@2001-01-01")
    with pytest.raises(errors.NotFound, match="has no parent"):
        client.version("digits/mlp@v1~1")


def test_the_parent_is_where_the_object_came_from(home):
    for value in range(3):
        lmvp.update("digits/mlp", weights(value))
    old = lmvp.download("digits/mlp@v1")
    old["head.weight"][0] = 7
    branch = lmvp.update("digits/mlp", old)
    assert [parent.number for parent in branch.parents] == [1]
    assert [parent.number for parent in lmvp.update("digits/mlp", weights(9)).parents] == [4]
    assert [parent.number for parent in lmvp.update("digits/mlp", weights(10), parent="v2").parents] == [2]


def test_expect_parent(home):
    lmvp.update("digits/mlp", weights(1))
    lmvp.update("digits/mlp", weights(2), expect_parent="v1")
    with pytest.raises(errors.Conflict, match="is at v2"):
        lmvp.update("digits/mlp", weights(3), expect_parent="v1")
    assert len(lmvp.show_history("digits/mlp")) == 2


def test_history(home):
    for value in range(3):
        lmvp.update("digits/mlp", weights(value), metrics={"acc": value / 10})
    lmvp.update("digits/cnn", weights())
    history = lmvp.showHistory("digits/mlp")
    assert [version.number for version in history] == [3, 2, 1]
    assert history.layers.strips == {"3": "x0", "2": "x0", "1": "++"}
    assert [layer.path for layer in history.layers.axis] == ["body", "head"]
    assert {version.model for version in lmvp.show_history("digits")} == {"mlp", "cnn"}
    assert len(lmvp.show_history("digits/mlp", limit=2)) == 2
    assert lmvp.show_history("digits/mlp", limit=2).total == 3


def test_a_bare_name_that_means_two_things(home, monkeypatch):
    lmvp.update("digits/mlp", weights())
    lmvp.update("default/digits", weights())
    with pytest.raises(errors.InvalidReference, match="a project and a model") as caught:
        lmvp.show_history("digits")
    assert "digits/" in caught.value.hint
    assert "default/digits" in caught.value.hint
    assert lmvp.show_history("digits/")[0].model == "mlp"
    assert [version.model for version in lmvp.show_history()] == ["digits"]
    with pytest.raises(errors.NotFound, match="no project 'nothing'"):
        lmvp.show_history("nothing")


@pytest.mark.parametrize(("name", "words"), [("mlp@v1", "look at 'mlp'"), (5, r"\[project/\]model"), (b"x", "project")])
def test_a_history_is_of_a_project_or_a_model(home, name, words):
    with pytest.raises(errors.InvalidReference) as caught:
        lmvp.show_history(name)
    assert re.search(words, caught.value.hint)


def test_a_reference_to_another_server_is_refused(home):
    lmvp.update("digits/mlp", weights())
    client = lmvp.Client()
    assert client.version(f"lmvp://{client.url.removeprefix('http://')}/digits/mlp").number == 1
    for host in ("h", "127.0.0.1", "1", "models.example.org"):  # the first three are parts of the URL in use
        with pytest.raises(errors.InvalidReference, match="on another server"):
            client.version(f"lmvp://{host}/digits/mlp")


def test_diff_alias_amend(home):
    lmvp.update("digits/mlp", weights(1), metrics={"acc": 0.5})
    lmvp.update("digits/mlp", weights(2), metrics={"acc": 0.6})
    changes = {tensor.name: tensor.change for tensor in lmvp.diff("digits/mlp@v1", "@v2").tensors}
    assert changes == {"body.weight": "changed", "body.bias": "identical", "head.weight": "identical"}
    assert lmvp.alias("digits/mlp@v1", "production").number == 1
    assert lmvp.alias("digits/mlp", "production", yes=True).number == 2
    client = lmvp.Client()
    client.remove_alias("digits/mlp", "production", yes=True)
    assert client.aliases("digits/mlp") == []
    assert client.version("digits/mlp@v2").aliases == ()
    amended = client.amend("digits/mlp@v1", message="better said", metrics={"acc": 0.55})
    assert (amended.message, amended.metrics, amended.revised) == ("better said", {"acc": 0.55}, 1)


def test_metrics_that_are_no_plain_numbers(home):
    version = lmvp.update(
        "digits/mlp",
        weights(),
        metrics={"nan": math.nan, "inf": math.inf, "less": -math.inf, "np": np.float32(0.5), "one": 1},
    )
    assert math.isnan(version.metrics["nan"])
    assert (version.metrics["inf"], version.metrics["less"], version.metrics["np"]) == (math.inf, -math.inf, 0.5)
    assert math.isnan(lmvp.show_history("digits/mlp")[0].metrics["nan"])


@pytest.mark.parametrize("value", ["good", "0.5", [0.5], None, {"a": 1}, b"1", 10**400])
def test_metrics_that_are_refused(home, value):
    with pytest.raises(errors.InvalidArgument, match="the metric 'acc' is"):
        lmvp.update("digits/mlp", weights(), metrics={"acc": value})


@pytest.mark.parametrize(
    "given", [{"metrics": [1]}, {"params": "abc"}, {"tags": 5}, {"message": 5}, {"alias": 5}, {"metrics": "acc=1"}]
)
def test_arguments_of_a_wrong_type_are_refused_by_name(home, given):
    with pytest.raises(errors.InvalidArgument, match=f"{next(iter(given))}= is"):
        lmvp.update("digits/mlp", weights(), **given)
    assert lmvp.Client().projects() == []


@pytest.mark.parametrize("limit", [-1, "x", 1.5])
def test_a_limit_is_a_whole_number(home, limit):
    with pytest.raises(errors.InvalidArgument, match="`limit=` is"):
        lmvp.show_history("digits", limit=limit)


@pytest.mark.parametrize(
    "name", ["../x", "", "x" * 200, "a b", "dіgits/mlp", "a/b/c", "/mlp", "digits/", "digits/mlp@v1", "http://x/y"]
)
def test_bad_names_are_refused_and_make_nothing(home, name):
    with pytest.raises((errors.InvalidName, errors.InvalidReference)):
        lmvp.update(name, weights())
    assert lmvp.Client().projects() == []


@pytest.mark.parametrize("alias", ["latest", "v3", "3", "c12", "deadbeef", "a b", ""])
def test_reserved_and_bad_aliases(home, alias):
    with pytest.raises(errors.InvalidName):
        lmvp.update("digits/mlp", weights(), alias=[alias])
    assert lmvp.Client().projects() == []


def test_what_is_not_there_names_the_nearest(home):
    lmvp.update("digits/mlp", weights(), alias="production")
    for name, hint in {
        "digit/mlp": "did you mean 'digits/mlp'?",
        "digit/other": "did you mean 'digits'?",
        "digits/mpl": "did you mean 'mlp'?",
        "digits/mlp@prodution": "did you mean 'production'?",
        "digits/mlp@v7": "the latest is v1",
    }.items():
        with pytest.raises(errors.NotFound) as caught:
            lmvp.download(name)
        assert caught.value.hint == hint
    lmvp.update("cnn", weights())
    for name, hint in {"digist": "did you mean 'digits'?", "cn": "did you mean 'cnn'?"}.items():  # codespell:ignore
        with pytest.raises(errors.NotFound) as caught:
            lmvp.show_history(name)
        assert caught.value.hint == hint


def test_an_object_of_no_known_format(home):
    with pytest.raises(errors.UnknownFormat, match=r"no format keeps a builtins\.set"):
        lmvp.update("digits/mlp", {1, 2})
    assert lmvp.Client().projects() == []


def test_files_come_back_byte_for_byte(home, tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    contents = {"a.bin": bytes(range(256)) * 40_000, "sub/empty": b"", "sub/ö.txt": b"x"}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    lmvp.update("digits/files", folder)
    paths = lmvp.download("digits/files", to=tmp_path / "out")
    assert {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in paths} == contents
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["a.bin", "empty", "ö.txt"]


def test_pulling_through_a_link_out_of_the_folder_is_refused(home, tmp_path):
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "sub" / "x").write_bytes(b"x")
    lmvp.update("digits/files", tmp_path / "model")
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.InvalidManifest, match="leads out of"):
        lmvp.download("digits/files", to=tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_progress_counts_each_byte_once(home):
    seen = []
    version = lmvp.update("digits/mlp", {"w": np.ones(3 << 20)}, progress=lambda *counts: seen.append(counts))
    assert {total for _, total in seen} == {version.size}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == version.size


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bar_is_shown_only_on_a_terminal(monkeypatch, terminal):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr("sys.stderr", stream)
    for progress, shown in ((None, terminal), (True, True), (False, False)):
        stream.truncate(0)
        with showing(progress, LONG, "push") as advance:
            time.sleep(0.3)  # a bar of a shorter transfer never appears
            advance(LONG)
        assert ("push" in stream.getvalue()) is shown


def test_progress_reaches_the_end(home):
    seen = []
    lmvp.update("digits/mlp", {"w": np.zeros(3 << 20)}, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    seen.clear()
    lmvp.download("digits/mlp", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]


def test_a_client_for_a_server_of_ones_choice(home):
    from lmvp import local

    lmvp.update("digits/mlp", weights())
    server = local.connection()
    client = lmvp.Client(server.url, server.token, project="digits")
    assert client.version("mlp").number == 1
    assert client.health().status == "ok"
    assert client.models()[0].name == "mlp"
    with pytest.raises(errors.NotAuthenticated):
        lmvp.Client(server.url, "wrong").projects()
    assert server.token not in repr(client)


def test_a_metric_that_no_version_has_is_an_error_with_the_nearest(home):
    lmvp.update("digits/mlp", {"w": np.zeros(2)}, metrics={"val/accuracy": 0.9, "val/loss": 0.1})
    with pytest.raises(
        errors.NotFound, match="none of the versions of digits/mlp has the metric 'val/acuracy'"
    ) as caught:
        lmvp.showHistory("digits/mlp", metric="val/acuracy")  # codespell:ignore
    assert caught.value.hint == "did you mean 'val/accuracy'?"
    with pytest.raises(errors.NotFound) as caught:
        lmvp.showHistory("digits/mlp", metric="epochs")
    assert caught.value.hint == "they have: 'val/accuracy', 'val/loss'"
    assert lmvp.showHistory("digits/mlp", metric="val/loss").metric == "val/loss"
    with pytest.raises(errors.InvalidArgument, match="metric= is int 3"):
        lmvp.showHistory("digits/mlp", metric=3)


def test_a_metric_of_older_versions_alone_says_which_were_looked_at(home):
    lmvp.update("digits/mlp", {"w": np.zeros(2)}, metrics={"val/loss": 0.1})
    lmvp.update("digits/mlp", {"w": np.ones(2)})
    with pytest.raises(errors.NotFound, match="none of the newest 1 versions of digits/mlp"):
        lmvp.showHistory("digits/mlp", metric="val/loss", limit=1)


@pytest.mark.parametrize("progress", ["yes", 1, 0.5, [print]])
def test_progress_is_a_bar_or_none_or_a_function(home, progress):
    for call in (
        lambda: lmvp.update("m", {"w": np.zeros(2)}, progress=progress),
        lambda: lmvp.download("m", progress=progress),
    ):
        with pytest.raises(errors.InvalidArgument, match="progress= is"):
            call()


@pytest.mark.parametrize("trust", [True, None, 3, [3], ["no name"], b"my_pkg.Net"])
def test_trust_is_names_and_classes_whatever_the_format(home, trust):
    lmvp.update("m", {"w": np.zeros(2)})
    with pytest.raises(errors.InvalidArgument, match="trust="):
        lmvp.download("m", trust=trust)


def test_where_the_project_was_left_out_the_hint_names_those_that_are_there(home):
    lmvp.update("digits/mlp", weights())
    with pytest.raises(errors.NotFound, match=r"no project 'default'(.|\n)*there are digits, and `project/model`"):
        lmvp.show_history()
    for call in (lambda: lmvp.download("digits"), lambda: lmvp.Client().usage("digits")):
        with pytest.raises(
            errors.NotFound, match=r"no project 'default'(.|\n)*did you mean 'digits/'\? 'digits/' is a"
        ):
            call()
    lmvp.update("mlp", weights())
    with pytest.raises(errors.NotFound, match=r"no model 'digits' in project 'default'(.|\n)*'digits/' is a project"):
        lmvp.download("digits")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda client: client.update(weights(), "d/m"), r"the name comes first(.|\n)*lmvp.push\('d/m', model\)"),
        (lambda client: client.update("d/m", dict), r"builtins.dict is a class\n  hint: give an object of it: dict"),
        (lambda client: client.update("d/m", weights(), parent=1), "a revision is a text, not int"),
        (lambda client: client.update("d/m", weights(), expect_parent=1), "a revision is a text, not int"),
        (lambda client: client.download("d/m", to=3), r"`to=` is int 3, not a folder"),
        (
            lambda client: client.download("d/m", to=""),
            r"`to=` is str '', not a folder\n  hint: `to='\.'` is the current",
        ),
        (lambda client: client.diff("d/m", None), "a reference is a text, not NoneType"),
        (lambda client: client.remove_alias("d/m", 3), "the alias is a text, not int"),
        (lambda client: client.remove(3), "a reference is a text, not int"),
        (lambda client: client.usage(3), "a reference is a text, not int"),
    ],
)
def test_arguments_of_the_wrong_kind_are_told(home, call, message):
    client = lmvp.Client()
    client.update("d/m", weights())
    with pytest.raises(errors.UserError, match=message):
        call(client)


def test_where_an_alias_was_before_it_was_set_is_told(home):
    lmvp.update("d/m", weights(), alias="best")
    with pytest.raises(
        errors.NotFound, match=r"'best' of d/m was not there 1 move ago\n  hint: it was set at .* 0 moves"
    ):
        lmvp.download("d/m@best@{1}")
    with pytest.raises(errors.NotFound, match="'best' of d/m was not there at 2020-01-31"):
        lmvp.download("d/m@best@2020-01-31")


def test_an_alias_says_in_a_line_where_it_stands(home):
    lmvp.update("d/m", weights())
    assert repr(lmvp.alias("d/m@v1", "best")) == "<Alias d/m@best at v1>"


def test_packages_include_those_that_the_format_imports(home, monkeypatch):
    """The first version of a process states the same packages as the second one."""
    from lmvp import formats

    pack = formats.pack

    def packed(obj):
        monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(__version__="9.9"))
        return pack(obj)

    monkeypatch.setattr(formats, "pack", packed)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    version = lmvp.push("digits/lazy", {"w": np.zeros(2)})
    assert version.environment["packages"]["jax"] == "9.9"


def test_run_takes_the_order_and_the_keywords_of_the_function(home):
    client = lmvp.Client(project="digits")
    with client.start_run("digits", name="quiet-wren-44", system_metrics=False) as run:
        run.log({"loss": 1.0})
    found = [
        client.run("digits", "quiet-wren-44"),
        client.run(project="digits", run="quiet-wren-44"),
        client.run(name="quiet-wren-44", project="digits"),
        client.run("quiet-wren-44"),
        lmvp.run("quiet-wren-44", "digits"),
        lmvp.run(name="quiet-wren-44", project="digits"),
    ]
    assert {one.id for one in found} == {run.id}
    with pytest.raises(errors.InvalidArgument):
        client.run()
    with pytest.raises(errors.InvalidArgument):
        client.run("digits", "quiet-wren-44", name="other")
