"""A real fine-tune of twenty versions: each comes back byte for byte, whatever is done to the store meanwhile."""

import hashlib

import pytest

import lmvp
from lmvp.core.server_file import data_home

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("sklearn.datasets")

VERSIONS = 20


@pytest.fixture(scope="module")
def states():
    """Train on handwritten digits in float32, then fine-tune at a small rate; the state after each round, in bf16."""
    torch.manual_seed(0)
    images, labels = datasets.load_digits(return_X_y=True)
    images, labels = torch.tensor(images[:256], dtype=torch.float32) / 16, torch.tensor(labels[:256])
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 512), torch.nn.GELU(), torch.nn.Linear(512, 512), torch.nn.GELU(), torch.nn.Linear(512, 10)
    )
    _train(model, images, labels, rate=1e-3, rounds=20)
    found = []
    for _ in range(VERSIONS):
        loss = _train(model, images, labels, rate=1e-5, rounds=4)
        found.append(({name: value.bfloat16() for name, value in model.state_dict().items()}, loss))
    return found


def _train(model, images, labels, rate, rounds):
    optimiser = torch.optim.AdamW(model.parameters(), rate)
    for _ in range(rounds):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimiser.step()
    return loss.item()


def digests(folder, numbers):
    """Pull versions as files and hash them."""
    found = {}
    for number in numbers:
        [path] = lmvp.download(f"digits/net@v{number}", to=folder / str(number), progress=False)
        found[number] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_twenty_versions(home, tmp_path, states):
    client = lmvp.Client()
    for state, loss in states:
        lmvp.update("digits/net", state, metrics={"loss": loss}, progress=False)
    raw = client.usage("digits/").disk["chunks"]
    pushed = digests(tmp_path / "pushed", range(1, VERSIONS + 1))
    assert len(set(pushed.values())) == VERSIONS

    client.compact()
    assert digests(tmp_path / "compacted", pushed) == pushed
    assert client.usage("digits/").disk["chunks"] < 0.35 * raw

    lmvp.alias("digits/net@v7", "paper")
    gone = set(client.prune("digits/net", keep="best:loss:3,last:9").versions)
    left = [number for number in pushed if number not in gone]
    assert {6, 7, *range(12, 21)} <= set(left) < set(pushed)
    assert digests(tmp_path / "pruned", left) == {number: pushed[number] for number in left}

    client.collect_garbage()
    client.compact()
    assert digests(tmp_path / "collected", left) == {number: pushed[number] for number in left}
    assert client.check().problems == ()

    usage = client.usage("digits/")
    assert usage.stored == usage.disk["chunks"]
    on_disk = sum(path.stat().st_size for path in (data_home() / "chunks").rglob("*") if path.is_file())
    assert usage.stored == on_disk
    for number in left:
        state = lmvp.download(f"digits/net@v{number}", progress=False)
        assert all(torch.equal(state[name], value) for name, value in states[number - 1][0].items())
