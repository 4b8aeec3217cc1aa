"""Taking away versions gives their bytes back, and leaves every other byte, whatever leaned on what."""

import threading
import time

import pytest
from support.workshop import ADA, Shop, bytes_of, step, weights

from lmvp.core.schemas import ModelChange, Prune
from lmvp.errors import Conflict, IntegrityError, InvalidArgument, MissingChunks, NotFound
from lmvp_server.services.paging import Page
from lmvp_server.services.pushes import LIFETIME


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    yield shop
    shop.services.close()


def history(shop, length, model="m", start=0):
    trees = [weights(start, 2)]
    for seed in range(1, length):
        trees.append(step(trees[-1], seed))
    for number, tree in enumerate(trees):
        shop.push(tree, model, metrics={"val_acc": number / 10, "loss": 1 - number / 10})
    return trees


def rm(shop, number, model="m"):
    return shop.services.trash.remove_version(ADA, "p", model, str(number))


def everything(shop):
    return shop.on_disk("chunks", "manifests", "notes", "staging")


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_rm_gives_back_what_it_says(shop, number, compacted):
    trees = history(shop, 4)
    if compacted:
        shop.services.upkeep.compact(ADA)
    before = everything(shop)
    freed = rm(shop, number)
    assert freed == {"versions": 1, "bytes": before - everything(shop)}
    assert freed["bytes"] > 0
    for other in {1, 2, 3, 4} - {number}:
        assert shop.files(other)["weights.safetensors"] == bytes_of(trees[other - 1])
    with pytest.raises(NotFound):
        shop.files(number)


def test_all_versions_gone_leave_nothing(shop):
    history(shop, 4)
    shop.services.upkeep.compact(ADA)
    for number in (2, 4, 1, 3):
        rm(shop, number)
    assert everything(shop) == 0
    assert shop.services.catalog.model(ADA, "p", "m")["latest"] == 0


def test_a_number_is_never_used_again(shop):
    trees = history(shop, 3)
    rm(shop, 3)
    assert shop.services.catalog.model(ADA, "p", "m")["latest"] == 2
    assert shop.services.versions.version(ADA, "p", "m", "latest")["number"] == 2
    assert shop.push(trees[2])["number"] == 4
    assert shop.reopen().push(trees[0])["number"] == 5


def test_a_version_with_an_alias_stays(shop):
    history(shop, 3)
    shop.services.aliases.move(ADA, "p", "m", "production", "2")
    with pytest.raises(Conflict, match=r"'production' stands at v2"):
        rm(shop, 2)
    shop.services.aliases.remove(ADA, "p", "m", "production")
    assert rm(shop, 2)["versions"] == 1


def test_chunks_that_others_have_stay(shop):
    [tree] = history(shop, 1)
    shop.push(tree, "other")
    freed = rm(shop, 1)["bytes"]
    assert freed < 10_000
    assert shop.files(1, "other")["weights.safetensors"] == bytes_of(tree)
    assert shop.services.trash.remove_model(ADA, "p", "other")["bytes"] > 1_000_000


def test_rm_of_a_model(shop):
    history(shop, 3)
    others = history(shop, 2, "other", start=9)
    shop.services.aliases.move(ADA, "p", "m", "production", "2")
    before = everything(shop)
    freed = shop.services.trash.remove_model(ADA, "p", "m")
    assert freed == {"versions": 3, "bytes": before - everything(shop)}
    with pytest.raises(NotFound):
        shop.services.catalog.model(ADA, "p", "m")
    assert shop.files(2, "other")["weights.safetensors"] == bytes_of(others[1])
    assert shop.push(others[0])["number"] == 1


def test_rm_of_a_project(shop):
    history(shop, 2)
    shop.push(weights(5), project="q")
    space = shop.space
    freed = shop.services.trash.remove_project(ADA, "p")
    assert freed["versions"] == 2
    assert freed["bytes"] > 2_000_000
    assert [one for one in shop.folder.rglob("*") if space in str(one)] == []
    assert len(shop.files(1, project="q")) == 1
    assert shop.push(weights(1))["number"] == 1


def test_gc_takes_what_a_crash_left(shop):
    """Bytes without a version, a manifest without one, and a project without a record: none of them is needed."""
    trees = history(shop, 2)
    before = shop.on_disk("chunks", "manifests")
    push_id, described, answer = shop.begin(weights(7))
    shop.send(push_id, described, answer.missing)
    shop.services.chunks.unstage(shop.space, push_id)
    shop.services.chunks.put_manifest(shop.space, "a" * 64, b"{}")
    shop.services.chunks.put("abandoned", "b" * 64, [b"12345"])
    done = shop.services.upkeep.collect(ADA)
    assert done["bytes"] > 2_000_000
    assert shop.on_disk("chunks", "manifests") == before
    assert shop.services.chunks.projects() == [shop.space]
    assert shop.files(2)["weights.safetensors"] == bytes_of(trees[1])


def test_an_open_push_keeps_its_chunks(shop):
    """What a push sent, and what it found there, stays, though nothing else needs it any more."""
    trees = history(shop, 2)
    new = {**trees[0], "layers.1.weight": weights(8, 2)["layers.1.weight"]}
    push_id, described, answer = shop.begin(new)
    assert len(answer.missing) < len(described.places)
    shop.send(push_id, described, answer.missing)
    rm(shop, 1)
    shop.services.upkeep.collect(ADA)
    assert shop.services.pushes.commit(ADA, "p", "m", push_id)["number"] == 3
    assert shop.files(3)["weights.safetensors"] == bytes_of(new)


def test_a_push_whose_time_is_over_does_not(shop, monkeypatch):
    history(shop, 1)
    push_id, described, answer = shop.begin(weights(7))
    shop.send(push_id, described, answer.missing)
    later = time.time() + LIFETIME + 60
    monkeypatch.setattr(time, "time", lambda: later)
    shop.services.tidy_up(lambda: True)
    assert shop.on_disk("staging") == 0
    with pytest.raises(MissingChunks):
        shop.services.pushes.commit(ADA, "p", "m", push_id)


def test_sweeps_and_pushes_at_once(shop):
    """Versions come and go in several threads while garbage is collected; each that was acknowledged is whole."""
    base = history(shop, 2)[0]
    shop.services.aliases.move(ADA, "p", "m", "keep", "1")
    ends, pushed = threading.Event(), {}

    def push(model):
        for seed in range(8):
            tree = step(base, seed, names={"layers.0.weight"}) if seed % 2 else base
            number = shop.push(tree, model, message=str(seed))["number"]
            pushed[model, number] = tree
            if seed % 3 == 2:
                shop.services.trash.remove_version(ADA, "p", model, str(number - 1))
                del pushed[model, number - 1]

    def collect():
        while not ends.is_set():
            shop.services.upkeep.collect(ADA)
            shop.services.upkeep.compact(ADA)

    collectors = [threading.Thread(target=collect) for _ in range(2)]
    pushers = [threading.Thread(target=push, args=(model,)) for model in ("a", "b")]
    for thread in [*collectors, *pushers]:
        thread.start()
    for thread in pushers:
        thread.join()
    ends.set()
    for thread in collectors:
        thread.join()
    assert len(pushed) == 12
    for (model, number), tree in pushed.items():
        assert shop.files(number, model)["weights.safetensors"] == bytes_of(tree)
    assert shop.services.fsck.check(ADA, repair=False)["problems"] == []


def test_prune(shop):
    trees = history(shop, 8)
    shop.services.aliases.move(ADA, "p", "m", "production", "4")
    shop.services.upkeep.compact(ADA)
    before = everything(shop)
    asked = Prune(keep="best:loss:2,min:val_acc:1,last:1", dry_run=True)
    told = shop.services.retention.prune(ADA, "p", "m", asked)
    assert (told["versions"], everything(shop)) == ([6, 5, 2], before)
    done = shop.services.retention.prune(ADA, "p", "m", Prune(keep=asked.keep))
    assert done["versions"] == told["versions"]
    assert done["bytes"] == before - everything(shop)
    assert done["bytes"] == pytest.approx(told["bytes"], rel=0.02)
    for number in (1, 3, 4, 7, 8):
        assert shop.files(number)["weights.safetensors"] == bytes_of(trees[number - 1])
    assert [e["what"] for e in shop.services.audit.of_project(ADA, "p", Page())["items"]][:3] == [
        "p/m@v2", "p/m@v5", "p/m@v6"]  # fmt: skip


def test_a_rule_of_a_model_is_applied_in_idle_time(shop):
    history(shop, 5)
    change = ModelChange(keep="best:val_acc:1,last:2")
    assert shop.services.retention.change_model(ADA, "p", "m", change)["keep"] == change.keep
    shop.services.tidy_up(lambda: True)
    numbers = [one["number"] for one in shop.services.versions.of_model(ADA, "p", "m", Page())["items"]]
    assert numbers == [5, 4]
    shop.services.retention.change_model(ADA, "p", "m", ModelChange(keep=""))
    shop.push(weights(3, 2))
    shop.services.tidy_up(lambda: True)
    assert shop.services.catalog.model(ADA, "p", "m")["latest"] == 6


@pytest.mark.parametrize(
    "rule", ["", "best:3", "last:", "last:-1", "worst:loss:2", "best:temperature:1", "last:x,last:2"]
)
def test_rules_that_cannot_be_read(shop, rule):
    history(shop, 2)
    with pytest.raises(InvalidArgument):
        shop.services.retention.prune(ADA, "p", "m", Prune(keep=rule))
    if rule:
        with pytest.raises(InvalidArgument):
            shop.services.retention.change_model(ADA, "p", "m", ModelChange(keep=rule))
    assert shop.services.catalog.model(ADA, "p", "m")["latest"] == 2


def test_nothing_is_swept_while_a_manifest_cannot_be_read(shop):
    trees = history(shop, 3)
    digest = shop.services.versions.version(ADA, "p", "m", "2")["digest"]
    (shop.folder / "manifests" / shop.space / digest[:2] / digest[2:]).write_bytes(b"{}")
    before = shop.on_disk("chunks")
    assert rm(shop, 3) == {"versions": 1, "bytes": 0}  # it is gone; its bytes wait until what is damaged is mended
    with pytest.raises(IntegrityError, match=digest[:12]):
        shop.services.upkeep.collect(ADA)
    assert shop.on_disk("chunks") == before
    rm(shop, 2)
    assert shop.on_disk("chunks") < before
    assert shop.files(1)["weights.safetensors"] == bytes_of(trees[0])


def test_rm_beside_a_damaged_frame_takes_the_version_away_and_says_that_no_bytes_came_back(shop):
    trees = history(shop, 4)
    shop.services.upkeep.compact(ADA)
    links = shop.links()
    leaning = next(chunk for chunk in shop.chunks_of(3) if chunk in links)
    path = shop.folder / "chunks" / shop.space / leaning[:2] / leaning[2:]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    shop.reopen()
    assert rm(shop, 2)["versions"] == 1
    with pytest.raises(NotFound):
        shop.files(2)
    for number in (1, 4):
        assert shop.files(number)["weights.safetensors"] == bytes_of(trees[number - 1])


@pytest.fixture
def meanwhile(shop, monkeypatch):
    """Return what lets something else happen between the look of one removal and its commit."""
    commit = shop.services.records.commit

    def meanwhile(action, work):
        def slow(space, changes, events=(), **options):
            if [event["action"] for event in events] == [action]:
                monkeypatch.setattr(shop.services.records, "commit", commit)
                work()
            return commit(space, changes, events, **options)

        monkeypatch.setattr(shop.services.records, "commit", slow)

    return meanwhile


def test_a_push_while_its_model_is_removed_leaves_no_version_without_a_model(shop, meanwhile):
    shop.push(weights(0, 1), aliases=("best",))
    meanwhile("model.remove", lambda: shop.push(weights(1, 1), aliases=("new",)))
    assert shop.services.trash.remove_model(ADA, "p", "m")["versions"] == 2
    for table in ("models", "versions", "aliases", "names"):
        assert not shop.services.records.find(shop.space, table), table
    assert not shop.services.versions.of_project(ADA, "p", Page(10, None))["items"]
    assert everything(shop) == 0


@pytest.mark.parametrize("kind", ["model", "project"])
def test_who_removes_what_was_made_anew_meanwhile_removes_all_of_it(shop, meanwhile, kind):
    names = ("p", "m") if kind == "model" else ("p",)
    remove = getattr(shop.services.trash, f"remove_{kind}")

    def again():
        remove(ADA, *names)
        shop.push(weights(1, 1))

    shop.push(weights(0, 1))
    meanwhile(f"{kind}.remove", again)
    remove(ADA, *names)
    shop.push(weights(2, 1))
    assert shop.services.versions.version(ADA, "p", "m", "latest")["number"] == 1
    assert len(shop.services.catalog.projects(ADA, Page(10, None))["items"]) == 1
    assert len(shop.services.catalog.models(ADA, "p", Page(10, None))["items"]) == 1


def test_a_model_that_is_made_while_a_project_is_listed(shop, monkeypatch):
    shop.push(weights(0, 1))
    find = shop.services.records.find

    def slow(space, table, *rest, **named):
        if table == "versions":
            monkeypatch.setattr(shop.services.records, "find", find)
            shop.push(weights(1, 1), "other")
        return find(space, table, *rest, **named)

    monkeypatch.setattr(shop.services.records, "find", slow)
    listed = shop.services.versions.of_project(ADA, "p", Page(10, None))["items"]
    assert [version["model"] for version in listed] == ["other", "m"]


def test_a_reader_in_the_middle_of_a_chain_that_is_swept_reads_on(shop, monkeypatch):
    trees = history(shop, 4)
    shop.services.upkeep.compact(ADA)
    links, chunks = shop.links(), shop.chunks_of(3)
    chain = next([one, links.base(one), links.base(links.base(one))] for one in chunks if links.depth(one) == 2)
    get = shop.services.chunks.get

    def slow(space, chunk):
        data = get(space, chunk)
        if chunk == chain[1]:  # what it depends on goes after it was read
            monkeypatch.setattr(shop.services.chunks, "get", get)
            rm(shop, 1)
            assert shop.services.chunks.missing(space, chain) == chain[2:]
        return data

    monkeypatch.setattr(shop.services.chunks, "get", slow)
    assert shop.files(3)["weights.safetensors"] == bytes_of(trees[2])
