import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from ffnfold.floors import FLOORS, bandwidth, measure_floor, reviews, summaries
from ffnfold.metrics import latency, sentiment, summarization

STATISTICS = {"confidence": 0.95, "resamples": 100}
PERPLEXITY = {
    "window": 16,
    "stride": 8,
    "batch_size": 2,
    "truncate_tokens": None,
    "score_padding": False,
    "pad_to": "longest",
    "max_items": None,
}
SENTIMENT = {
    "max_length": 32,
    "training": {"steps": 100, "batch_size": 8},
    "max_items": None,
    "max_training_items": None,
}
SUMMARIES = {"article_tokens": 12, "generated_tokens": 8, "max_items": None}


@pytest.fixture
def films():
    """64 reviews whose words give the label away, positive and negative in turn."""
    labels = [i % 2 for i in range(64)]
    return {
        "id": [str(i) for i in range(64)],
        "text": [f"take {i}: a {'good' if y else 'bad'} film" for i, y in enumerate(labels)],
        "label": labels,
    }


@pytest.fixture
def articles(texts):
    """Articles of zero, one, two and five sentences, and one long one."""
    written = ["", "One only.", "First one. Second one.", "A b. C d. E f. G h. I j.", " ".join(texts[:6])]
    return {"id": list("abcde"), "article": written, "highlights": [*written[1:], "A quiet baker."]}


# --------------------------------------------------------------------------------------------------- the table


def test_listing_the_floors_imports_nothing_heavy():
    heavy = {"numpy", "pandas", "torch", "sklearn", "transformers", "evaluate"}
    code = f"import sys; from ffnfold.floors import FLOORS; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_floors_are_named_by_metric():
    metrics = {name: floor.metric for name, floor in FLOORS.items()}
    assert metrics == {
        "unigram": "perplexity",
        "trigram": "perplexity",
        "majority": "sentiment",
        "tfidf": "sentiment",
        "prompt": "summarization",
        "prompt_noise": "summarization",
        "lead3": "summarization",
        "random3": "summarization",
    }
    assert len({floor.title for floor in FLOORS.values()}) == len(FLOORS)


@pytest.mark.parametrize("name", FLOORS)
def test_the_same_seed_gives_the_same_bytes(name, tokenizer, texts, films, articles):
    columns = {"perplexity": {"text": texts}, "sentiment": films, "summarization": articles}
    settings = {"perplexity": PERPLEXITY, "sentiment": SENTIMENT, "summarization": SUMMARIES}
    metric = FLOORS[name].metric
    rows = pd.DataFrame(columns[metric])  # as scripts read them
    runs = [
        measure_floor(
            name,
            tokenizer,
            rows if FLOORS[name].trains else None,
            rows,
            "\n" if metric == "perplexity" else None,
            settings[metric],
            STATISTICS,
            np.random.default_rng(seed),
        )
        for seed in (7, 7)
    ]
    assert runs[0][0] == runs[1][0] and runs[0][1].equals(runs[1][1])
    assert all(v.ci_low <= v.value <= v.ci_high for v in runs[0][0].values())


# --------------------------------------------------------------------------------------------------- reviews


def test_the_majority_by_hand(tokenizer, films, generator):
    train = {"id": list("abc"), "text": ["x", "y", "z"], "label": [1, 0, 1]}
    values, items = measure_floor("majority", tokenizer, train, films, None, SENTIMENT, STATISTICS, generator)
    assert items["predicted"].tolist() == [1] * 64 and items["correct"].tolist() == [False, True] * 32
    assert (values["accuracy"].value, values["accuracy"].unit, values["accuracy"].n) == (50.0, "%", 64)
    assert reviews.majority(np.array([1, 0])) == 0, "the smaller label where two are equally frequent"


def test_the_classifier_finds_the_words_that_matter(tokenizer, films, generator):
    test = {"id": ["p", "q"], "text": ["a bad thing", "what a good thing"], "label": [0, 0]}
    values, items = measure_floor("tfidf", tokenizer, films, test, None, SENTIMENT, STATISTICS, generator)
    assert items["predicted"].tolist() == [0, 1] and items["correct"].tolist() == [True, False]
    assert values["accuracy"] == sentiment.figures(np.array([True, False]), 0.95)["accuracy"]


def test_the_classifier_finds_pairs_of_words():
    # Each word stands in as many reviews of either class; only the pairs tell.
    positive, negative = (
        ["not bad was dull good", "dull good not bad was"],
        ["not good was dull bad", "dull bad not good was"],
    )
    train, labels = [*positive, *negative] * 5, np.array([1, 1, 0, 0] * 5)
    assert reviews.predict_tfidf(train, labels, ["not bad", "not good"]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("rows", "steps", "limit", "expected"), [(50, 4, None, 32), (50, 10, None, 50), (50, 10, 7, 7), (50, 2, 20, 16)]
)
def test_as_many_reviews_are_read_as_the_fine_tuning_reads(rows, steps, limit, expected):
    settings = {"training": {"steps": steps, "batch_size": 8}, "max_training_items": limit}
    assert reviews.training_size(rows, settings) == expected


def test_reviews_beyond_the_fine_tuning_and_beyond_max_items_do_not_matter(tokenizer, films, generator):
    settings = {**SENTIMENT, "training": {"steps": 2, "batch_size": 8}, "max_items": 5}
    spoilt = {**films, "label": [*films["label"][:16], *(1 - y for y in films["label"][16:])]}
    for name in ("majority", "tfidf"):
        whole = measure_floor(name, tokenizer, films, films, None, settings, STATISTICS, generator)[1]
        other = measure_floor(name, tokenizer, spoilt, films, None, settings, STATISTICS, generator)[1]
        assert whole.equals(other) and whole["id"].tolist() == films["id"][:5]
        assert list(whole.columns) == ["id", "label", "predicted", "correct"]


def test_reviews_are_cut_as_the_models_see_them(tokenizer, films, generator):
    rows = sentiment.encode_reviews(tokenizer, [*films["text"], ""], 4)
    cut = reviews.read_texts(tokenizer, [*films["text"], ""], 4)
    assert cut == [tokenizer.decode(row) for row in rows[:-1]] + [""], "end-of-text stands for an empty review"
    # The telling word lies behind the cut: 4 tokens hold no more than "take i".
    assert not any("good" in text or "bad" in text for text in cut)
    items = measure_floor(
        "tfidf", tokenizer, films, films, None, {**SENTIMENT, "max_length": 4}, STATISTICS, generator
    )[1]
    assert items["correct"].mean() < 1


@pytest.mark.parametrize("train", [["a good film", "a good view"], ["", ""]])
def test_one_class_or_no_words_give_the_majority(train):
    labels = np.array([1, 1]) if train[0] else np.array([1, 0])
    assert reviews.predict_tfidf(train, labels, ["a bad film", ""]).tolist() == [int(labels.min())] * 2


def test_words_that_stand_in_one_review_count_where_there_are_no_others():
    predicted = reviews.predict_tfidf(["lovely", "awful"], np.array([1, 0]), ["awful", "lovely"])
    assert predicted.tolist() == [0, 1] and predicted.dtype == np.int64


# --------------------------------------------------------------------------------------------------- summaries


def test_the_prompt_is_the_articles_first_tokens(tokenizer, articles, generator):
    found = summaries.prompt_texts(tokenizer, articles["article"], SUMMARIES, generator)
    ids = tokenizer(articles["article"][4])["input_ids"]
    assert len(ids) > 12 and found[4] == tokenizer.decode(ids[:12]).strip()
    assert found[:2] == ["", "One only."]


def test_noise_follows_the_prompt_and_is_drawn_from_the_whole_vocabulary(tokenizer, articles):
    settings = {**SUMMARIES, "generated_tokens": 2000}
    seen = []

    class Listening:
        """The tokenizer, noting what is decoded."""

        all_special_ids = tokenizer.all_special_ids

        def __len__(self):
            return len(tokenizer)

        def __call__(self, *args, **options):
            return tokenizer(*args, **options)

        def decode(self, row, **options):
            seen.append(list(row))
            return tokenizer.decode(row, **options)

    found = summaries.prompt_noise_texts(Listening(), articles["article"], settings, np.random.default_rng(1))
    plain = summaries.prompt_texts(tokenizer, articles["article"], settings, None)
    begun = tokenizer(articles["article"], truncation=True, max_length=12)["input_ids"]
    noise = np.array([row[len(start) :] for row, start in zip(seen, begun, strict=True)])
    assert [row[: len(start)] for row, start in zip(seen, begun, strict=True)] == begun
    assert noise.shape == (5, 2000) and set(np.unique(noise)) == set(range(300)) - set(tokenizer.all_special_ids)
    assert all(text.startswith(start.strip()) for text, start in zip(found, plain, strict=True))
    other = summaries.prompt_noise_texts(tokenizer, articles["article"], settings, np.random.default_rng(2))
    assert found != other, "another generator, another noise"


def test_three_random_sentences_keep_their_order(tokenizer, articles):
    drawn = set()
    for seed in range(200):
        texts = summaries.random3_texts(tokenizer, articles["article"], SUMMARIES, np.random.default_rng(seed))
        assert texts[:3] == ["", "One only.", "First one.\nSecond one."]
        lines = texts[3].split("\n")
        assert len(set(lines)) == 3 and lines == sorted(lines)
        drawn.add(texts[3])
    assert len(drawn) == 10, "each of the ten choices of three out of five"


def test_the_first_three_sentences_are_the_metrics_own_lead(tokenizer, articles, generator):
    found = summaries.lead3_texts(tokenizer, articles["article"], SUMMARIES, generator)
    assert found == [summarization.lead(a) for a in articles["article"]]
    assert found[3] == "A b.\nC d.\nE f."


@pytest.mark.parametrize("name", summaries.WRITERS)
def test_summaries_are_scored_as_those_of_the_models(name, tokenizer, articles, generator):
    settings = {**SUMMARIES, "max_items": 4}
    values, items = measure_floor(name, tokenizer, None, articles, None, settings, STATISTICS, generator)
    assert list(items.columns) == ["id", "generated", "rouge1", "rouge2", "rougeL", "rougeLsum"]
    assert items["id"].tolist() == list("abcd")
    scores = summarization.rouge_scores(items["generated"].tolist(), articles["highlights"][:4])
    for rouge, column in scores.items():
        assert items[rouge].tolist() == column
        assert values[rouge].value == pytest.approx(np.mean(column)) and values[rouge].n == 4
    assert set(values) == set(scores) and all(v.unit == "F1" for v in values.values())


# --------------------------------------------------------------------------------------------------- bandwidth


def test_a_bound_by_hand():
    value = bandwidth.bound(np.array([0.003, 0.001, 0.002]), 10)
    assert (value.value, value.ci_low, value.ci_high) == pytest.approx((10, 10, 20))
    assert (value.unit, value.n) == ("ms", 3) and "fastest to median" in value.ci_method


def test_every_weight_is_read_but_the_position_table(make_gpt2):
    model = make_gpt2()
    stored = sum(p.numel() for p in model.parameters())
    assert bandwidth.read_bytes(model) == 4 * (stored - 64 * 16)
    untied = make_gpt2(tie_word_embeddings=False)
    assert bandwidth.read_bytes(untied) == bandwidth.read_bytes(model), "the head is read, the token table looked up"
    assert bandwidth.read_bytes(model.half()) == 2 * (stored - 64 * 16)


def test_the_kernels_read_the_whole_buffer(monkeypatch):
    sizes = []
    monkeypatch.setattr(torch, "mv", lambda matrix, vector: sizes.append(matrix.numel()))
    monkeypatch.setattr(torch, "dot", lambda left, right: sizes.append(left.numel() + right.numel()))
    for size_bytes, expected in ((4 * 10240, 10240), (4 * 10241, 10240), (4 * 10, 10), (8, 2)):
        sizes.clear()
        bandwidth.read_seconds(size_bytes, "cpu", 1, 3)
        assert set(sizes) == {expected} and len(sizes) == 2 * (3 + bandwidth.WARMUP)


def test_the_faster_kernel_is_taken(monkeypatch):
    clock = SimpleNamespace(now=0.0)

    def taking(durations):
        durations = iter(durations)

        def kernel(*operands):
            clock.now += next(durations)

        return kernel

    monkeypatch.setattr(bandwidth.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(torch, "mv", taking([9, 9, 4, 5, 6]))
    monkeypatch.setattr(torch, "dot", taking([9, 9, 8, 3, 7]))
    assert bandwidth.read_seconds(64, "cpu", 1, 3).tolist() == [8, 3, 7]


def test_a_larger_buffer_takes_longer_and_the_threads_are_put_back():
    before = torch.get_num_threads()
    small, large = (bandwidth.read_seconds(size, "cpu", before + 1, 5).min() for size in (1 << 20, 1 << 26))
    assert 0 < small < large and torch.get_num_threads() == before


@pytest.mark.parametrize(("size_bytes", "repeats"), [(7, 5), (64, 0)])
def test_nothing_to_read_is_refused(size_bytes, repeats):
    with pytest.raises(ValueError, match=f"got {size_bytes} bytes and {repeats} repeats"):
        bandwidth.read_seconds(size_bytes, "cpu", 1, repeats)


def test_a_generation_takes_longer_than_the_bound(make_gpt2):
    model = make_gpt2(n_embd=256, n_head=4)
    seconds = bandwidth.read_seconds(bandwidth.read_bytes(model), "cpu", 1, 10)
    settings = {"warmup": 1, "repeats": 5, "generated_tokens": 6, "stop_at_end_of_text": False}
    prompts = torch.ones(1, 4, dtype=torch.int64)
    items = latency.time_pairs(model, model, prompts, settings, "cpu")
    assert bandwidth.bound(seconds, 6).value < items["variant_ms"].min()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_reading_on_a_gpu():
    small, large = (bandwidth.read_seconds(size, "cuda", 1, 5).min() for size in (1 << 24, 1 << 30))
    assert 0 < small < large
