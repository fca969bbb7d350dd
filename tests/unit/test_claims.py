"""The published claims: read strictly, consistent with the published figures, judged by intervals."""

import math
from pathlib import Path

import pytest
import yaml
from ffnfold.claims import CONFIRMED, LEFT_OPEN, REFUTED, judge, read_claims
from ffnfold.comparisons import Comparison, scale_of
from ffnfold.errors import InputError
from ffnfold.published import published_value, read_published
from ffnfold.records import Value

CONFIG = Path(__file__).parents[2] / "config"
CLAIMS = read_claims(CONFIG / "claims.yaml")
PUBLISHED = read_published(CONFIG / "published.csv")


def test_every_variant_of_a_claim_has_published_figures():
    named = {name for claim in CLAIMS for test in claim.tests for name in (test.variant, test.against) if name}
    assert named <= set(PUBLISHED["variant"])
    assert named >= {f"{method}_{n}" for method in ("merged", "compressed") for n in (2, 4, 6, 8, 10)}


def test_the_list_of_a_placeholder_is_written_out():
    best = next(claim for claim in CLAIMS if claim.id == "merged_10_best_rouge")
    assert {test.variant for test in best.tests} == {"merged_10"}
    # Every published variant but merged_10 itself.
    assert {test.against for test in best.tests} == set(PUBLISHED["variant"]) - {"merged_10"}


def test_the_published_figures_bear_out_every_claim():
    """The bounds are read from the published figures, so these must lie within them wherever they were published."""
    tried = 0
    for claim in CLAIMS:
        for test in claim.tests:
            figures = [published_value(PUBLISHED, name, test.value) for name in (test.variant, test.against) if name]
            if None in figures:
                continue
            # Of GPT-2's 124,439,808 parameters the merged variants' rounded count says "124M".
            figures = [124_439_808 if figure == 124_000_000 else figure for figure in figures]
            figure = figures[0]
            if test.scale == "ratio":
                figure = figures[0] / figures[1]
            elif test.scale == "difference":
                figure = figures[0] - figures[1]
            assert test.at_least <= figure <= test.at_most, f"{claim.id}: {test}, {figure}"
            tried += 1
    assert tried > 40


# ----------------------------------------------------------------------------------------------------------- reading


def write(path, **changes):
    test = {"metric": "perplexity", "value": "token_perplexity", "variant": "merged_4", "against": "gpt2"}
    test |= {"scale": "ratio", "at_most": 1.1} | changes.pop("test", {})
    claim = {"id": "near", "claim": "Near.", "published": "1.09", "reading": "10%", "comparable_only": False}
    claim |= {"tests": [{key: value for key, value in test.items() if value is not None}]} | changes
    path.write_text(yaml.safe_dump({"claims": [claim]}))
    return path


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"tests": []}, ["claims.0.tests"]),
        ({"wording": "x"}, ["unknown key", "'wording'", "claims.0"]),
        ({"comparable_only": "no"}, ["claims.0.comparable_only"]),
        ({"id": "Not An Id"}, ["claims.0.id"]),
        ({"test": {"metric": "speed"}}, ["claims.0.tests.0.metric", "'speed'"]),
        ({"test": {"value": "perplexity"}}, ["unknown value", "token_perplexity", "(near).tests.0.value"]),
        ({"test": {"at_most": "ten"}}, ["claims.0.tests.0.at_most"]),
        ({"test": {"at_most": None}}, ["needs a bound"]),
        ({"test": {"at_least": 2}}, ["needs a bound", "at_least 2"]),
        ({"test": {"scale": "difference"}}, ["compared in another way", "expected: ratio"]),
        ({"test": {"scale": "absolute"}}, ["no variant", "'gpt2'"]),
        ({"test": {"against": None}}, ["against one"]),
        ({"test": {"variant": "merged_{n}"}}, ["placeholder"]),
        ({"test": {"n": [2, 4]}}, ["placeholder"]),
        ({"test": {"variant": "merged_{n}", "n": [2, "4"]}}, ["claims.0.tests.0.n.1"]),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path, changes, messages):
    with pytest.raises(InputError) as error:
        read_claims(write(tmp_path / "claims.yaml", **changes))
    for message in messages:
        assert message in str(error.value)


def test_an_id_is_given_once(tmp_path):
    content = yaml.safe_load(write(tmp_path / "claims.yaml").read_text())
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": content["claims"] * 2}))
    with pytest.raises(InputError, match="same id"):
        read_claims(tmp_path / "claims.yaml")


def test_a_placeholder_stands_on_both_sides(tmp_path):
    line = {"variant": "merged_{n}", "against": "compressed_{n}", "n": [2, 4]}
    (claim,) = read_claims(write(tmp_path / "claims.yaml", test=line))
    assert [(t.variant, t.against) for t in claim.tests] == [("merged_2", "compressed_2"), ("merged_4", "compressed_4")]
    assert (claim.tests[0].at_least, claim.tests[0].at_most) == (-math.inf, 1.1)


# ----------------------------------------------------------------------------------------------------------- judging


def study(intervals, missing=(), apart=(), n=None):
    """Look-ups that give the interval of `intervals` under the variant's name, exact where it has no width."""

    def compare(metric, name, variant, against):
        if (variant, against) in apart:
            return None
        low, high = intervals[variant]
        scale, unit = scale_of(metric, name)
        middle = (low + high) / 2
        return Comparison(metric, name, variant, against, middle, scale, unit, low, high, 0.01, n or 240, 1, "a test")

    def value(metric, name, variant):
        if variant in missing:
            return None
        low, high = intervals.get(variant, (1.0, 1.0))
        return Value((low + high) / 2, "%", low, high, n or 500, "a method")

    return compare, value


def verdict(path, intervals, comparable=True, **more):
    (found,) = judge(read_claims(path), *study(intervals, **more), comparable)
    return found


def near(tmp_path, **changes):
    return write(tmp_path / "claims.yaml", test={"variant": "merged_{n}", "n": [2, 4]} | changes)


def test_a_claim_is_confirmed_where_all_intervals_lie_inside(tmp_path):
    found = verdict(near(tmp_path), {"merged_2": (1.0, 1.02), "merged_4": (1.05, 1.1)})
    assert (found.verdict, found.reason) == (CONFIRMED, "both tests support it")
    assert found.evidence[0] == (
        "merged_2 / gpt2, token perplexity: 1.010× (95% interval 1.000 to 1.020, n\u00a0=\u00a0240); "
        "at most 1.1: supports."
    )


def test_one_interval_outside_refutes_it(tmp_path):
    found = verdict(near(tmp_path), {"merged_2": (1.0, 1.02), "merged_4": (1.2, 1.3)})
    assert (found.verdict, found.reason) == (REFUTED, "1 of 2 tests contradicts it")
    assert found.evidence[1].endswith("at most 1.1: contradicts.")


def test_an_interval_across_a_bound_leaves_it_open(tmp_path):
    found = verdict(near(tmp_path), {"merged_2": (1.0, 1.02), "merged_4": (1.05, 1.3)})
    assert (found.verdict, found.reason) == (LEFT_OPEN, "1 of 2 tests: the interval reaches across a bound")


def test_a_missing_variant_leaves_it_open_unless_another_refutes_it(tmp_path):
    path = near(tmp_path)
    found = verdict(path, {"merged_4": (1.0, 1.05)}, missing=["merged_2"])
    assert (found.verdict, found.reason) == (LEFT_OPEN, "merged_2 was not measured")
    assert found.evidence[0] == "merged_2 / gpt2, token perplexity: merged_2 was not measured."
    assert verdict(path, {"merged_4": (1.3, 1.4)}, missing=["merged_2"]).verdict == REFUTED
    assert verdict(path, {}, missing=["gpt2"]).reason == "gpt2 was not measured"


def test_pairs_on_other_items_leave_it_open(tmp_path):
    found = verdict(near(tmp_path), {"merged_4": (1.0, 1.05)}, apart=[("merged_2", "gpt2")])
    assert found.verdict == LEFT_OPEN and "merged_2 and gpt2 were not measured on the same items" in found.reason


def test_an_absolute_figure_needs_a_comparable_study(tmp_path):
    line = {"metric": "sentiment", "value": "accuracy", "against": None, "scale": "absolute"}
    path = write(tmp_path / "claims.yaml", comparable_only=True, test=line | {"at_least": 82, "at_most": 84})
    assert verdict(path, {"merged_4": (82.5, 83.5)}).verdict == CONFIRMED
    found = verdict(path, {"merged_4": (70.0, 72.0)}, comparable=False)
    reason = "only a study on the published model and data can judge it"
    assert (found.verdict, found.reason) == (LEFT_OPEN, reason)
    # The figure is shown, without a judgement.
    assert found.evidence == ("merged_4, accuracy: 71.0\u00a0% (95% interval 70.0 to 72.0, n\u00a0=\u00a0500).",)
    assert verdict(path, {"merged_4": (70.0, 72.0)}).verdict == REFUTED


def test_an_exact_count_needs_no_interval(tmp_path):
    line = {"metric": "parameters", "value": "stored_parameters", "at_least": 0.425, "at_most": 0.435}
    found = verdict(write(tmp_path / "claims.yaml", test=line), {"merged_4": (0.43042, 0.43042)})
    assert found.evidence == ("merged_4 / gpt2, stored parameters: 0.4304×; 0.425 to 0.435: supports.",)
    assert found.reason == "its test supports it"


def test_one_item_alone_leaves_it_open(tmp_path):
    for line in ({}, {"metric": "sentiment", "value": "accuracy", "against": None, "scale": "absolute"}):
        path = write(tmp_path / "claims.yaml", test=line)
        found = verdict(path, {"merged_4": (1.05, 1.05)}, n=1)
        assert (found.verdict, found.reason) == (LEFT_OPEN, "one item alone shows no spread")
        assert found.evidence[0].endswith(": one item alone shows no spread.")
        assert verdict(path, {"merged_4": (1.2, 1.2)}, n=1).verdict == LEFT_OPEN
        assert verdict(path, {"merged_4": (1.05, 1.05)}, n=2).verdict == CONFIRMED
    counted = write(tmp_path / "claims.yaml", test={"metric": "parameters", "value": "stored_parameters"})
    assert verdict(counted, {"merged_4": (1.05, 1.05)}, n=1).verdict == CONFIRMED


def test_an_estimate_without_width_is_not_printed_as_a_count(tmp_path):
    found = verdict(write(tmp_path / "claims.yaml"), {"merged_4": (1.05, 1.05)})
    assert "n\u00a0=\u00a0240" in found.evidence[0]


def test_the_published_claims_are_judged_in_their_order():
    found = judge(CLAIMS, lambda *_: None, lambda *_: None, comparable=True)
    assert [each.claim.id for each in found] == [claim.id for claim in CLAIMS]
    assert {each.verdict for each in found} == {LEFT_OPEN}
