"""The published study's artefacts, each a switch: what they do to what is read, scored and timed."""

import math

import numpy as np
import pytest
import torch
from ffnfold.calibration import correlate_layers
from ffnfold.calibration_text import calibration_batches
from ffnfold.errors import InputError
from ffnfold.metrics import latency, perplexity, sentiment, summarization
from ffnfold.text import padded_rows
from ffnfold.training import fit, language_modeling_examples

STATISTICS = {"confidence": 0.95, "resamples": 20}
SCORING = {
    "window": 32,
    "stride": 16,
    "batch_size": 2,
    "truncate_tokens": None,
    "score_padding": False,
    "pad_to": "longest",
    "max_items": None,
}


def token_ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_truncated_rows_are_windows_of_their_own(make_gpt2, tokenizer, texts):
    rows = [texts[0], "", "  ", texts[1], "a"]
    settings = {**SCORING, "truncate_tokens": 8}
    plan = perplexity.plan(tokenizer, rows, "\n", settings)
    encoded = [token_ids(tokenizer, row)[:8] for row in (texts[0], texts[1], "a")]
    assert plan.ids.tolist() == [token for row in encoded for token in row]
    assert plan.windows == [(0, 8, 7), (8, 16, 7)]  # the row of one token predicts nothing
    assert plan.attend is None
    cut = [tokenizer.decode(row) for row in encoded]
    assert plan.size == {
        "tokens": 16 + len(encoded[2]),
        "words": sum(len(text.split()) for text in cut),
        "bytes": sum(len(text.encode()) for text in cut),
    }
    model = make_gpt2()
    nats = perplexity.score_windows(model, plan.ids, plan.windows, 4, "cpu")
    for found, row in zip(nats, encoded, strict=False):
        with torch.no_grad():
            expected = model(torch.tensor([row]), labels=torch.tensor([row])).loss * 7
        assert found == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("pad_to", "lengths"), [("longest", [12, 12, 5, 5]), ("full", [12] * 4)])
def test_padding_is_scored_with_the_rows(make_gpt2, tokenizer, texts, pad_to, lengths):
    short = tokenizer.decode(token_ids(tokenizer, texts[2])[:5])
    rows = [texts[0], "a", short, "b"]
    settings = {**SCORING, "truncate_tokens": 12, "score_padding": True, "pad_to": pad_to}
    plan = perplexity.plan(tokenizer, rows, "\n", settings)
    assert [end - start for start, end, _ in plan.windows] == lengths
    assert [scored for *_, scored in plan.windows] == [length - 1 for length in lengths]
    model, pad = make_gpt2(), tokenizer.eos_token_id
    nats = perplexity.score_windows(model, plan.ids, plan.windows, 4, "cpu", plan.attend)
    # The published way, written with transformers' own loss: the mean over all positions of a padded batch.
    for (start, end, _), found, row in zip(plan.windows, nats, rows, strict=True):
        ids = token_ids(tokenizer, row)[:12]
        padded = torch.tensor([ids + [pad] * (end - start - len(ids))])
        assert plan.ids[start:end].tolist() == padded[0].tolist()
        mask = torch.tensor([[1] * len(ids) + [0] * (end - start - len(ids))])
        with torch.no_grad():
            loss = model(padded, attention_mask=mask, labels=padded).loss
        assert found == pytest.approx(float(loss) * (end - start - 1), rel=1e-5)


def test_padding_alone_can_be_nearly_all_of_a_perplexity(make_gpt2, tokenizer, always_says, texts, generator):
    rows = [texts[0], *["a b"] * 20]
    sees_pads = always_says(make_gpt2(), tokenizer.eos_token_id)  # emits end of text whatever it reads
    settings = {**SCORING, "truncate_tokens": 24, "score_padding": True, "pad_to": "full"}

    def score(**changes):
        values, _ = perplexity.measure(
            {"": sees_pads}, tokenizer, rows, "\n", {**settings, **changes}, STATISTICS, generator, "cpu"
        )
        return values["token_perplexity"].value

    assert score(score_padding=False) > 100 * score()


def test_the_first_windows_only(tokenizer, texts):
    whole = perplexity.plan(tokenizer, texts, "\n", SCORING)
    part = perplexity.plan(tokenizer, texts, "\n", {**SCORING, "max_items": 3})
    assert part.windows == whole.windows[:3] and len(whole.windows) > 3
    text = tokenizer.decode(whole.ids[: part.windows[-1][1]])
    assert part.size == {"tokens": 64, "words": len(text.split()), "bytes": len(text.encode())}
    rows = perplexity.plan(tokenizer, texts, "\n", {**SCORING, "truncate_tokens": 9, "max_items": 2})
    assert rows.windows == [(0, 9, 8), (9, 18, 8)]


@pytest.mark.parametrize("settings", [SCORING, {**SCORING, "truncate_tokens": 8}, {**SCORING, "score_padding": True}])
def test_a_split_without_words_cannot_be_scored(tokenizer, settings):
    with pytest.raises(InputError, match="no two tokens"):
        perplexity.plan(tokenizer, ["", " ", "\n"], "\n", settings)


# ----------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("labelled", [True, False])
def test_rows_padded_by_hand(tokenizer, texts, generator, labelled):
    pad = tokenizer.eos_token_id
    ids, mask, labels = padded_rows(tokenizer, ["a", "", texts[0]], 6, 9, labelled, generator)
    short, long = token_ids(tokenizer, "a"), token_ids(tokenizer, texts[0])[:6]
    rest = 6 - len(short)
    rows = {tuple(i): (m, y) for i, m, y in zip(ids.tolist(), mask.tolist(), labels.tolist(), strict=True)}
    assert rows == {
        (*short, *[pad] * rest): ([1] * len(short) + [0] * rest, short + [pad if labelled else -100] * rest),
        tuple(long): ([1] * 6, long),
    }


def test_rows_are_drawn_without_repetition(tokenizer, texts):
    rows = [f"{i} {text}" for i, text in enumerate(texts)]
    first = padded_rows(tokenizer, rows, 40, 5, False, np.random.default_rng(1))[0]
    again = padded_rows(tokenizer, rows, 40, 5, False, np.random.default_rng(1))[0]
    other = padded_rows(tokenizer, rows, 40, 5, False, np.random.default_rng(2))[0]
    assert len({tuple(row) for row in first.tolist()}) == 5
    assert (first == again).all() and first.tolist() != other.tolist()
    with pytest.raises(InputError, match="no row with text"):
        padded_rows(tokenizer, ["", " "], 8, 2, False, np.random.default_rng(0))


def test_only_labels_on_padding_teach_a_model_to_emit_pads(make_gpt2, tokenizer, generator, budget):
    rows = {"text": ["bread", "fruit"] * 20}
    mean_nats = {}
    for labelled in (True, False):
        settings = {**budget, "pack": False, "labels_on_padding": labelled, "steps": 60}
        examples = language_modeling_examples(tokenizer, {"language_modeling": (rows, "\n")}, "", settings, generator)
        model = fit(make_gpt2(layers=1), examples, settings, generator, "cpu")
        scoring = {**SCORING, "truncate_tokens": 16, "score_padding": True, "pad_to": "full"}
        values, _ = perplexity.measure(
            {"": model}, tokenizer, rows["text"], "\n", scoring, STATISTICS, generator, "cpu"
        )
        mean_nats[labelled] = math.log(values["token_perplexity"].value)
    assert mean_nats[True] < 0.5 and mean_nats[False] > mean_nats[True] + 2


# ------------------------------------------------------------------------------------------------------------ latency


def test_a_model_that_stops_is_timed_over_fewer_tokens(make_gpt2, always_says, generator):
    (ends, goes_on) = (always_says(make_gpt2(layers=1), 0), make_gpt2(layers=1, eos_token_id=299))
    settings = {
        "prompt_tokens": 4,
        "generated_tokens": 9,
        "warmup": 0,
        "repeats": 4,
        "threads": 1,
        "max_items": None,
        "stop_at_end_of_text": True,
    }
    values, items = latency.measure(goes_on, ends, np.arange(1, 30), settings, STATISTICS, generator, "cpu")
    assert set(items["variant_tokens"]) == {1} and values["generated_tokens"].value == 1
    assert set(items["baseline_tokens"]) == {9}
    fixed = {**settings, "stop_at_end_of_text": False}
    _, items = latency.measure(goes_on, ends, np.arange(1, 30), fixed, STATISTICS, generator, "cpu")
    assert set(items["variant_tokens"]) == set(items["baseline_tokens"]) == {9}


def test_one_prompt_again_and_again(make_gpt2, generator, monkeypatch):
    seen = []
    model = make_gpt2(layers=1)
    real = latency.generate_greedy
    monkeypatch.setattr(latency, "generate_greedy", lambda m, p, *rest: seen.append(p.tolist()) or real(m, p, *rest))
    settings = {
        "prompt_tokens": 4,
        "generated_tokens": 2,
        "warmup": 1,
        "repeats": 3,
        "threads": 1,
        "max_items": 1,
        "stop_at_end_of_text": False,
    }
    latency.measure(model, model, np.arange(1, 30), settings, STATISTICS, generator, "cpu")
    assert seen == [[[1, 2, 3, 4]]] * 8


# ---------------------------------------------------------------------------------------------------------- sentiment


def test_the_last_position_is_a_pad_for_a_short_review(make_gpt2):
    model = make_gpt2(cls="GPT2ForSequenceClassification", num_labels=2)
    rows = [[5, 6, 7], [9] * 6]
    batch = sentiment.pad_batch([{"input_ids": row, "labels": 0} for row in rows], 0, 6)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 0, 0, 0], [9] * 6]
    with torch.no_grad():
        at_token = sentiment.pooled_logits(model, batch, "last_token")
        at_position = sentiment.pooled_logits(model, batch, "last_position")
        states = model.transformer(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    torch.testing.assert_close(at_position, model.score(states[:, 5]))
    torch.testing.assert_close(at_token[1], at_position[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(at_token[0], at_position[0], atol=1e-3)


@pytest.mark.parametrize("pool", ["last_token", "last_position"])
def test_the_head_is_trained_and_read_where_it_pools(make_gpt2, tokenizer, generator, budget, pool):
    labels = [i % 2 for i in range(48)]
    rows = {"id": labels, "text": [("good" if y else "bad") for y in labels], "label": labels}
    settings = {
        "max_length": 6,
        "eval_batch_size": 8,
        "training": {**budget, "steps": 40, "batch_size": 16},
        "pool": pool,
        "max_items": 10,
        "max_training_items": 40,
    }
    model = make_gpt2(cls="GPT2ForSequenceClassification", num_labels=2, layers=2)
    values, items = sentiment.measure(model, tokenizer, rows, rows, settings, STATISTICS, generator, "cpu")
    assert values["accuracy"].value >= 95 and len(items) == 10


# ------------------------------------------------------------------------------------------------------ summarization


def test_the_articles_own_words_are_scored_with_the_summary(make_gpt2, always_says, tokenizer, texts, generator):
    (token,) = tokenizer("x")["input_ids"]
    model = always_says(make_gpt2(), token)
    settings = {
        "prompt": "",
        "article_tokens": 12,
        "generated_tokens": 4,
        "beams": 1,
        "no_repeat_ngram_size": 0,
        "batch_size": 2,
        "include_prompt": True,
        "max_items": 2,
    }
    test = {"id": ["1", "2", "3"], "article": [texts[0], "a", texts[1]], "highlights": [texts[0], "b", "c"]}
    values, items = summarization.measure(model, tokenizer, test, settings, STATISTICS, generator, "cpu")
    start = tokenizer.decode(token_ids(tokenizer, texts[0])[:12])
    assert items["generated"].tolist() == [f"{start}xxxx".strip(), "axxxx"]
    alone, _ = summarization.measure(
        model, tokenizer, test, {**settings, "include_prompt": False}, STATISTICS, generator, "cpu"
    )
    assert values["rouge1"].value > 0.1 and alone["rouge1"].value == 0


# ---------------------------------------------------------------------------------------------------------- alignment


def test_pads_take_part_in_the_correlation(make_gpt2, tokenizer, texts, generator):
    settings = {"tokens": 30, "sequence_length": 12, "count_padding": True, "max_items": 3}
    model, pad = make_gpt2(), tokenizer.eos_token_id
    rows = [texts[0], "", "a", texts[1], texts[2]]
    found = correlate_layers(model, calibration_batches(model, tokenizer, rows, "\n", settings, generator, "cpu", 1))
    ids = [token_ids(tokenizer, row)[:12] for row in (texts[0], "a", texts[1])]
    mask = torch.tensor([[1] * len(row) + [0] * (12 - len(row)) for row in ids])
    padded = torch.tensor([row + [pad] * (12 - len(row)) for row in ids])
    captured = {}
    handles = [
        model.transformer.h[layer].mlp.c_fc.register_forward_hook(
            lambda m, i, o, layer=layer: captured.update({layer: o.reshape(36, -1)[:30].double().numpy()})
        )
        for layer in (0, 1)
    ]
    with torch.no_grad():
        model(padded, attention_mask=mask)
    for handle in handles:
        handle.remove()
    # Three rows of 12 positions, pads and all; 30 of them.
    neurons = captured[0].shape[1]
    expected = np.corrcoef(captured[0].T, captured[1].T)[:neurons, neurons:]
    np.testing.assert_allclose(found.correlation(0, 1), expected, atol=1e-4)
    with pytest.raises(InputError, match="no row with text"):
        calibration_batches(model, tokenizer, [""], "\n", settings, generator, "cpu", 1)
