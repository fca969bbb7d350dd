"""Questions on pairs of variants: refused where they cannot be asked, answered by hand-computed comparisons."""

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
from ffnfold.answers import ANSWER_COLUMNS, VALUES, answer, read_answers, verdict
from ffnfold.comparisons import COLUMNS, HEADLINES, LEAST_RESAMPLES, NOT_COMPARED, Comparison, Side, write_comparisons
from ffnfold.errors import InputError
from ffnfold.evaluation import evaluate
from ffnfold.hypothesis_tests import crossed_interval, holm, median_ratio, paired_rate_difference
from study_factory import load_changed, refused

STATISTICS = {"confidence": 0.95, "resamples": 500}
SCORED = np.array([10, 20, 30, 40, 25, 15])
NATS = 3.0 * SCORED + np.array([2.0, -1, 3, -2, 1, -3])
TIMES = np.array([2.0, 3, 9])
VARIANTS = {"gpt2": {"method": "baseline"}, "shared_4": {"method": "share", "n": 4}}
ASKED = {"question": "Does sharing cost anything?", "variant": "shared_4", "against": "gpt2"}


def generator():
    return np.random.default_rng(7)


def ask(*pairs):
    """Questions q0, q1, ... on pairs of variants."""
    return {f"q{i}": {"question": f"{a} or {b}?", "variant": a, "against": b} for i, (a, b) in enumerate(pairs)}


def measured(name, stored=1000, shift=0.0, replicates=1, noise=0.0):
    """Every record of a variant with its items: `shift` is in nats a token, twice that before recovery."""
    made = []
    for replicate in range(replicates):
        nats = NATS + shift * SCORED + noise * np.random.default_rng(replicate).normal(size=6)
        before = NATS + 2 * shift * SCORED
        correct = np.array([1, 1, 1, 0, 1, 0] if shift <= 0 else [1, 0, 0, 0, 1, 0])
        rouge = np.linspace(0.2, 0.4, 6) - 0.1 * shift
        windows = {"start_token": np.arange(6), "scored_tokens": SCORED, "nats": nats, "nats_before_recovery": before}
        items = {
            "parameters": None,
            "perplexity": pd.DataFrame(windows),
            "latency": pd.DataFrame({"baseline_ms": TIMES, "variant_ms": (1 + shift) * TIMES}),
            "sentiment": pd.DataFrame({"id": list("abcdef"), "correct": correct}),
            "summarization": pd.DataFrame({"id": list("abcdef"), "rougeL": rouge}),
        }
        figures = {
            "parameters": {"stored_parameters": stored, "nonzero_parameters": stored},
            "perplexity": {
                "token_perplexity": math.exp(nats.sum() / SCORED.sum()),
                "token_perplexity_before_recovery": math.exp(before.sum() / SCORED.sum()),
            },
            "latency": {"latency_ms_median": 3 * (1 + shift)},
            "sentiment": {"accuracy": 100 * correct.mean()},
            "summarization": {"rougeL": rouge.mean()},
        }
        for metric, frame in items.items():
            record = {
                "variant": name,
                "metric": metric,
                "replicate": replicate,
                "values": {key: {"value": value, "n": 6} for key, value in figures[metric].items()},
                "data": {"fingerprint": "f"},
                "protocol": {"split": "test"},
            }
            made.append((record, frame))
    return made


def sides(**variants):
    """Metric -> variant -> side, of `measured`'s keywords for each variant; "gpt2" is the baseline."""
    found = {}
    for name, options in variants.items():
        rows = measured(name, **options)
        for metric in dict.fromkeys(record["metric"] for record, _ in rows):
            mine = [row for row in rows if row[0]["metric"] == metric]
            role = "baseline" if name == "gpt2" else "variant"
            side = Side(name, [record for record, _ in mine], [frame for _, frame in mine], role)
            found.setdefault(metric, {})[name] = side
    return found


def answers(questions, **variants):
    return answer(questions, sides(**variants), STATISTICS, generator())


def row(table, value_name, question="q0"):
    (found,) = table[(table["question"] == question) & (table["value_name"] == value_name)].to_dict("records")
    return found


# ------------------------------------------------------------------------------------------------------- the study


@pytest.fixture
def load(tmp_path):
    return partial(load_changed, tmp_path)


def test_a_study_asks_nothing_unless_told(load):
    assert load()["questions"] == {}
    study = load({"variants": VARIANTS, "questions": {"b": ASKED, "a": ASKED}})
    assert list(study["questions"]) == ["a", "b"] and study["questions"]["a"] == ASKED


@pytest.mark.parametrize("side", ["variant", "against"])
def test_a_variant_that_is_missing_is_refused(load, side):
    changes = {"variants": VARIANTS, "questions": {"cost": ASKED | {side: "shared_5"}}}
    refused(load, f"questions.cost.{side}", "'shared_5'", "gpt2, shared_4", "{cost: null}", changes=changes)


def test_a_variant_is_not_asked_against_itself(load):
    changes = {"variants": VARIANTS, "questions": {"cost": ASKED | {"against": "shared_4"}}}
    refused(load, "questions.cost", "'shared_4' twice", "with itself", changes=changes)


@pytest.mark.parametrize("key", ["question", "variant", "against"])
def test_every_key_of_a_question_is_required_and_no_other_known(load, key):
    lacking = {name: value for name, value in ASKED.items() if name != key}
    refused(load, "missing key", f"'{key}'", changes={"variants": VARIANTS, "questions": {"cost": lacking}})
    more = {"variants": VARIANTS, "questions": {"cost": ASKED | {"metric": "latency"}}}
    refused(load, "unknown key", "'metric'", changes=more)


def test_a_name_with_a_slash_is_refused(load):
    refused(load, "questions", changes={"variants": VARIANTS, "questions": {"a/b": ASKED}})


def test_a_study_takes_out_the_questions_of_the_variants_it_takes_out(load, tmp_path):
    load({"variants": VARIANTS, "questions": {"cost": ASKED}})
    (tmp_path / "mine.yaml").rename(tmp_path / "parent.yaml")
    child = "extends: parent\nvariants: {shared_4: null}\n"
    refused(load, "questions.cost.variant", "'shared_4'", text=child)
    study = load(text=child + "questions: {cost: null}\n")
    assert study["questions"] == {} and list(study["variants"]) == ["gpt2"]
    assert load(text="extends: parent\n")["questions"] == {"cost": ASKED}
    assert load(text="extends: parent\n", overrides={"questions": {"cost": None}})["questions"] == {}


# ------------------------------------------------------------------------------------------------------- the answers


def test_perplexity_is_the_ratio_of_nats_a_token_after_and_before_recovery():
    table = answers(ask(("a", "b")), a={"shift": 0.1}, b={})
    after, before = (row(table, name) for name in ("token_perplexity", "token_perplexity_before_recovery"))
    assert after["estimate"] == pytest.approx(math.exp(0.1))
    assert before["estimate"] == pytest.approx(math.exp(0.2))
    frame = sides(a={"shift": 0.1}, b={})["perplexity"]["a"].items[0]
    expected = paired_rate_difference(frame["nats"], NATS, SCORED, 0.95, LEAST_RESAMPLES, generator())
    assert (after["ci_low"], after["ci_high"]) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))
    assert (after["variant"], after["reference"], after["against"], after["text"]) == ("a", "b", "pair", "a or b?")


def test_a_question_has_a_row_for_size_surgery_and_every_headline():
    table = answers(ask(("a", "b"), ("b", "a")), a={"shift": 0.1}, b={})
    assert tuple(table.columns) == ANSWER_COLUMNS == ("question", "text", *COLUMNS)
    assert [*zip(table["metric"], table["value_name"], strict=True)] == [*VALUES, *VALUES]
    assert set(HEADLINES.items()) < set(VALUES) and table["question"].tolist() == ["q0"] * len(VALUES) + ["q1"] * len(
        VALUES
    )
    there, back = row(table, "token_perplexity"), row(table, "token_perplexity", "q1")
    assert there["estimate"] * back["estimate"] == pytest.approx(1)


def test_sizes_are_exact():
    table = answers(ask(("a", "b"), ("a", "c"), ("c", "a")), a={"stored": 750}, b={"stored": 750}, c={"stored": 1000})
    found = [row(table, "stored_parameters", f"q{i}") for i in range(3)]
    assert [f["estimate"] for f in found] == [1.0, 0.75, 1000 / 750]
    assert all(f["ci_low"] == f["estimate"] == f["ci_high"] and f["test"] == "exact count" for f in found)
    assert [f["verdict"] for f in found] == ["as many as b", "fewer than c", "more than a"]


def test_latency_is_paired_with_the_baseline_alone():
    table = answers(ask(("a", "gpt2"), ("gpt2", "a"), ("a", "b")), a={"shift": -0.5}, b={"shift": 0.25}, gpt2={})
    there, back, other = (row(table, "latency_ms_median", f"q{i}") for i in range(3))
    assert there["estimate"] == 0.5 and back["estimate"] == 2.0
    assert there["test"].startswith("sign test, 3 pairs to 0") and back["test"].startswith("sign test, 0 pairs to 3")
    assert other["estimate"] == pytest.approx(0.5 / 1.25) and other["test"].startswith("unpaired bootstrap")
    expected = median_ratio(0.5 * TIMES, 1.25 * TIMES, 0.95, LEAST_RESAMPLES, generator())
    assert (other["ci_low"], other["ci_high"], other["p_value"]) == (expected.low, expected.high, expected.p_value)


def test_p_values_are_corrected_over_the_questions_for_each_figure():
    variants = {"a": {"shift": 0.004, "noise": 0.3}, "b": {}, "c": {"shift": 0.02}}
    table = answers(ask(("a", "b"), ("c", "b"), ("a", "c")), **variants)
    for _, family in table.groupby(["metric", "value_name"]):
        assert len(family) == 3 and family["p_holm"].tolist() == holm(family["p_value"].tolist()).tolist()
    p = table[table["value_name"] == "token_perplexity"]
    least = p["p_value"].idxmin()
    assert p["p_holm"][least] == 3 * p["p_value"][least]
    alone = answers(ask(("a", "b")), **variants)
    columns_of_one = ["estimate", "ci_low", "ci_high", "p_value"]
    assert (
        alone[columns_of_one].equals(table[: len(VALUES)][columns_of_one])
        and (alone["p_holm"] == alone["p_value"]).all()
    )


@pytest.mark.parametrize(
    ("metric", "scale", "estimate", "p_holm", "words"),
    [
        ("perplexity", "ratio", 0.9, 0.049, "better than b"),
        ("perplexity", "ratio", 1.1, 0.049, "worse than b"),
        ("perplexity", "ratio", 0.9, 0.05, "indistinguishable from b"),
        ("latency", "ratio", 1.1, 0.0, "worse than b"),
        ("sentiment", "difference", 2.0, 0.01, "better than b"),
        ("summarization", "difference", -0.1, 0.01, "worse than b"),
    ],
)
def test_verdicts_in_words(metric, scale, estimate, p_holm, words):
    comparison = Comparison(metric, "x", "a", "b", estimate, scale, "x", 0.0, 1.0, 0.001, 6, 1, "made up")
    assert verdict(comparison, p_holm, 0.05) == words


def test_identical_variants_are_indistinguishable():
    table = answers(ask(("a", "b")), a={}, b={}).set_index("value_name")
    assert (table["estimate"] == (table["scale"] == "ratio").astype(float)).all()
    assert (table["p_holm"] == 1).all()
    assert table["verdict"].drop(["stored_parameters", "nonzero_parameters"]).unique().tolist() == [
        "indistinguishable from b"
    ]


def test_three_replicates_are_crossed_with_the_windows():
    made = {"a": {"shift": 0.1, "replicates": 3, "noise": 0.5}, "b": {"replicates": 3}}
    found = row(answers(ask(("a", "b")), **made), "token_perplexity")
    nats = np.stack([frame["nats"].to_numpy() for frame in sides(**made)["perplexity"]["a"].items])
    expected = crossed_interval(nats - NATS, SCORED, 0.95)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))
    assert (found["replicates"], found["n"], found["p_value"]) == (3, 6, expected.p_value)
    assert found["test"] == "t test over 3 replicates and 6 windows (two-way random effects)"


def test_what_cannot_be_compared_has_no_number_and_does_not_count():
    made = sides(a={"shift": 0.1}, b={}, c={})
    made["perplexity"]["c"].records[0]["data"]["fingerprint"] = "another"
    del made["latency"]["c"]
    table = answer(ask(("a", "b"), ("a", "c")), made, STATISTICS, generator())
    for name in ("token_perplexity", "latency_ms_median"):
        empty, other = row(table, name, "q1"), row(table, name, "q0")
        assert empty["verdict"] == NOT_COMPARED and empty["variant"] == "a" and empty["reference"] == "c"
        assert all(pd.isna(empty[key]) for key in ("estimate", "ci_low", "ci_high", "n", "replicates", "p_holm"))
        assert other["p_holm"] == other["p_value"]
    assert row(table, "accuracy", "q1")["estimate"] == row(table, "accuracy", "q0")["estimate"]


def test_a_study_s_records_answer_its_questions():
    rows = measured("gpt2") + measured("a", stored=500, shift=0.1) + measured("b", stored=500)
    variants = [{"name": name, "method": "baseline" if name == "gpt2" else "share"} for name in ("gpt2", "a", "b")]
    _, table, claims = evaluate(rows, [], variants, ask(("a", "b")), [], STATISTICS, generator(), False)
    expected = answers(ask(("a", "b")), gpt2={}, a={"stored": 500, "shift": 0.1}, b={"stored": 500})
    pd.testing.assert_frame_equal(table, expected, check_exact=True)
    assert claims == []


def test_the_table_passes_through_its_file(tmp_path):
    questions = {"1": {"question": 'Is "a, <b>" = 2?\nOr 007?', "variant": "a", "against": "b"}}
    made = sides(a={"shift": 0.1, "noise": 0.3}, b={})
    del made["sentiment"]["b"]
    table = answer(questions, made, STATISTICS, generator())
    write_comparisons(table, tmp_path / "questions.csv")
    read = read_answers(tmp_path / "questions.csv")
    pd.testing.assert_frame_equal(read, table, check_exact=True, check_dtype=False)
    assert read["question"].tolist() == ["1"] * len(VALUES)
    write_comparisons(answers({}), tmp_path / "empty.csv")
    assert read_answers(tmp_path / "empty.csv").empty
    with pytest.raises(InputError, match="other columns"):
        write_comparisons(table[list(COLUMNS)], tmp_path / "other.csv")
        read_answers(tmp_path / "other.csv")
