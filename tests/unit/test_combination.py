"""One variant's figures over its replicates."""

import math

import numpy as np
import pandas as pd
import pytest
from ffnfold.combination import combine
from ffnfold.errors import InputError
from ffnfold.hypothesis_tests import crossed_interval
from ffnfold.records import Value
from scipy import stats


def value(number, unit="perplexity", low=None, high=None, n=4, how="bootstrap"):
    low, high = (number if end is None else end for end in (low, high))
    return {"value": number, "unit": unit, "ci_low": low, "ci_high": high, "n": n, "ci_method": how}


def record(replicate, values, variant="merged_4"):
    return {"variant": variant, "replicate": replicate, "values": values}


SCORED = np.array([10, 20, 30, 40])
NATS = np.array([[12.0, 19, 35, 44], [11, 21, 33, 41], [13, 20, 36, 45]])
TOKENS, WORDS, BYTES = 101, 80, 400


def perplexity(nats, replicate):
    rate = nats.sum() / SCORED.sum()
    values = {
        "token_perplexity": value(math.exp(rate)),
        "word_perplexity": value(math.exp(rate * TOKENS / WORDS)),
        "bits_per_byte": value(rate * TOKENS / BYTES / math.log(2), "bits/byte"),
        "token_perplexity_before_recovery": value(math.exp(2 * rate)),
    }
    items = pd.DataFrame({"start_token": [0, 10, 30, 60], "scored_tokens": SCORED, "nats": nats})
    return record(replicate, values), items.assign(nats_before_recovery=2 * nats)


def test_one_replicate_keeps_its_own_figures():
    only, items = perplexity(NATS[0], 0)
    assert combine("perplexity", [only], [items]) == {name: Value(**v) for name, v in only["values"].items()}
    assert combine("perplexity", [only], [None]) == {name: Value(**v) for name, v in only["values"].items()}


def test_perplexity_is_the_geometric_mean_with_the_interval_of_its_rate():
    records, items = zip(*(perplexity(nats, r) for r, nats in enumerate(NATS)), strict=True)
    found = combine("perplexity", records, items)
    rate, low, high, _ = crossed_interval(NATS, SCORED, 0.95)
    # Rates 1.10, 1.06 and 1.14 nats a token: mean 1.10.
    assert rate == pytest.approx(1.1)
    token = found["token_perplexity"]
    geometric = math.prod(r["values"]["token_perplexity"]["value"] for r in records) ** (1 / 3)
    assert token.value == pytest.approx(geometric) and (token.n, token.unit) == (4, "perplexity")
    assert (token.ci_low, token.ci_high) == pytest.approx((math.exp(low), math.exp(high)))
    assert token.ci_method == "t interval over 3 replicates and 4 items (two-way random effects)"
    word, bits = found["word_perplexity"], found["bits_per_byte"]
    assert (word.ci_low, word.value) == pytest.approx((math.exp(low * 101 / 80), math.exp(1.1 * 101 / 80)))
    assert bits.ci_high == pytest.approx(high * 101 / 400 / math.log(2))
    assert found["token_perplexity_before_recovery"].value == pytest.approx(geometric**2)


def test_a_perplexity_that_was_cut_does_not_shrink_the_others():
    # 700 nats a word are the most that is written: the factor comes from the replicate that was not cut.
    records, items = zip(*(perplexity(f * NATS[0], r) for r, f in enumerate((1.0, 5.0))), strict=True)
    records[1]["values"]["word_perplexity"] = value(math.exp(4.0))
    found = combine("perplexity", records, items)["word_perplexity"]
    assert found.value == pytest.approx(math.exp(3 * 1.1 * 101 / 80))


def sentiment(correct, replicate):
    correct = np.array(correct, dtype=bool)
    items = pd.DataFrame({"id": [f"r{i}" for i in range(len(correct))], "correct": correct})
    return record(replicate, {"accuracy": value(100 * correct.mean(), "%", 0.0, 100.0, len(correct), "Wilson")}), items


def test_accuracy_is_the_mean_and_stays_below_100():
    records, items = zip(sentiment([1, 1, 1, 1], 0), sentiment([1, 1, 0, 1], 1), strict=True)
    found = combine("sentiment", records, items)["accuracy"]
    assert found.value == 87.5 and found.ci_high == 100.0 and 0 <= found.ci_low < 87.5
    expected = crossed_interval(100 * np.array([[1, 1, 1, 1], [1, 1, 0, 1]]), None, 0.95)
    assert found.ci_low == pytest.approx(max(0, expected.low))


def test_replicates_that_are_alike_keep_their_own_interval():
    # Every review is right in every replicate: the item-wise interval would have no width, Wilson's has one.
    records, items = zip(sentiment([1, 1, 1], 0), sentiment([1, 1, 1], 1), strict=True)
    found = combine("sentiment", records, items)["accuracy"]
    assert (found.ci_low, found.ci_high) == (0.0, 100.0)
    assert found.ci_method == "Wilson; the same in 2 replicates"


def test_equal_accuracies_on_other_reviews_are_no_equal_replicates():
    records, items = zip(sentiment([1, 0, 1], 0), sentiment([1, 1, 0], 1), strict=True)
    assert "two-way" in combine("sentiment", records, items)["accuracy"].ci_method


def test_rouge_is_the_mean_over_articles_and_replicates():
    scores = np.array([[0.1, 0.3, 0.2], [0.2, 0.3, 0.4]])
    records = [
        record(r, {"rougeL": value(s.mean(), "F1", n=3), "odd": value(1.0 + r, "x", n=3)}) for r, s in enumerate(scores)
    ]
    items = [pd.DataFrame({"id": ["a", "b", "c"], "rougeL": s}) for s in scores]
    found = combine("summarization", records, items)
    expected = crossed_interval(scores, None, 0.95)
    assert found["rougeL"].value == pytest.approx(0.25)
    assert (found["rougeL"].ci_low, found["rougeL"].ci_high) == pytest.approx(
        (max(0, expected.low), min(1, expected.high))
    )
    assert found["odd"].ci_method == "t interval over 2 replicates"  # no such column among the items


def test_latency_is_students_interval_of_the_replicates():
    medians = [20.0, 22.0, 21.0]
    records = [record(r, {"latency_ms_median": value(m, "ms", n=50)}) for r, m in enumerate(medians)]
    frames = [pd.DataFrame({"baseline_ms": [1.0], "variant_ms": [m]}) for m in medians]
    found = combine("latency", records, frames)["latency_ms_median"]
    expected = stats.t.interval(0.95, 2, 21.0, 1 / math.sqrt(3))
    assert (found.ci_low, found.value, found.ci_high) == pytest.approx((expected[0], 21.0, expected[1]))
    assert (found.n, found.ci_method) == (50, "t interval over 3 replicates")
    # 9 -+ 12.7 x 3: times are not negative.
    wide = [record(r, {"latency_ms_median": value(m, "ms", n=50)}) for r, m in enumerate([6.0, 12.0])]
    assert combine("latency", wide, [None, None])["latency_ms_median"].ci_low == 0


def test_counts_stay_exact_and_those_that_differ_say_so():
    records = [
        record(
            r, {"stored_parameters": value(100, "parameters", n=7, how="exact"), "nonzero_parameters": value(90 + r)}
        )
        for r in range(3)
    ]
    found = combine("parameters", records, [None] * 3)
    stored, nonzero = found["stored_parameters"], found["nonzero_parameters"]
    assert (stored.value, stored.ci_low, stored.ci_high) == (100, 100, 100)
    assert stored.ci_method == "exact; the same in 3 replicates"
    assert (nonzero.value, nonzero.ci_low, nonzero.ci_high) == (91, 90, 92)
    assert "not equal in 3 replicates" in nonzero.ci_method


@pytest.mark.parametrize(
    "change", [lambda f: f.iloc[::-1], lambda f: f.iloc[:-1], lambda f: f.assign(start_token=f["start_token"] + 1)]
)
def test_other_items_are_refused(change):
    records, items = zip(*(perplexity(nats, r) for r, nats in enumerate(NATS[:2])), strict=True)
    with pytest.raises(InputError, match="other items") as error:
        combine("perplexity", records, [items[0], change(items[1])])
    assert "perplexity of merged_4" in str(error.value)


def test_replicates_that_hold_other_figures_are_refused():
    records, items = map(list, zip(*(perplexity(nats, r) for r, nats in enumerate(NATS[:2])), strict=True))
    with pytest.raises(InputError, match="do not hold the same figures"):
        combine("perplexity", records, [items[0], None])
    del records[1]["values"]["bits_per_byte"]
    with pytest.raises(InputError, match="merged_4, replicate 1"):
        combine("perplexity", records, items)
    with pytest.raises(InputError, match="0 records"):
        combine("perplexity", [], [])
