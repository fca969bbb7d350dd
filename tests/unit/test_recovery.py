"""Recovery: what it trains, against what, and what it leaves as it was."""

import json
import shutil

import pytest
import torch
from ffnfold import recovery
from ffnfold.checkpoints import load_model, load_state, save_model, write_json
from ffnfold.distillation import student_trainer, teacher_loss
from ffnfold.errors import InputError
from ffnfold.methods.distill import distillation_loss
from ffnfold.seeding import seeded_generator
from ffnfold.training import fit, language_modeling_examples

OPTIONS = {"temperature": 2.0, "weight_soft": 5.0, "weight_hidden": 1.0, "weight_lm": 2.0}
NO_SOFT = {"temperature": 1.0, "weight_soft": 0.0, "weight_hidden": 0.0, "weight_lm": 1.0}
NAME = "transformer.h.0.mlp.c_fc.weight"


@pytest.fixture
def data(texts, monkeypatch):
    """Training text in the place of a data folder's."""
    rows = {"language_modeling": ({"text": texts * 3}, "\n")}
    monkeypatch.setattr(recovery, "read_training_rows", lambda infos: rows)
    return rows


@pytest.fixture
def built(make_gpt2, tokenizer_directory, tmp_path):
    """A function that writes a built variant with its record."""

    def write(name="built", zeros=(), model=None, **notes):
        model = model or make_gpt2(layers=2)
        for zero in zeros:
            with torch.no_grad():
                model.get_parameter(zero)[:, :3] = 0
        save_model(tmp_path / name, model, tokenizer_directory)
        write_json(tmp_path / name / "build.json", {"frozen_zeros": list(zeros), **notes})
        return tmp_path / name

    return write


@pytest.fixture
def recover(data, budget, tmp_path):
    """A function that recovers a built variant and gives its tensors."""

    def call(folder, name="recovered", **changes):
        settings = {"budget": budget, "prompt": "", "seed": 1, "replicate": "0", "device": "cpu", "threads": 1}
        recovery.recover_variant(built=folder, data=[], directory=tmp_path / name, **{**settings, **changes})
        return load_state(tmp_path / name)

    return call


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_without_a_teacher_recovery_is_the_models_own_loss(built, recover, data, tokenizer, budget):
    folder = built()
    generator = seeded_generator(1, "recovery", "0")
    examples = language_modeling_examples(tokenizer, data, "", budget, generator)
    expected = fit(load_model(folder), examples, budget, generator, "cpu").state_dict()
    found = recover(folder)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert same(found, recover(folder, "again", distillation=OPTIONS)), "not used without a teacher"


def test_the_teachers_outputs_are_in_the_loss(built, make_gpt2):
    teacher, student = make_gpt2(seed=1, layers=4), make_gpt2(seed=2, layers=2)
    ids = torch.arange(2 * 8).reshape(2, 8)
    with torch.no_grad():
        one, two = (m(input_ids=ids, labels=ids, output_hidden_states=True) for m in (student, teacher))
        found = teacher_loss(teacher, OPTIONS)(student, {"input_ids": ids, "labels": ids})
    hidden = one.hidden_states[-1], two.hidden_states[-1]
    torch.testing.assert_close(found, distillation_loss(one.logits, two.logits, *hidden, one.loss, OPTIONS))


def test_a_teacher_changes_what_is_learnt_and_not_itself(built, recover, make_gpt2):
    base, folder = built("base", model=make_gpt2(seed=5, layers=4)), built()
    before = (base / "model.safetensors").read_bytes()
    taught = [recover(folder, f"taught_{i}", teacher=base, distillation=OPTIONS) for i in range(2)]
    assert same(*taught) and not same(taught[0], recover(folder))
    assert not same(taught[0], recover(folder, "hotter", teacher=base, distillation={**OPTIONS, "temperature": 4.0}))
    assert (base / "model.safetensors").read_bytes() == before


def test_a_baseline_that_is_its_own_teacher_stays(built, recover, budget):
    base = built()
    options = {**OPTIONS, "weight_lm": 0.0}
    gentle = {**budget, "learning_rate": 1e-6, "weight_decay": 0.0}
    found = recover(base, teacher=base, distillation=options, budget=gentle)
    for name, tensor in load_state(base).items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5)


def test_the_student_comes_nearer_to_the_teacher(built, recover, make_gpt2, budget, tmp_path):
    base, folder = built("base", model=make_gpt2(seed=5)), built()
    options = {**OPTIONS, "weight_hidden": 0.0, "weight_lm": 0.0}
    recover(folder, teacher=base, distillation=options, budget={**budget, "steps": 40})
    ids = torch.arange(64).reshape(4, 16)
    teacher, loss = load_model(base), []
    with torch.no_grad():
        for student in (load_model(folder), load_model(tmp_path / "recovered")):
            loss.append(float(teacher_loss(teacher, options)(student, {"input_ids": ids, "labels": ids})))
    assert loss[1] < 0.7 * loss[0]


def test_hidden_states_of_another_size_are_refused_where_they_count(built, recover, make_gpt2):
    base, folder = built("base"), built("wide", model=make_gpt2(n_embd=32))
    with pytest.raises(InputError, match="hidden size 32") as error:
        recover(folder, teacher=base, distillation=OPTIONS)
    assert "weight_hidden: 0" in str(error.value) and "wide" in str(error.value)
    taught = recover(folder, teacher=base, distillation={**OPTIONS, "weight_hidden": 0.0})
    assert not same(taught, load_state(folder))


def test_a_base_that_was_changed_is_no_teacher(built, recover):
    base, folder = built("base"), built()
    (base / "config.json").write_text(json.dumps({**json.loads((base / "config.json").read_text()), "n_head": 4}))
    with pytest.raises(InputError, match="not the one that was written"):
        recover(folder, teacher=base, distillation=OPTIONS)


def test_zeros_are_held_and_checked(built, recover, make_gpt2, monkeypatch):
    base, folder = built("base", model=make_gpt2(seed=5)), built(zeros=[NAME])
    for teacher in (None, base):
        assert not recover(folder, teacher=teacher, distillation=OPTIONS)[NAME][:, :3].any()
    monkeypatch.setattr(torch.Tensor, "register_post_accumulate_grad_hook", lambda *_: None)
    with pytest.raises(RuntimeError, match=f"{NAME}: 48 of 48"):
        recover(folder, "unheld")
    assert not (folder.parent / "unheld" / "manifest.json").exists()


@pytest.mark.parametrize("teacher", [False, True])
def test_what_is_not_trained_keeps_its_bytes(built, recover, teacher):
    trained = ["transformer.h.1.mlp.c_proj.weight", "transformer.ln_f.bias"]
    folder = built(zeros=[NAME], trained=trained)
    found, before = recover(folder, teacher=folder if teacher else None, distillation=OPTIONS), load_state(folder)
    assert {name for name in before if not torch.equal(before[name], found[name])} == set(trained)


def test_null_trains_everything(built, recover):
    folder = built()
    other = shutil.copytree(folder, folder.parent / "other")
    write_json(other / "build.json", {"frozen_zeros": [], "trained": None})
    assert same(recover(folder), recover(other, "other_recovered"))


def test_names_that_the_variant_lacks_are_a_bug(built, recover):
    with pytest.raises(RuntimeError, match="no parameter delta"):
        recover(built(trained=["delta"]))


def test_distillation_without_soft_targets_is_plain_training(built, recover, make_gpt2, data, tokenizer, budget):
    base = built("base", model=make_gpt2(seed=5))
    student = load_model(built())
    state = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    train = student_trainer(base, data, "", 1, "cpu")
    found = train(state, student.config.to_dict(), {**NO_SOFT, "training": budget})
    generator = seeded_generator(1, "distillation")
    examples = language_modeling_examples(tokenizer, data, "", budget, generator)
    expected = fit(student, examples, budget, generator, "cpu").state_dict()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-4)
