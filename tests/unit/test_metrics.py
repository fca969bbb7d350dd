import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from ffnfold.errors import InputError
from ffnfold.metrics import latency, parameters, perplexity, sentiment, summarization
from hypothesis import given
from hypothesis import strategies as st

STATISTICS = {"confidence": 0.95, "resamples": 100}
WINDOWS = {"truncate_tokens": None, "score_padding": False, "pad_to": "longest", "max_items": None}
TIMING = {"stop_at_end_of_text": False, "max_items": None}


# --------------------------------------------------------------------------------------------------- parameters


def test_counts_are_those_of_the_model(make_gpt2, state_of):
    model = make_gpt2()
    state, config = state_of(model)
    state["transformer.wpe.weight"][3] = 0
    # 16-wide blocks: 2 x 32 norms, 816 + 272 attention, 1,088 + 1,040 FFN = 3,280; 300 x 16 and 64 x 16; last norm 32.
    assert parameters.count_parameters(state) == (4 * 3280 + 4800 + 1024 + 32, 4 * 3280 + 4800 + 1024 + 32 - 16)
    assert parameters.count_parameters(state)[0] == sum(p.numel() for p in model.parameters())
    values = parameters.measure(state, config, 12345, {"context_length": 10})
    assert {name: (v.value, v.ci_low, v.ci_high, v.unit, v.ci_method) for name, v in values.items()} == {
        "stored_parameters": (18976, 18976, 18976, "parameters", "exact"),
        "nonzero_parameters": (18960, 18960, 18960, "parameters", "exact"),
        "size_bytes": (12345, 12345, 12345, "bytes", "exact"),
        "flops_per_token": (36736, 36736, 36736, "FLOP", "exact"),
    }


# --------------------------------------------------------------------------------------------------- perplexity


def test_windows_by_hand():
    assert perplexity.plan_windows(10, 4, 2) == [(0, 4, 3), (2, 6, 2), (4, 8, 2), (6, 10, 2)]
    assert perplexity.plan_windows(9, 4, 2) == [(0, 4, 3), (2, 6, 2), (4, 8, 2), (6, 9, 1)]
    assert perplexity.plan_windows(8, 4, 4) == [(0, 4, 3), (4, 8, 3)]
    assert perplexity.plan_windows(3, 100, 50) == [(0, 3, 2)]


@given(st.integers(2, 300), st.integers(2, 40), st.data())
def test_windows_score_no_token_twice_and_leave_out_only_the_first(tokens, window, data):
    stride = data.draw(st.integers(1, window))
    windows = perplexity.plan_windows(tokens, window, stride)
    scored = [position for start, end, count in windows for position in range(end - count, end)]
    assert len(scored) == len(set(scored)) and scored == sorted(scored)
    for start, end, count in windows:
        assert 0 <= start < end <= tokens and end - start <= window
        assert 1 <= count <= end - start - 1, "a window scores something, and never its own first token"
        assert end - count - start >= min(window - stride, end - count), "less context than window - stride"
    if stride < window:
        assert scored == list(range(1, tokens))
    else:
        assert scored == [position for position in range(tokens) if position % window]


@pytest.mark.parametrize(("tokens", "window", "stride"), [(1, 4, 2), (9, 4, 5), (9, 4, 0)])
def test_impossible_windows_are_refused(tokens, window, stride):
    with pytest.raises(ValueError, match=r"stride must be|at least 2 tokens"):
        perplexity.plan_windows(tokens, window, stride)


@pytest.mark.parametrize(("window", "stride"), [(8, 4), (8, 8), (7, 1), (50, 25)])
def test_nats_are_those_of_a_loop_over_single_tokens(make_gpt2, generator, window, stride):
    model = make_gpt2()
    ids = generator.integers(0, 300, 30)
    windows = perplexity.plan_windows(len(ids), window, stride)
    found = perplexity.score_windows(model, ids, windows, 3, "cpu")
    for (start, end, scored), nats in zip(windows, found, strict=True):
        expected = 0.0
        for position in range(end - scored, end):
            with torch.no_grad():
                logits = model(torch.from_numpy(ids[start:position])[None]).logits[0, -1].double()
            expected -= float(torch.log_softmax(logits, dim=-1)[ids[position]])
        assert nats == pytest.approx(expected, rel=1e-4)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_its_perplexity(make_gpt2, tokenizer, texts, generator):
    model = make_gpt2()
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
    text = "\n".join(texts)
    settings = {**WINDOWS, "window": 32, "stride": 16, "batch_size": 4}
    values, items = perplexity.measure({"": model}, tokenizer, texts, "\n", settings, STATISTICS, generator, "cpu")
    tokens = len(tokenizer(text)["input_ids"])
    words, size = len(text.split()), len(text.encode())
    expected = {
        "token_perplexity": 300.0,
        "word_perplexity": 300.0 ** (tokens / words),
        "bits_per_byte": tokens * math.log2(300) / size,
    }
    for name, value in expected.items():
        figure = values[name]
        assert (figure.value, figure.ci_low, figure.ci_high) == pytest.approx((value, value, value), rel=1e-5)
        assert figure.n == len(items)
    assert items["scored_tokens"].sum() == tokens - 1
    assert list(items.columns) == ["start_token", "scored_tokens", "nats"]


def test_before_and_after_recovery_share_their_windows(make_gpt2, tokenizer, texts, generator):
    models = {"": make_gpt2(1), "_before_recovery": make_gpt2(2)}
    settings = {**WINDOWS, "window": 32, "stride": 32, "batch_size": 2}
    values, items = perplexity.measure(models, tokenizer, texts, "\n", settings, STATISTICS, generator, "cpu")
    for suffix in models:
        rate = items[f"nats{suffix}"].sum() / items["scored_tokens"].sum()
        figure = values[f"token_perplexity{suffix}"]
        assert figure.value == pytest.approx(math.exp(rate)) and figure.ci_low < figure.value < figure.ci_high
    assert len(values) == 6


def test_windows_are_weighted_by_their_tokens(generator):
    # 100 tokens at 1 nat and 1 token at 5: 105/101 nats a token, not the mean of 1 and 5.
    size = {"tokens": 102, "words": 51, "bytes": 204}
    found = perplexity.figures(np.array([100.0, 5.0]), np.array([100, 1]), size, STATISTICS, generator)
    assert found["token_perplexity"].value == pytest.approx(math.exp(105 / 101))
    assert found["word_perplexity"].value == pytest.approx(math.exp(2 * 105 / 101))
    assert found["bits_per_byte"].value == pytest.approx(105 / 101 / 2 / math.log(2))


def test_a_loss_that_is_not_finite_is_an_error(generator):
    size = {"tokens": 3, "words": 2, "bytes": 9}
    with pytest.raises(FloatingPointError, match="not finite in 1 of 2 windows"):
        perplexity.figures(np.array([1.0, np.nan]), np.array([1, 1]), size, STATISTICS, generator)


def test_an_enormous_word_perplexity_stays_a_number(generator):
    size = {"tokens": 1000, "words": 2, "bytes": 4000}
    found = perplexity.figures(np.array([90.0, 99.0]), np.array([10, 10]), size, STATISTICS, generator)
    assert math.isfinite(found["word_perplexity"].ci_high)


# --------------------------------------------------------------------------------------------------- latency


def test_latency_figures_by_hand(generator):
    items = pd.DataFrame({"baseline_ms": [20.0] * 5, "variant_ms": [10.0, 20.0, 5.0, 10.0, 10.0], "variant_tokens": 5})
    found = latency.figures(items, STATISTICS, generator)
    assert {name: (figure.value, figure.unit, figure.n) for name, figure in found.items()} == {
        "latency_ms_median": (10.0, "ms", 5),
        "latency_ms_p90": (pytest.approx(16.0), "ms", 5),  # rank 0.9 x 4 = 3.6 of 5, 10, 10, 10, 20
        "speedup": (2.0, "x", 5),
        "generated_tokens_per_s": (500.0, "tokens/s", 5),
        "generated_tokens": (5.0, "tokens", 5),
    }
    assert all(5 <= figure.ci_low <= figure.value for name, figure in found.items() if name.endswith(("median", "p90")))


def test_the_speedup_is_paired(generator):
    # The machine slows down tenfold in the middle; each pair still says 2.
    baseline = np.array([10.0, 100.0, 100.0, 10.0, 10.0])
    found = latency.figures(
        pd.DataFrame({"baseline_ms": baseline, "variant_ms": baseline / 2, "variant_tokens": 5}), STATISTICS, generator
    )
    assert (found["speedup"].value, found["speedup"].ci_low, found["speedup"].ci_high) == (2, 2, 2)


def test_generation_makes_its_tokens_whatever_the_model_says(make_gpt2, always_says):
    model = always_says(make_gpt2(), 0)  # 0 is the end of text
    prompt = torch.randint(1, 300, (1, 5))
    stopped = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=7, do_sample=False)
    assert stopped.shape == (1, 6) and stopped[0, -1] == 0
    for tokens in (1, 7, 20):
        made = latency.generate_greedy(model, prompt, tokens)
        assert made.shape == (1, 5 + tokens) and torch.equal(made[:, :5], prompt) and (made[:, 5:] != 0).all()


def test_generation_is_greedy(make_gpt2):
    model = make_gpt2(eos_token_id=299)
    prompt = torch.randint(1, 299, (1, 5), generator=torch.Generator().manual_seed(0))
    ids = prompt
    with torch.no_grad():
        for _ in range(6):
            logits = model(ids).logits[:, -1]
            logits[:, 299] = -torch.inf
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(latency.generate_greedy(model, prompt, 6), ids)


class Recorder:
    """Stands for a model: notes its name and the prompt at each generation."""

    def __init__(self, name, calls):
        self.name, self.calls, self.config = name, calls, SimpleNamespace(eos_token_id=0)

    def generate(self, prompt, max_new_tokens, **options):
        self.calls.append((self.name, int(prompt[0, 0])))
        return torch.cat([prompt, torch.zeros(1, max_new_tokens, dtype=prompt.dtype)], dim=1)


def test_baseline_and_variant_are_timed_in_turn_on_the_same_prompt():
    calls = []
    prompts = torch.tensor([[10, 0], [11, 0], [12, 0]])
    settings = {**TIMING, "warmup": 2, "repeats": 5, "generated_tokens": 3}
    items = latency.time_pairs(Recorder("b", calls), Recorder("v", calls), prompts, settings, "cpu")
    assert [name for name, _ in calls] == list("bvbv" + "bv" + "vb" + "bv" + "vb" + "bv")
    assert [prompt for _, prompt in calls[4:]] == [10, 10, 11, 11, 12, 12, 10, 10, 11, 11]
    assert len(items) == 5 and (items > 0).all(axis=None)


def test_the_baseline_against_itself(make_gpt2, generator):
    model = make_gpt2(layers=1)
    settings = {**TIMING, "prompt_tokens": 4, "generated_tokens": 3, "warmup": 1, "repeats": 5, "threads": 1}
    values, items = latency.measure(model, model, np.arange(1, 12), settings, STATISTICS, generator, "cpu")
    assert len(items) == 5 and (items > 0).all(axis=None)
    assert 0.1 < values["speedup"].value < 10
    assert values["latency_ms_median"].value == pytest.approx(items["variant_ms"].median())


# --------------------------------------------------------------------------------------------------- sentiment


@pytest.fixture(scope="module")
def classifier(make_gpt2):
    return make_gpt2(cls="GPT2ForSequenceClassification", num_labels=2)


@pytest.fixture(scope="module")
def reviews():
    generator = np.random.default_rng(3)
    return [generator.integers(1, 300, length).tolist() for length in generator.integers(1, 30, 40)]


def test_reviews_are_cut_and_an_empty_one_becomes_an_end_of_text(tokenizer, texts):
    whole = tokenizer(texts[0], add_special_tokens=False)["input_ids"]
    rows = sentiment.encode_reviews(tokenizer, [texts[0], "", "a"], 5)
    assert rows == [whole[:5], [tokenizer.eos_token_id], tokenizer("a")["input_ids"]]


def test_padding_by_hand():
    batch = sentiment.pad_batch([{"input_ids": [5, 6, 7], "labels": 1}, {"input_ids": [8], "labels": 0}], 99)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 99, 99]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]


def test_logits_do_not_depend_on_the_padding(classifier, reviews):
    with torch.no_grad():
        together = sentiment.pad_batch([{"input_ids": row, "labels": 0} for row in [*reviews, [1] * 50]], 0)
        del together["labels"]
        padded = classifier(**together).logits[:-1]
        alone = torch.cat([classifier(torch.tensor([row])).logits for row in reviews])
        last = [classifier.score(classifier.transformer(torch.tensor([r])).last_hidden_state[:, -1]) for r in reviews]
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone, torch.cat(last), rtol=1e-5, atol=1e-5)


def test_predictions_do_not_depend_on_the_batch(classifier, reviews):
    rows = [*reviews, [0]]
    expected = []
    with torch.no_grad():
        for row in rows:
            expected.append(int(classifier(torch.tensor([row])).logits.argmax()))
    assert len(set(expected)) == 2
    for batch_size in (1, 7, 100):
        assert sentiment.predict(classifier, rows, batch_size, "cpu").tolist() == expected


def test_accuracy_is_in_percent_with_wilsons_interval():
    (figure,) = sentiment.figures(np.array([True] * 50 + [False] * 50), 0.95).values()
    assert (figure.value, figure.unit, figure.n) == (50.0, "%", 100)
    assert (figure.ci_low, figure.ci_high) == pytest.approx((40.38, 59.62), abs=0.005)


def test_a_classifier_learns_a_plain_rule(make_gpt2, tokenizer, generator, budget):
    labels = [i % 2 for i in range(64)]
    rows = {
        "id": [str(i) for i in range(64)],
        "text": [f"{'good' if y else 'bad'} film, take {i}, {'good' if y else 'bad'}" for i, y in enumerate(labels)],
        "label": labels,
    }
    test = {key: values[:20] for key, values in rows.items()}
    model = make_gpt2(cls="GPT2ForSequenceClassification", num_labels=2, layers=2)
    frozen = "transformer.h.0.mlp.c_fc.weight"
    with torch.no_grad():
        model.get_parameter(frozen)[:8] = 0
    settings = {
        "max_length": 32,
        "eval_batch_size": 8,
        "training": {**budget, "steps": 40, "batch_size": 16},
        "pool": "last_token",
        "max_items": None,
        "max_training_items": None,
    }
    values, items = sentiment.measure(model, tokenizer, rows, test, settings, STATISTICS, generator, "cpu", [frozen])
    assert values["accuracy"].value == 100 * items["correct"].mean() >= 95
    assert items["id"].tolist() == test["id"] and items["label"].tolist() == test["label"]
    assert (items["correct"] == (items["predicted"] == items["label"])).all()
    assert not model.get_parameter(frozen)[:8].any() and model.get_parameter(frozen)[8:].all()


# --------------------------------------------------------------------------------------------------- summarization


def test_rouge_by_hand():
    pairs = [
        ("The cat sat.", "the cat sat"),  # identical but for case and marks
        ("green birds", "the cat sat"),  # nothing shared
        # 2 of 3 words and 2 of 6: F1 4/9. 1 of 2 bigrams and 1 of 5: F1 2/7. The longest common run is 2 words.
        ("the cat ran", "the cat sat on the mat"),
        ("", "the cat"),
        # Two sentences in the other order: each is found whole by rougeLsum, 2 of 4 words by rougeL.
        ("One two. Three four.", "Three four. One two."),
    ]
    scores = summarization.rouge_scores(*zip(*pairs, strict=True))
    assert scores["rouge1"] == pytest.approx([1, 0, 4 / 9, 0, 1])
    assert scores["rouge2"] == pytest.approx([1, 0, 2 / 7, 0, 2 / 3])
    assert scores["rougeL"] == pytest.approx([1, 0, 4 / 9, 0, 1 / 2])
    assert scores["rougeLsum"] == pytest.approx([1, 0, 4 / 9, 0, 1])


def test_sentences_and_lead_three():
    text = 'It rains. "Really?" she said!  Yes (it does.) 3.5 mm fell.\nThe end'
    assert summarization.split_sentences(text)[0] == "It rains."
    assert summarization.split_sentences(text)[-2:] == ["3.5 mm fell.", "The end"]
    assert summarization.lead("A b. C d! E f? G h.") == "A b.\nC d!\nE f?"
    assert summarization.lead("One only") == "One only"
    assert summarization.lead("") == ""


SETTINGS = {
    "prompt": "\nTL;DR:",
    "article_tokens": 12,
    "generated_tokens": 8,
    "beams": 1,
    "no_repeat_ngram_size": 0,
    "batch_size": 3,
    "include_prompt": False,
    "max_items": None,
}


def test_prompts_keep_the_articles_first_tokens(tokenizer, texts):
    prompt = tokenizer(SETTINGS["prompt"])["input_ids"]
    article = tokenizer(texts[0])["input_ids"]
    assert summarization.build_prompts(tokenizer, [texts[0], "a"], SETTINGS, 64) == [
        article[:12] + prompt,
        tokenizer("a")["input_ids"] + prompt,
    ]
    longest = 12 + len(prompt) + 8
    summarization.build_prompts(tokenizer, [texts[0]], SETTINGS, longest)
    with pytest.raises(InputError, match=r"metrics\.summarization") as error:
        summarization.build_prompts(tokenizer, [texts[0]], SETTINGS, longest - 1)
    assert f"= {longest} tokens" in str(error.value) and "shorten article_tokens" in str(error.value)


def test_a_summary_is_the_continuation_alone(make_gpt2, always_says, tokenizer, texts):
    (token,) = tokenizer("x")["input_ids"]
    model = always_says(make_gpt2(), token)
    prompts = summarization.build_prompts(tokenizer, texts[:4], SETTINGS, 64)
    assert summarization.summarize(model, tokenizer, prompts, SETTINGS, "cpu") == ["xxxxxxxx"] * 4
    (newline,) = tokenizer("\n")["input_ids"]
    assert summarization.summarize(always_says(make_gpt2(), newline), tokenizer, prompts, SETTINGS, "cpu") == [""] * 4
    ended = always_says(make_gpt2(eos_token_id=tokenizer.eos_token_id), tokenizer.eos_token_id)
    assert summarization.summarize(ended, tokenizer, prompts, SETTINGS, "cpu") == [""] * 4


def test_summaries_do_not_depend_on_the_batch(make_gpt2, tokenizer, texts):
    model = make_gpt2(eos_token_id=tokenizer.eos_token_id)
    prompts = summarization.build_prompts(tokenizer, [texts[0], "a", texts[2], "bridge of the", "b"], SETTINGS, 64)
    expected = []
    for row in prompts:
        ids = torch.tensor([row])
        with torch.no_grad():
            for _ in range(SETTINGS["generated_tokens"]):
                ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
                if ids[0, -1] == tokenizer.eos_token_id:
                    break
        text = tokenizer.decode(ids[0, len(row) :], skip_special_tokens=True)
        expected.append(text.strip().split("\n")[0].strip())
    assert len(set(expected)) > 2
    for batch_size in (1, 2, 8):
        settings = {**SETTINGS, "batch_size": batch_size}
        assert summarization.summarize(model, tokenizer, prompts, settings, "cpu") == expected


def test_summarization_scores_each_articles_continuation(make_gpt2, always_says, tokenizer, texts, generator):
    (token,) = tokenizer("x")["input_ids"]
    model = always_says(make_gpt2(), token)
    test = {"id": ["1", "2"], "article": ["Big news. Small news.", texts[0]], "highlights": ["Big news.", "xxxxxxxx"]}
    values, items = summarization.measure(model, tokenizer, test, SETTINGS, STATISTICS, generator, "cpu")
    assert items["generated"].tolist() == ["xxxxxxxx", "xxxxxxxx"]
    assert items["rouge1"].tolist() == [0, 1]
    assert values["rouge1"].value == 0.5
    assert set(values) == {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    assert all(v.n == 2 and v.unit == "F1" and v.ci_low <= v.value <= v.ci_high for v in values.values())
