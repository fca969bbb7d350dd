"""Variants against the baseline and the floors, on shared items."""

import math

import numpy as np
import pandas as pd
import pytest
from ffnfold.comparisons import (
    COLUMNS,
    HEADLINES,
    LEAST_RESAMPLES,
    NOT_COMPARED,
    Side,
    best_floor,
    compare,
    comparison_table,
    read_comparisons,
    scale_of,
    write_comparisons,
)
from ffnfold.errors import InputError
from ffnfold.hypothesis_tests import (
    accuracy_difference,
    crossed_interval,
    holm,
    mcnemar,
    nested_interval,
    paired_rate_difference,
)

STATISTICS = {"confidence": 0.95, "resamples": 500}
SCORED = np.array([10, 20, 30, 40, 25, 15])


def generator():
    return np.random.default_rng(7)


def record(values, replicate=0, fingerprint="f", **protocol):
    return {
        "variant": "x",
        "replicate": replicate,
        "values": {name: {"value": number, "n": 6} for name, number in values.items()},
        "data": {"fingerprint": fingerprint},
        "protocol": {"split": "test", "batch_size": 8, **protocol},
    }


def perplexity(name, nats, role="variant", start=0, **more):
    """A side; `nats` (replicates, windows)."""
    nats = np.atleast_2d(nats)
    records = [record(figures(row), r, **more) for r, row in enumerate(nats)]
    starts = start + np.arange(nats.shape[1])
    items = [pd.DataFrame({"start_token": starts, "scored_tokens": SCORED, "nats": row}) for row in nats]
    return Side(name, records, items, role)


def figures(nats):
    rate = nats.sum() / SCORED.sum()
    return {"token_perplexity": math.exp(rate), "word_perplexity": math.exp(1.5 * rate), "bits_per_byte": 0.4 * rate}


def scores(name, rows, column, value_name, role="variant", ids="abcdefghijklmnopqrstuvwxyz"):
    rows = np.atleast_2d(rows)
    items = [pd.DataFrame({"id": list(ids[: rows.shape[1]]), column: row}) for row in rows]
    scale = 100 if value_name == "accuracy" else 1
    return Side(name, [record({value_name: scale * row.mean()}, r) for r, row in enumerate(rows)], items, role)


def latency(name, pairs, role="variant"):
    """A side; `pairs` a list over replicates of (baseline ms, variant ms)."""
    items = [pd.DataFrame({"baseline_ms": b, "variant_ms": v}) for b, v in pairs]
    records = [record({"latency_ms_median": float(np.median(v))}, r) for r, (_, v) in enumerate(pairs)]
    return Side(name, records, items, role)


BASE = 3.0 * SCORED + np.array([1.0, -2, 3, -1, 0, -1])


def test_perplexity_is_the_ratio_over_the_same_windows():
    other = BASE + 0.1 * SCORED + np.array([0.2, -0.1, 0.3, -0.4, 0.1, -0.1])
    found = compare(
        "perplexity", "token_perplexity", perplexity("v", other), perplexity("g", BASE), STATISTICS, generator()
    )
    expected = paired_rate_difference(other, BASE, SCORED, 0.95, LEAST_RESAMPLES, generator())
    assert found.estimate == pytest.approx(math.exp(0.1))  # the differences beside 0.1 a token sum to 0
    assert (found.ci_low, found.ci_high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))
    assert found.p_value == expected.p_value
    assert (found.scale, found.unit, found.n, found.replicates) == ("ratio", "x", 6, 1)
    assert found.test == "paired t test over 6 windows"


def test_eight_items_are_resampled():
    rows = np.linspace(0.1, 0.4, 8)
    sides = scores("v", rows, "rougeL", "rougeL"), scores("g", rows[::-1], "rougeL", "rougeL")
    found = compare("summarization", "rougeL", *sides, STATISTICS, generator())
    assert found.test == "paired bootstrap over 8 articles, 10000 resamples"


def test_word_perplexity_and_bits_follow_from_the_rate():
    sides = perplexity("v", BASE + 0.1 * SCORED), perplexity("g", BASE)
    word = compare("perplexity", "word_perplexity", *sides, STATISTICS, generator())
    bits = compare("perplexity", "bits_per_byte", *sides, STATISTICS, generator())
    assert word.estimate == pytest.approx(math.exp(1.5 * 0.1))
    assert bits.estimate == pytest.approx(0.4 * 0.1) and (bits.scale, bits.unit) == ("difference", "bits/byte")


def test_perplexity_over_replicates_is_crossed():
    base = np.stack([BASE, BASE + 1, BASE - 2])
    other = base + 0.1 * SCORED + np.random.default_rng(1).normal(size=base.shape)
    found = compare(
        "perplexity", "token_perplexity", perplexity("v", other), perplexity("g", base), STATISTICS, generator()
    )
    expected = crossed_interval(other - base, SCORED, 0.95)
    assert (found.ci_low, found.ci_high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))
    assert (found.p_value, found.replicates) == (expected.p_value, 3)
    assert found.test == "t test over 3 replicates and 6 windows (two-way random effects)"


def test_accuracy_is_tested_by_mcnemar():
    first, second = np.array([1, 1, 1, 1, 0, 1, 1, 0]), np.array([1, 0, 0, 1, 1, 1, 0, 0])
    found = compare(
        "sentiment",
        "accuracy",
        scores("v", first, "correct", "accuracy"),
        scores("g", second, "correct", "accuracy"),
        STATISTICS,
        generator(),
    )
    # 6 of 8 and 4 of 8: 25 points. Alone right: 3 to 1.
    assert found.estimate == 25.0 and (found.scale, found.unit) == ("difference", "points")
    assert found.p_value == mcnemar(first == 1, second == 1)[2] == pytest.approx(2 * (1 + 4) / 16)
    assert found.test == "exact McNemar, 3 reviews to 1; interval of the two shares"
    expected = accuracy_difference(3, 1, 8, 0.95)
    assert (found.ci_low, found.ci_high) == (expected.low, expected.high)
    # p = 0.625, so the interval holds 0.
    assert found.ci_low <= 0 <= 25 <= found.ci_high


def test_rouge_is_the_difference_over_articles():
    first, second = np.array([0.2, 0.4, 0.3, 0.5]), np.array([0.1, 0.3, 0.3, 0.2])
    sides = scores("v", first, "rougeL", "rougeL"), scores("g", second, "rougeL", "rougeL")
    found = compare("summarization", "rougeL", *sides, STATISTICS, generator())
    assert found.estimate == pytest.approx(0.125) and (found.unit, found.n) == ("F1", 4)
    back = compare("summarization", "rougeL", *sides[::-1], STATISTICS, generator())
    assert (back.estimate, back.ci_low) == pytest.approx((-found.estimate, -found.ci_high))


def test_a_floors_one_record_goes_with_every_replicate():
    rows = np.array([[0.2, 0.4, 0.3], [0.3, 0.5, 0.5]])
    floor = scores("lead3", [0.2, 0.2, 0.2], "rougeL", "rougeL", role="floor")
    found = compare("summarization", "rougeL", scores("v", rows, "rougeL", "rougeL"), floor, STATISTICS, generator())
    assert found.replicates == 2
    assert (found.ci_low, found.ci_high) == pytest.approx(crossed_interval(rows - 0.2, None, 0.95)[1:3])


def test_replicates_are_matched_by_number():
    rows = np.array([[0.2, 0.4, 0.3], [0.3, 0.5, 0.5]])
    variant, reference = scores("v", rows, "rougeL", "rougeL"), scores("g", rows - 0.1, "rougeL", "rougeL")
    one = Side("g", reference.records[1:], reference.items[1:])
    found = compare("summarization", "rougeL", variant, one, STATISTICS, generator())
    assert found.replicates == 1 and found.estimate == pytest.approx(0.1)
    none = Side("g", [{**reference.records[0], "replicate": 5}], reference.items[:1])
    assert compare("summarization", "rougeL", variant, none, STATISTICS, generator()) is None


def test_latency_is_paired_with_the_baseline_of_its_own_frame():
    slow = np.array([1.0, 5.0, 1.0, 2.0, 1.5])
    variant = latency("v", [(10 * slow, 4 * slow)])
    baseline = latency("g", [(99 * slow, 99 * slow)], "baseline")
    found = compare("latency", "latency_ms_median", variant, baseline, STATISTICS, generator())
    assert (found.estimate, found.ci_low, found.ci_high) == pytest.approx((0.4, 0.4, 0.4))
    assert found.p_value == pytest.approx(2 / 2**5)  # all five pairs one way
    assert found.test == "sign test, 5 pairs to 0; interval by paired bootstrap, 10000 resamples"
    back = compare("latency", "latency_ms_median", baseline, variant, STATISTICS, generator())
    assert back.estimate == pytest.approx(2.5)


def test_latency_between_two_variants_is_the_ratio_of_medians():
    first, second = latency("v", [([1.0] * 3, [2.0, 3, 9])]), latency("w", [([1.0] * 3, [4.0, 6, 5])])
    found = compare("latency", "latency_ms_median", first, second, STATISTICS, generator())
    assert found.estimate == pytest.approx(3 / 5) and found.ci_low < 0.6 < found.ci_high
    assert found.test.startswith("unpaired bootstrap over 3 timings each")


@pytest.mark.parametrize("change", [{"protocol": {"generated_tokens": 5}}, {"data": {"fingerprint": "another"}}])
def test_latencies_of_two_variants_need_one_protocol(change):
    first, second = (latency(name, [([1.0] * 3, [2.0, 3, 9])]) for name in "vw")
    for side in (first, second):
        side.records[0]["protocol"]["generated_tokens"] = 20
    assert compare("latency", "latency_ms_median", first, second, STATISTICS, generator()).estimate == 1
    other = Side("w", [second.records[0] | change], second.items)
    assert compare("latency", "latency_ms_median", first, other, STATISTICS, generator()) is None


def test_latency_over_replicates_is_students_interval_of_log_ratios():
    ratios = [0.4, 0.5, 0.45]
    variant = latency("v", [([10.0, 20.0], [10 * r, 20 * r]) for r in ratios])
    baseline = latency("g", [([1.0], [1.0])] * 3, "baseline")
    found = compare("latency", "latency_ms_median", variant, baseline, STATISTICS, generator())
    expected = nested_interval(np.log(ratios), 0.95)
    assert (found.estimate, found.ci_low, found.ci_high) == pytest.approx(np.exp(expected[:3]))
    assert (found.replicates, found.p_value) == (3, pytest.approx(expected.p_value))


def test_counts_are_an_exact_ratio():
    sides = [
        Side(name, [record({"stored_parameters": count})], [None])
        for name, count in (("v", 53_561_088), ("g", 124_439_808))
    ]
    found = compare("parameters", "stored_parameters", *sides, STATISTICS, generator())
    assert found.estimate == found.ci_low == found.ci_high == 53_561_088 / 124_439_808
    assert (found.p_value, found.test) == (0.0, "exact count")
    assert compare("parameters", "stored_parameters", sides[0], sides[0], STATISTICS, generator()).p_value == 1.0


@pytest.mark.parametrize(
    "other",
    [
        perplexity("g", BASE, start=3),
        perplexity("g", BASE, fingerprint="another"),
        perplexity("g", BASE, split="validation"),
        perplexity("g", BASE, batch_size=2),
        Side("g", [record(figures(BASE))], [None]),
        Side("g", [record({})], [pd.DataFrame({"start_token": np.arange(6), "scored_tokens": SCORED})]),
    ],
)
def test_other_items_are_not_compared(other):
    side = perplexity("v", BASE)
    assert compare("perplexity", "token_perplexity", side, other, STATISTICS, generator()) is None


def test_a_setting_that_one_side_lacks_is_no_difference():
    side, floor = perplexity("v", BASE, stage="recovered"), perplexity("g", BASE + 1.0, role="floor", floor="trigrams")
    assert compare("perplexity", "token_perplexity", side, floor, STATISTICS, generator()).estimate < 1


def test_other_reviews_and_lengths_are_not_compared():
    side = scores("v", [1, 0, 1], "correct", "accuracy")
    for other in (
        scores("g", [1, 0, 1], "correct", "accuracy", ids="xyz"),
        scores("g", [1, 0], "correct", "accuracy"),
    ):
        assert compare("sentiment", "accuracy", side, other, STATISTICS, generator()) is None


def test_replicates_of_one_side_with_other_windows_are_a_fault():
    good = perplexity("v", np.stack([BASE, BASE]))
    bad = Side("v", good.records, [good.items[0], good.items[1].assign(start_token=9)])
    with pytest.raises(InputError, match="other items"):
        compare("perplexity", "token_perplexity", bad, good, STATISTICS, generator())


def test_a_side_against_itself_is_no_difference():
    side = perplexity("v", BASE)
    found = compare("perplexity", "token_perplexity", side, side, STATISTICS, generator())
    assert (found.estimate, found.ci_low, found.ci_high, found.p_value) == (1, 1, 1, 1)
    twice = perplexity("v", np.stack([BASE, BASE + 1]))
    found = compare("perplexity", "token_perplexity", twice, twice, STATISTICS, generator())
    assert (found.estimate, found.ci_low, found.ci_high, found.p_value) == (1, 1, 1, 1)


def test_values_without_a_comparison_are_named():
    for metric, name in HEADLINES.items():
        assert scale_of(metric, name)[0] in ("ratio", "difference")
    with pytest.raises(InputError, match="latency: speedup"):
        scale_of("latency", "speedup")


# -------------------------------------------------------------------------------------------------------- the table


def many(seed, shift=0.0, n=26):
    return np.clip(np.random.default_rng(seed).normal(0.3 + shift, 0.02, n), 0, 1)


def sides():
    """A baseline, one variant like it, one far worse, and one on other articles; two floors, of which lead3 is best."""
    common = many(0)
    rows = {"gpt2": common, "merged_2": common + 1e-4 * (many(1) - 0.3), "compressed_10": common - 0.1}
    variants = [
        scores(name, row, "rougeL", "rougeL", "baseline" if name == "gpt2" else "variant") for name, row in rows.items()
    ]
    variants.append(scores("strange", common, "rougeL", "rougeL", ids="ZYXWVUTSRQPONMLKJIHGFEDCBA"))
    floors = [
        scores(name, many(seed, shift), "rougeL", "rougeL", "floor")
        for name, seed, shift in (("random3", 5, -0.15), ("lead3", 6, -0.05))
    ]
    return {"summarization": variants}, {"summarization": floors}


def test_the_table_says_who_is_better_and_who_beats_the_floor():
    table = comparison_table(*sides(), STATISTICS, generator())
    assert tuple(table.columns) == COLUMNS
    verdicts = table.set_index(["against", "variant"])["verdict"]
    assert verdicts["baseline"].to_dict() == {
        "merged_2": "indistinguishable from the baseline",
        "compressed_10": "worse than the baseline",
        "strange": NOT_COMPARED,
    }
    assert verdicts["floor"].to_dict() == {
        "gpt2": "beats the floor",
        "merged_2": "beats the floor",
        "compressed_10": "does not beat the floor",
        "strange": NOT_COMPARED,
    }
    assert set(table.loc[table["against"] == "floor", "reference"]) == {"lead3"}


def test_p_values_are_corrected_within_a_family_and_empty_rows_do_not_count():
    table = comparison_table(*sides(), STATISTICS, generator())
    for _, family in table.groupby(["metric", "against"]):
        done = family[family["verdict"] != NOT_COMPARED]
        assert done["p_holm"].tolist() == holm(done["p_value"].tolist()).tolist()
        empty = family[family["verdict"] == NOT_COMPARED]
        assert empty[["estimate", "ci_low", "ci_high", "p_value", "p_holm", "n"]].isna().all(axis=None)
        assert not done.isna().any(axis=None) and not empty[["scale", "unit", "test"]].isna().any(axis=None)


def test_one_variant_more_changes_no_other_row():
    variants, floors = sides()
    whole = comparison_table(variants, floors, STATISTICS, generator()).set_index(["against", "variant"])
    fewer = {"summarization": variants["summarization"][:1] + variants["summarization"][2:3]}
    part = comparison_table(fewer, floors, STATISTICS, generator()).set_index(["against", "variant"])
    columns = ["estimate", "ci_low", "ci_high", "p_value"]
    assert part.loc[[("baseline", "compressed_10")], columns].equals(
        whole.loc[[("baseline", "compressed_10")], columns]
    )


def test_less_is_better_for_perplexity_and_latency():
    nats = np.random.default_rng(3).normal(3, 0.1, 6) * SCORED
    table = comparison_table(
        {
            "perplexity": [perplexity("gpt2", nats, "baseline"), perplexity("v", nats - 0.5 * SCORED)],
            "latency": [
                latency("gpt2", [([1.0, 2, 3] * 9, [1.0, 2, 3] * 9)], "baseline"),
                latency("v", [([1.0, 2, 3] * 9, [3.0, 6, 9] * 9)]),
            ],
        },
        {"perplexity": [perplexity("unigram", nats + SCORED, "floor")]},
        STATISTICS,
        generator(),
    )
    verdicts = table.set_index(["metric", "against", "variant"])["verdict"]
    assert verdicts["perplexity", "baseline", "v"] == "better than the baseline"
    assert verdicts["perplexity", "floor", "gpt2"] == "beats the floor"
    assert verdicts["latency", "baseline", "v"] == "worse than the baseline"
    assert ("latency", "floor") not in verdicts.index.droplevel("variant")


def test_the_best_floor_is_by_the_headline_value():
    floors = [perplexity("trigram", BASE, "floor"), perplexity("unigram", BASE + SCORED, "floor")]
    assert best_floor("perplexity", floors).name == "trigram"
    assert best_floor("perplexity", [Side("odd", [record({})], [None], "floor")]) is None


def test_the_table_passes_through_its_file(tmp_path):
    table = comparison_table(*sides(), STATISTICS, generator())
    write_comparisons(table, tmp_path / "comparisons.csv")
    pd.testing.assert_frame_equal(
        read_comparisons(tmp_path / "comparisons.csv"), table, check_exact=True, check_dtype=False
    )
    empty = comparison_table({}, {}, STATISTICS, generator())
    write_comparisons(empty, tmp_path / "empty.csv")
    assert read_comparisons(tmp_path / "empty.csv").empty


def test_a_file_that_is_none_of_ours_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_comparisons(tmp_path / "missing.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="other columns"):
        read_comparisons(tmp_path / "other.csv")
