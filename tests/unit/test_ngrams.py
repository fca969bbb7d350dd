import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from ffnfold.errors import InputError
from ffnfold.floors import measure_floor, ngrams
from ffnfold.metrics import perplexity
from hypothesis import given, settings
from hypothesis import strategies as st

STATISTICS = {"confidence": 0.95, "resamples": 100}
WINDOWS = {
    "window": 16,
    "stride": 8,
    "batch_size": 2,
    "truncate_tokens": None,
    "score_padding": False,
    "pad_to": "longest",
    "max_items": None,
}
ROWS = {**WINDOWS, "truncate_tokens": 9}
PADDED = {**WINDOWS, "score_padding": True, "truncate_tokens": 40}
FULL = {**PADDED, "pad_to": "full", "max_items": 3}


class SlowTrigram:
    """Interpolated Kneser-Ney written from its definition, with dictionaries and no thought for speed."""

    def __init__(self, ids, vocabulary_size):
        ids, self.size = [int(i) for i in ids], vocabulary_size
        trigrams = Counter(zip(ids, ids[1:], ids[2:], strict=False))
        bigrams = Counter((v, w) for _, v, w in trigrams)  # each distinct u v w counts once for v w
        unigrams = Counter((w,) for _, w in set(itertools.pairwise(ids)))
        self.orders = [self.order(counts) for counts in (unigrams, bigrams, trigrams)]

    @staticmethod
    def order(counts):
        frequency = Counter(counts.values())
        cut = frequency[1] / (frequency[1] + 2 * frequency[2]) if frequency[1] and frequency[2] else 0.5
        totals, types = defaultdict(int), defaultdict(int)
        for ngram, count in counts.items():
            totals[ngram[:-1]] += count
            types[ngram[:-1]] += 1
        return counts, cut, totals, types

    def p(self, word, context):
        lower = self.p(word, context[1:]) if context else 1 / self.size
        counts, cut, totals, types = self.orders[len(context)]
        if context not in totals:
            return lower
        share = max(counts[(*context, word)] - cut, 0) / totals[context]
        return share + cut * types[context] / totals[context] * lower

    def nats(self, ids, context=2):
        ids = [int(i) for i in ids]
        return [-math.log(self.p(ids[i], tuple(ids[max(0, i - context) : i]))) for i in range(len(ids))]


def corpus(seed, tokens=400, vocabulary_size=12):
    # Skewed, so that there are frequent and rare n-grams.
    generator = np.random.default_rng(seed)
    return np.minimum(generator.geometric(0.3, tokens) - 1, vocabulary_size - 1).astype(np.int64)


def test_unigrams_by_hand():
    # 0 0 1 of a vocabulary of 4: (2 + 1) / 7, (1 + 1) / 7, 1 / 7, 1 / 7.
    model = ngrams.fit_unigram(np.array([0, 0, 1]), 4)
    assert np.exp(-model.nats(np.array([0, 1, 2, 3]))) == pytest.approx([3 / 7, 2 / 7, 1 / 7, 1 / 7])


def test_a_trigram_model_by_hand():
    # Text: 0 1 0 1 2 0 1 2, vocabulary of 4.
    model = ngrams.fit_trigram(np.array([0, 1, 0, 1, 2, 0, 1, 2]), 4)
    # Bigrams: 01, 10, 12, 20. Before 0 stand 1 and 2; before 1: 0; before 2: 1. So counts 2, 1, 1, 0: n1 = 2, n2 = 1,
    # D = 2 / 4, freed 3 x 0.5 / 4 = 0.375, a fourth of it for each token.
    assert ngrams.discount(np.array([2, 1, 1, 0])) == 0.5
    one = [1.5 / 4 + 0.09375, 0.5 / 4 + 0.09375, 0.5 / 4 + 0.09375, 0.09375]
    assert model.unigrams == pytest.approx(one)
    # Trigrams: 010 1, 101 1, 012 2, 120 1, 201 1. Counts of bigrams: 10 after 0; 01 after 1 and 2; 12 after 0; 20 after
    # 1. So 1, 2, 1, 1: n1 = 3, n2 = 1, D = 3 / 5. After 1: total 2 (10, 12), 2 types, freed 1.2 / 2.
    p = np.exp(-model.nats(np.array([1, 2])))
    assert p[0] == pytest.approx(one[1]) and p[1] == pytest.approx(0.4 / 2 + 0.6 * one[2])
    # Trigram counts 1, 1, 2, 1, 1: n1 = 4, n2 = 1, D = 4 / 6. After 01: 0 once, 2 twice; freed (4 / 3) / 3 = 4 / 9.
    p = np.exp(-model.nats(np.array([0, 1, 2])))
    assert p[2] == pytest.approx((2 - 2 / 3) / 3 + 4 / 9 * (0.2 + 0.6 * one[2]))
    # 3 was never seen: after 01 it has what each order frees; 33 and 3 are no contexts, so the lowest order decides.
    assert np.exp(-model.nats(np.array([0, 1, 3])))[2] == pytest.approx(4 / 9 * 0.6 * one[3])
    assert np.exp(-model.nats(np.array([3, 3, 3]))) == pytest.approx([one[3]] * 3)


@pytest.mark.parametrize(
    ("counts", "expected"), [([1, 1, 2], 0.5), ([1, 2, 2, 5], 0.2), ([1, 1, 1], 0.5), ([2, 2], 0.5), ([7], 0.5)]
)
def test_discounts_by_hand(counts, expected):
    assert ngrams.discount(np.array(counts)) == pytest.approx(expected)


@pytest.mark.parametrize(("seed", "tokens", "size"), [(0, 400, 12), (1, 40, 12), (2, 3, 5), (3, 2000, 40)])
def test_agrees_with_a_slow_model_of_dictionaries(seed, tokens, size):
    ids, held_out = corpus(seed, tokens, size), np.random.default_rng(seed).integers(0, size, 300)
    model, slow = ngrams.fit_trigram(ids, size), SlowTrigram(ids, size)
    for text in (ids, held_out):
        for context in (0, 1, 2):
            assert model.nats(text, context) == pytest.approx(slow.nats(text, context), rel=1e-12)
        assert (model.nats(text) == model.nats(text, 2)).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=3, max_size=60), st.lists(st.integers(0, 6), max_size=2))
def test_probabilities_sum_to_one_after_any_context(text, context):
    for fit in ngrams.FITS.values():
        model = fit(np.array(text), 7)
        last = np.array([model.nats(np.array([*context, word]))[-1] for word in range(7)])
        assert np.isfinite(last).all()
        assert math.fsum(np.exp(-last)) == pytest.approx(1, abs=1e-12)


def test_a_large_vocabulary_has_no_colliding_keys():
    size = ngrams.LARGEST_VOCABULARY
    ids = np.array([size - 1, size - 2, size - 1, 0, size - 1, size - 2, size - 1, 1])
    assert ngrams.fit_trigram(ids, size).nats(ids) == pytest.approx(SlowTrigram(ids, size).nats(ids))


def test_tokens_before_the_context_do_not_matter():
    model = ngrams.fit_trigram(corpus(0), 12)
    text = corpus(5, 50)
    changed = text.copy()
    changed[:20] = 11
    assert (model.nats(text)[22:] == model.nats(changed)[22:]).all()


@pytest.mark.parametrize(
    ("ids", "size", "message"),
    [
        ([0, 1], 5, "needs 3 tokens, got 2"),
        ([0, 1, 5], 5, "ids 0 to 5, expected 0 to 4"),
        ([0, -1, 1], 5, "ids -1 to 1"),
        ([0, 1, 2], 2_097_152, "vocabulary of 2097152"),
    ],
)
def test_impossible_fits_are_refused(ids, size, message):
    for fit in ngrams.FITS.values():
        with pytest.raises(ValueError, match=message):
            fit(np.array(ids), size)


@pytest.mark.parametrize("changes", [WINDOWS, {**WINDOWS, "stride": 16}, {**WINDOWS, "stride": 1}, ROWS, PADDED, FULL])
@pytest.mark.parametrize("name", ngrams.FITS)
def test_windows_and_scored_tokens_are_those_of_the_models(changes, name, tokenizer, texts, generator):
    train, test = {"text": [f"{t} And so on." for t in texts]}, {"text": ["", *texts, " "]}
    values, items = measure_floor(name, tokenizer, train, test, "\n", changes, STATISTICS, generator)
    planned = perplexity.plan(tokenizer, test["text"], "\n", changes)
    assert items["start_token"].tolist() == [w[0] for w in planned.windows]
    assert items["scored_tokens"].tolist() == [w[2] for w in planned.windows]
    assert list(items.columns) == ["start_token", "scored_tokens", "nats"]
    # Window by window, from the window's own tokens alone.
    model = ngrams.FITS[name](ngrams.training_ids(tokenizer, train["text"], "\n", changes), len(tokenizer))
    expected = [model.nats(planned.ids[start:end])[-scored:].sum() for start, end, scored in planned.windows]
    assert items["nats"].to_numpy() == pytest.approx(np.array(expected), rel=1e-12)
    rate = items["nats"].sum() / items["scored_tokens"].sum()
    assert values["token_perplexity"].value == pytest.approx(math.exp(rate))
    assert set(values) == {"token_perplexity", "word_perplexity", "bits_per_byte"}


def test_the_training_text_is_cut_and_padded_as_the_scored_text(tokenizer, texts):
    whole = tokenizer("\n".join(texts) + "\n")["input_ids"]
    assert ngrams.training_ids(tokenizer, texts, "\n", WINDOWS).tolist() == whole
    rows = tokenizer(texts, truncation=True, max_length=9)["input_ids"]
    assert ngrams.training_ids(tokenizer, texts, "\n", ROWS).tolist() == [i for row in rows for i in row]
    padded = ngrams.training_ids(tokenizer, texts, "\n", {**FULL, "truncate_tokens": 60})
    assert len(padded) == 60 * len(texts), "all training rows count, whatever the number of scored ones"
    assert (padded == tokenizer.eos_token_id).sum() == 60 * len(texts) - sum(
        len(row) for row in tokenizer(texts, truncation=True, max_length=60)["input_ids"]
    )


def test_scored_pads_are_almost_free(tokenizer, texts, generator):
    # The artefact in its smallest form: no model, and padding alone brings the perplexity down.
    test = {"text": texts[:4]}
    settings = {**FULL, "truncate_tokens": 200, "max_items": None}
    padded = measure_floor("trigram", tokenizer, {"text": texts}, test, "\n", settings, STATISTICS, generator)[0]
    cut = {**settings, "score_padding": False}
    plain = measure_floor("trigram", tokenizer, {"text": texts}, test, "\n", cut, STATISTICS, generator)[0]
    assert padded["token_perplexity"].value < plain["token_perplexity"].value


def test_a_trigram_beats_frequencies_and_frequencies_the_vocabulary(tokenizer, texts):
    train, test = {"text": texts[:12]}, {"text": texts[12:]}
    found = [
        measure_floor(name, tokenizer, train, test, "\n", WINDOWS, STATISTICS, np.random.default_rng(0))[0]
        for name in ("trigram", "unigram")
    ]
    trigram, unigram = (f["token_perplexity"].value for f in found)
    assert trigram < unigram < len(tokenizer)


@pytest.mark.parametrize("settings", [WINDOWS, PADDED])
def test_training_rows_without_text_are_an_error(tokenizer, texts, generator, settings):
    with pytest.raises(InputError, match=r"training text is too short"):
        measure_floor("trigram", tokenizer, {"text": []}, {"text": texts}, "\n", settings, STATISTICS, generator)
