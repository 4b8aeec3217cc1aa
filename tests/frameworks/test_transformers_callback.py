"""`LMVPCallback` in a real Trainer of Hugging Face, on a real server."""

import warnings

import pytest

import lmvp

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from lmvp.integrations.transformers import LMVPCallback


class Texts(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        ids = torch.arange(index, index + 8) % 32
        return {"input_ids": ids, "labels": ids}


def small():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2)
    return transformers.GPT2LMHeadModel(config)


@pytest.fixture
def train(home, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(callback, model=None, resume_from_checkpoint=None, more=(), **options):
        given = {"max_steps": 6, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 3, "save_steps": 3}
        args = transformers.TrainingArguments(
            str(tmp_path / "out"), report_to="none", use_cpu=True, per_device_train_batch_size=4, disable_tqdm=True,
            **{**given, **options},
        )  # fmt: skip
        trainer = transformers.Trainer(
            model or small(), args, train_dataset=Texts(), eval_dataset=Texts(), callbacks=[callback, *more]
        )
        trainer.train(resume_from_checkpoint=resume_from_checkpoint)
        return trainer

    yield run
    for each in lmvp.tracking.active_run.every():
        each.finish()


def test_a_training_is_a_run(train):
    callback = LMVPCallback("texts", "gpt-run", model="gpt", log_model="end", system_metrics=False)
    trainer = train(callback)
    run = lmvp.run("gpt-run", "texts")
    assert run.status == "finished"
    assert (run.params["args/max_steps"], run.params["model/n_embd"]) == (6, 16)
    history = run.history()
    assert history["train/loss"]["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert history["eval/loss"]["step"].tolist() == [3, 6]
    assert "train/learning_rate" in history
    assert run.versions == ("texts/gpt@v1",)
    fresh = small()
    lmvp.download("texts/gpt", into=fresh, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), trainer.model.parameters(), strict=True))


def test_each_checkpoint_is_a_version(train):
    train(LMVPCallback("texts", model="gpt", log_model="checkpoint", system_metrics=False))
    assert [version.message for version in lmvp.show_history("texts/gpt")] == ["step 6", "step 3"]


def test_a_training_that_goes_on_takes_back_what_is_done_again(train, tmp_path):
    train(LMVPCallback("texts", "resumed", system_metrics=False))
    again = LMVPCallback("texts", resume="resumed", system_metrics=False)
    train(again, resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"), max_steps=5)
    run = lmvp.run("resumed", "texts")
    assert run.history("train/loss")["train/loss"]["step"].tolist() == [1, 2, 3, 4, 5]
    assert len(lmvp.runs("texts")) == 1


def test_an_interrupted_training_is_killed_by_the_next(train):
    class Stops(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    callback = LMVPCallback("texts", system_metrics=False)
    with pytest.raises(KeyboardInterrupt):
        train(callback, more=[Stops()])
    first = callback.run
    train(callback, max_steps=2)
    assert lmvp.run(first.id, "texts").status == "killed"
    assert lmvp.run(callback.run.id, "texts").status == "finished"


def test_training_goes_on_without_a_server(train, monkeypatch):
    monkeypatch.setenv("LMVP_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("lmvp.connection.ATTEMPTS", 1)
    with pytest.warns(UserWarning, match=r"not published: .*lmvp\.push"):
        train(LMVPCallback("texts", model="gpt", log_model="end", system_metrics=False))


@pytest.mark.parametrize("options", [{"log_model": "always"}, {"log_model": "end"}])
def test_what_is_asked_for_wrongly(options):
    with pytest.raises(lmvp.errors.InvalidArgument):
        LMVPCallback("texts", **options)
