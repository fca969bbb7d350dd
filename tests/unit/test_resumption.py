"""A training that is killed and gone on with gives the bytes of one that was left alone."""

import json

import numpy as np
import pytest
import torch
from ffnfold.resumption import INTERVAL_VARIABLE, TENSORS
from ffnfold.seeding import seeded_generator
from ffnfold.training import fit, hold_zeros
from safetensors import safe_open
from test_training import lm_examples, parameters_of

STEPS = {"steps": 9, "warmup_share": 0.3, "schedule": "cosine"}


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the training's own code catches it."""


def train(make_gpt2, budget, folder=None, die_at=None, calls=None, **changes):
    """Train a small model with dropout; `die_at` ends it in that step, `calls` counts the steps taken."""
    calls = [] if calls is None else calls

    def loss(model, batch):
        calls.append(1)
        if die_at is not None and len(calls) == die_at:
            raise Killed
        return model(**batch).loss

    model = make_gpt2(resid_pdrop=0.1, layers=2)
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[:, :3] = 0
    hold_zeros(model, ["transformer.h.0.mlp.c_fc.weight"])
    budget = {**budget, **STEPS, **changes}
    return parameters_of(fit(model, lm_examples(), budget, seeded_generator(3, "fit"), "cpu", loss=loss, resume=folder))


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setenv(INTERVAL_VARIABLE, "0")


@pytest.mark.parametrize("die_at", [1, 2, 5, 9])
def test_a_resumed_training_gives_the_bytes_of_an_undisturbed_one(make_gpt2, budget, tmp_path, every_step, die_at):
    whole = train(make_gpt2, budget)
    with pytest.raises(Killed):
        train(make_gpt2, budget, tmp_path, die_at)
    calls = []
    resumed = train(make_gpt2, budget, tmp_path, calls=calls)
    assert len(calls) == 9 - (die_at - 1), "only the steps that were lost are taken again"
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not resumed["transformer.h.0.mlp.c_fc.weight"][:, :3].any()


def test_keeping_states_changes_nothing_and_leaves_the_newest(make_gpt2, budget, tmp_path, every_step):
    whole, kept = train(make_gpt2, budget), train(make_gpt2, budget, tmp_path)
    assert all(torch.equal(whole[name], kept[name]) for name in whole)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000009"]
    assert sorted(p.suffix for p in (tmp_path / "step-00000009").iterdir()) == [".json", ".safetensors"]


def test_a_training_after_its_last_step_takes_none_again(make_gpt2, budget, tmp_path, every_step):
    whole, calls = train(make_gpt2, budget, tmp_path), []
    again = train(make_gpt2, budget, tmp_path, calls=calls)
    assert calls == [] and all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize("change", [{"learning_rate": 0.02}, {"steps": 8}, {"schedule": "linear"}])
def test_the_state_of_another_training_is_not_used(make_gpt2, budget, tmp_path, every_step, change):
    with pytest.raises(Killed):
        train(make_gpt2, budget, tmp_path, die_at=5)
    calls = []
    other = train(make_gpt2, budget, tmp_path, calls=calls, **change)
    alone = train(make_gpt2, budget, **change)
    assert len(calls) == {**STEPS, **change}["steps"]
    assert all(torch.equal(alone[name], other[name]) for name in alone)


@pytest.mark.parametrize("harm", ["truncated", "empty", "no json"])
def test_a_state_that_is_not_sound_is_not_used(make_gpt2, budget, tmp_path, every_step, harm):
    with pytest.raises(Killed):
        train(make_gpt2, budget, tmp_path, die_at=5)
    state = next(tmp_path.glob("step-*"))
    content = (state / TENSORS).read_bytes()
    if harm == "no json":
        (state / "trainer_state.json").unlink()
    else:
        (state / TENSORS).write_bytes(content[: len(content) // 2] if harm == "truncated" else b"")
    calls, whole = [], train(make_gpt2, budget)
    again = train(make_gpt2, budget, tmp_path, calls=calls)
    assert len(calls) == 9 and all(torch.equal(whole[name], again[name]) for name in whole)


def test_no_state_is_written_before_the_interval_has_passed(make_gpt2, budget, tmp_path, monkeypatch):
    monkeypatch.setenv(INTERVAL_VARIABLE, "3600")
    train(make_gpt2, budget, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_cannot_be_written_does_not_end_the_training(make_gpt2, budget, tmp_path, every_step):
    (tmp_path / "file").write_text("in the way")
    whole, kept = train(make_gpt2, budget), train(make_gpt2, budget, tmp_path / "file")
    assert all(torch.equal(whole[name], kept[name]) for name in whole)


def test_a_state_holds_what_adamw_and_the_schedule_need(make_gpt2, budget, tmp_path, every_step):
    with pytest.raises(Killed):
        train(make_gpt2, budget, tmp_path, die_at=4)
    with safe_open(tmp_path / "step-00000003" / TENSORS, framework="np") as stream:
        names, metadata = list(stream.keys()), stream.metadata()
        assert float(stream.get_tensor("optimizer.0.step")) == 3
        assert np.abs(stream.get_tensor("optimizer.0.exp_avg")).sum() > 0
    assert "random.cpu" in names and json.loads(metadata["schedule"])["last_epoch"] == 3
