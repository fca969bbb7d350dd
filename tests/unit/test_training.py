import numpy as np
import pytest
import torch
from ffnfold.metrics import sentiment
from ffnfold.metrics.sentiment import pad_batch
from ffnfold.resumption import INTERVAL_VARIABLE
from ffnfold.seeding import seeded_generator
from ffnfold.training import check_zeros, fit, hold_zeros, language_modeling_examples, train_only


def lm_examples(seed=0, count=8, length=16):
    ids = torch.from_numpy(np.random.default_rng(seed).integers(1, 300, (count, length)))
    return [{"input_ids": row, "labels": row} for row in ids]


def parameters_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_the_same_seed_gives_the_same_bytes(make_gpt2, budget):
    trained = [
        parameters_of(fit(make_gpt2(resid_pdrop=0.1), lm_examples(), budget, seeded_generator(seed, "fit"), "cpu"))
        for seed in (3, 3, 4)
    ]
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
    assert any(not torch.equal(trained[0][name], trained[2][name]) for name in trained[0])


def test_the_callers_random_state_does_not_matter(make_gpt2, budget):
    trained = []
    for global_seed in (1, 2):
        model = make_gpt2(resid_pdrop=0.1)
        torch.manual_seed(global_seed)
        trained.append(parameters_of(fit(model, lm_examples(), budget, seeded_generator(3, "fit"), "cpu")))
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_a_loss_that_is_not_finite_names_step_and_learning_rate(make_gpt2, generator, budget):
    calls = []

    def loss(model, batch):
        calls.append(1)
        return model(**batch).loss * (float("nan") if len(calls) == 3 else 1.0)

    with pytest.raises(FloatingPointError, match="diverged") as error:
        fit(make_gpt2(), lm_examples(), budget, generator, "cpu", loss=loss)
    message = str(error.value)
    assert (
        "step 3 of 4" in message and "learning rate 1.00e-02" in message and "Lower training.learning_rate" in message
    )
    assert len(calls) == 3


def test_a_loss_that_is_not_finite_in_the_last_step_is_seen_too(make_gpt2, generator, budget):
    # 41 steps are logged every second one, so the last falls between two entries of the log.
    calls = []

    def loss(model, batch):
        calls.append(1)
        return model(**batch).loss * (float("inf") if len(calls) == 41 else 1.0)

    with pytest.raises(FloatingPointError, match="step 41 of 41"):
        fit(make_gpt2(layers=1), lm_examples(), {**budget, "steps": 41}, generator, "cpu", loss=loss)


def own_loss(model, batch):
    return model(input_ids=batch["input_ids"], labels=batch["labels"]).loss


def collate_reviews(batch):
    return pad_batch(batch, 0)


@pytest.mark.parametrize("kind", ["language model", "own loss", "classifier"])
def test_two_halves_of_a_batch_train_as_the_whole(make_gpt2, budget, kind):
    if kind == "classifier":
        generator = np.random.default_rng(0)
        examples = [{"input_ids": generator.integers(1, 300, 9).tolist(), "labels": i % 2} for i in range(8)]
        options = {"collate": collate_reviews}
    else:
        examples, options = lm_examples(), {"loss": own_loss} if kind == "own loss" else {}
    # AdamW's first step hides the gradient's scale, so the gradient itself is compared, before it is clipped.
    trained, found = [], []
    for accumulation in (1, 2):
        cls = "GPT2ForSequenceClassification" if kind == "classifier" else "GPT2LMHeadModel"
        model = make_gpt2(cls=cls)
        gradients = []
        model.transformer.wpe.weight.register_post_accumulate_grad_hook(lambda p, g=gradients: g.append(p.grad.clone()))
        settings = {**budget, "steps": 1, "accumulation": accumulation, "max_gradient_norm": 1e6}
        trained.append(parameters_of(fit(model, examples, settings, seeded_generator(1), "cpu", **options)))
        found.append(gradients[-1])
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-6)
    for name in trained[0]:
        difference = (trained[0][name] - trained[1][name]).abs()
        assert (
            difference.max() <= 2.1 * budget["learning_rate"]
        )  # AdamW's step is at most twice the rate, if a sign flips
        if not name.endswith("attn.c_attn.bias"):  # a key's bias has no gradient but rounding: its sign is chance
            assert (difference > 1e-4).float().mean() < 0.02, name


def test_the_loss_of_a_toy_problem_falls(make_gpt2, generator, budget):
    model = make_gpt2(layers=2)
    examples = lm_examples(count=4)
    batch = {key: torch.stack([example[key] for example in examples]) for key in ("input_ids", "labels")}
    with torch.no_grad():
        before = float(model(**batch).loss)
    trained = fit(model, examples, {**budget, "steps": 60, "schedule": "cosine", "warmup_share": 0.1}, generator, "cpu")
    assert trained is model and not model.training
    with torch.no_grad():
        after = float(model(**batch).loss)
    assert after < 0.5 * before


def test_every_example_is_seen_once_before_any_is_seen_twice(make_gpt2, generator, budget):
    seen = []

    def loss(model, batch):
        seen.extend(batch["input_ids"][:, 0].tolist())
        return own_loss(model, batch)

    examples = [{"input_ids": torch.full((4,), i), "labels": torch.full((4,), i)} for i in range(8)]
    fit(make_gpt2(layers=1), examples, budget, generator, "cpu", loss=loss)
    assert sorted(seen[:8]) == sorted(seen[8:]) == list(range(8))
    assert seen[:8] != seen[8:] and seen[:8] != list(range(8))


def test_the_learning_rate_rises_and_falls(make_gpt2, generator, budget, caplog):
    settings = {**budget, "steps": 10, "warmup_share": 0.5, "schedule": "linear"}
    with caplog.at_level("INFO", logger="ffnfold.training"):
        fit(make_gpt2(layers=1), lm_examples(), settings, generator, "cpu")
    rates = [float(record.getMessage().split()[-1]) for record in caplog.records]
    assert len(rates) == 10 and max(rates) <= 0.01
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < max(rates) / 2


def test_language_modeling_examples_mix_tasks_by_their_text(tokenizer, texts, generator, budget):
    data = {
        "language_modeling": ({"text": texts * 3}, "\n"),
        "summarization": ({"article": texts[:10], "highlights": ["bread"] * 10}, "\n\n"),
    }
    settings = {**budget, "steps": 5, "batch_size": 8}
    examples = language_modeling_examples(tokenizer, data, " TL;DR:", settings, generator)
    assert 40 <= len(examples) <= 42
    assert all(example["input_ids"].shape == (16,) for example in examples)
    assert all(torch.equal(example["input_ids"], example["labels"]) for example in examples)
    read = "".join(tokenizer.decode(example["input_ids"]) for example in examples)
    assert "TL;DR: bread" in read and "<|endoftext|>" not in read


FC, PROJ = "transformer.h.0.mlp.c_fc.weight", "transformer.h.0.mlp.c_proj.weight"


def with_zeros(make_gpt2, **changes):
    model = make_gpt2(layers=2, **changes)
    with torch.no_grad():
        for name in (FC, PROJ):
            model.get_parameter(name)[:, :3] = 0
    return model


def test_zeros_that_were_held_are_counted(make_gpt2, generator, budget, caplog):
    model = with_zeros(make_gpt2)
    held = hold_zeros(model, [FC, PROJ])
    assert {name: int(mask.sum()) for name, mask in held.items()} == {FC: 16 * 3, PROJ: 64 * 3}
    fit(model, lm_examples(), budget, generator, "cpu")
    with caplog.at_level("INFO", logger="ffnfold.training"):
        check_zeros(model, held)
    assert "240 zeros in 2 tensors" in caplog.text
    assert model.get_parameter(FC)[:, 3:].count_nonzero() == 16 * 61


def test_zeros_whose_hook_is_gone_are_found(make_gpt2, generator, budget):
    model = with_zeros(make_gpt2)
    held = hold_zeros(model, [FC, PROJ])
    model.get_parameter(PROJ)._post_accumulate_grad_hooks.clear()
    fit(model, lm_examples(), budget, generator, "cpu")
    with pytest.raises(RuntimeError, match=f"{PROJ}: 192 of 192 zeros"):
        check_zeros(model, held)
    model.get_parameter(PROJ).data[:, :3] = 0
    check_zeros(model, held)


def test_fine_tuning_checks_its_zeros(make_gpt2, tokenizer, generator, budget, monkeypatch):
    columns = {"id": ["a", "b", "c", "d"], "text": ["good bread", "a dull film"] * 2, "label": [1, 0] * 2}
    settings = {"max_length": 8, "eval_batch_size": 2, "training": budget, "pool": "last_token"}
    settings |= {"max_items": None, "max_training_items": None}

    def measure():
        model = with_zeros(make_gpt2, cls="GPT2ForSequenceClassification")
        data = (tokenizer, columns, columns, settings, {"confidence": 0.95}, generator, "cpu", [FC])
        sentiment.measure(model, *data)
        return model

    assert not measure().get_parameter(FC)[:, :3].any()
    monkeypatch.setattr(torch.Tensor, "register_post_accumulate_grad_hook", lambda *_: None)
    with pytest.raises(RuntimeError, match=FC):
        measure()


def trained_alone(make_gpt2, budget, names, loss=None, resume=None):
    """A model before and after a training of some parameters alone; zeros of a frozen one are held as well."""
    model = with_zeros(make_gpt2, resid_pdrop=0.1)
    before = parameters_of(model)
    train_only(model, names)
    held = hold_zeros(model, [FC, PROJ])
    fit(model, lm_examples(), budget, seeded_generator(3), "cpu", loss=loss, resume=resume)
    check_zeros(model, held)
    return before, parameters_of(model)


@pytest.mark.parametrize("names", [[PROJ], ["transformer.h.1.mlp.c_fc.bias"], [PROJ, "transformer.ln_f.weight"]])
def test_frozen_parameters_keep_their_bytes(make_gpt2, budget, names):
    before, after = trained_alone(make_gpt2, {**budget, "weight_decay": 0.5}, names)
    assert {name for name in before if not torch.equal(before[name], after[name])} == set(names)


def test_a_training_of_some_parameters_alone_can_be_resumed(make_gpt2, budget, tmp_path, monkeypatch):
    monkeypatch.setenv(INTERVAL_VARIABLE, "0")
    names, calls = [PROJ, "transformer.h.1.ln_1.bias"], []

    def dies_once(model, batch):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return own_loss(model, batch)

    _, whole = trained_alone(make_gpt2, budget, names, own_loss)
    with pytest.raises(KeyboardInterrupt):
        trained_alone(make_gpt2, budget, names, dies_once, tmp_path)
    _, resumed = trained_alone(make_gpt2, budget, names, dies_once, tmp_path)
    assert len(calls) == 3 + 2 and all(torch.equal(whole[name], resumed[name]) for name in whole)
    trained_alone(make_gpt2, budget, names[:1], dies_once, tmp_path)
    assert len(calls) == 5 + 4, "the state of a training of other parameters is not used"


@pytest.mark.parametrize("names", [["transformer.h.9.mlp.c_fc.bias", PROJ], []])
def test_parameters_to_train_that_do_not_exist_are_a_bug(make_gpt2, names):
    with pytest.raises(RuntimeError, match="transformer.h.9" if names else "none is named"):
        train_only(make_gpt2(layers=1), names)


def test_naming_nothing_to_train_alone_trains_everything(make_gpt2):
    model = make_gpt2(layers=1)
    train_only(model, None)
    assert all(parameter.requires_grad for parameter in model.parameters())
