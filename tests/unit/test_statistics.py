"""Intervals and tests against hand-computed values, scipy, and what must hold for any data."""

import numpy as np
import pytest
from ffnfold.hypothesis_tests import (
    accuracy_difference,
    bootstrap_p_value,
    crossed_interval,
    holm,
    mcnemar,
    median_ratio,
    nested_interval,
    paired_mean_difference,
    paired_median_ratio,
    paired_rate_difference,
    sign_test,
)
from ffnfold.statistics import mean_interval, order_interval, quantile_interval, ratio_interval, wilson_interval
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats


@given(st.integers(1, 3000), st.data(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_is_scipys(n, data, confidence):
    successes = data.draw(st.integers(0, n))
    share, low, high = wilson_interval(successes, n, confidence)
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert share == successes / n
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= share <= high <= 1


def test_wilson_by_hand():
    # z^2 = 3.8415: 50 of 100 gives 0.5 -+ z / (1 + z^2/100) * sqrt(0.25/100 + z^2/40000) = 0.5 -+ 0.0962.
    assert wilson_interval(50, 100, 0.95) == pytest.approx((0.5, 0.4038, 0.5962), abs=5e-5)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match=f"got {successes} successes of {n}"):
        wilson_interval(successes, n, 0.95)


def test_the_mean_interval_is_near_scipys_bootstrap(generator):
    values = generator.gamma(2.0, size=150)
    expected = stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=1).confidence_interval
    mean, low, high = mean_interval(values, 0.95, 9999, generator)
    assert mean == pytest.approx(values.mean(), rel=1e-12)
    width = expected.high - expected.low
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.04 * width)


def test_the_ratio_interval_is_near_scipys_paired_bootstrap(generator):
    tokens = generator.integers(1, 20, 120).astype(float)
    nats = tokens * generator.normal(3.0, 0.5, 120)

    def ratio(a, b, axis=-1):
        return a.sum(axis=axis) / b.sum(axis=axis)

    expected = stats.bootstrap(
        (nats, tokens), ratio, paired=True, vectorized=True, n_resamples=9999, method="percentile", rng=1
    ).confidence_interval
    centre, low, high = ratio_interval(nats, tokens, 0.95, 9999, generator)
    assert centre == pytest.approx(nats.sum() / tokens.sum())
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.04 * (expected.high - expected.low))


def test_the_ratio_of_equal_rates_has_no_width(generator):
    tokens = np.array([1.0, 5.0, 9.0])
    assert ratio_interval(2 * tokens, tokens, 0.95, 500, generator) == pytest.approx((2, 2, 2), rel=1e-12)


def test_the_median_interval_is_made_of_data(generator):
    values = np.arange(101.0)
    median, low, high = quantile_interval(values, 0.5, 0.95, 4000, generator)
    assert median == 50
    # The median's rank is binomial: 50 -+ 1.96 x sqrt(101)/2 = 40.2 to 59.8.
    assert low == pytest.approx(40.2, abs=2) and high == pytest.approx(59.8, abs=2)
    assert quantile_interval(np.array([1.0, 2.0, 3.0, 4.0]), 0.9, 0.95, 200, generator)[0] == pytest.approx(3.7)


def test_the_expanded_interval_of_a_mean_is_students(generator):
    values = generator.normal(size=10)
    expected = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
    _, low, high = mean_interval(values, 0.95, 200_000, generator)
    # Resamples of ten values are not quite normal: the tails are a little shorter than the normal's.
    assert (low, high) == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))


def test_chunks_do_not_change_the_interval(monkeypatch):
    values = np.random.default_rng(2).normal(size=50)
    whole = mean_interval(values, 0.95, 400, np.random.default_rng(3))
    monkeypatch.setattr("ffnfold.statistics.CHUNK_ELEMENTS", 333)
    assert mean_interval(values, 0.95, 400, np.random.default_rng(3)) == whole


def test_one_item_is_its_own_interval(generator):
    assert mean_interval(np.array([0.25]), 0.95, 100, generator) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "non-empty"), ([[1.0]], "non-empty vector"), ([1.0, np.nan, np.inf], "2 of 3 values are not finite")],
)
def test_values_that_are_no_scores_are_refused(generator, values, message):
    for call in (
        lambda v: mean_interval(v, 0.95, 100, generator),
        lambda v: quantile_interval(v, 0.5, 0.95, 100, generator),
        lambda v: ratio_interval(np.ones(3), v, 0.95, 100, generator),
    ):
        with pytest.raises(ValueError, match=message):
            call(np.array(values))


def test_unequal_lengths_are_refused(generator):
    with pytest.raises(ValueError, match="2 numerators and 3 denominators"):
        ratio_interval(np.ones(2), np.ones(3), 0.95, 100, generator)


# ------------------------------------------------------------------------------------------------ hypothesis tests


def test_the_bootstrap_p_value_by_hand():
    # 100 resamples, 4 of them at or below 0: one tail (4 + 1) / 101 = 0.04950, z = 1.650. With n = 1e9 items the
    # expansion is nil, so p = 2 x 0.04950.
    estimates = np.concatenate([np.full(3, -1.0), [0.0], np.full(96, 1.0)])
    assert bootstrap_p_value(estimates, 10**9) == pytest.approx(2 * 5 / 101, rel=1e-4)
    # 20 items: z shrinks by sqrt(19/20) and is looked up in Student's t with 19 degrees of freedom.
    z = stats.norm.isf(5 / 101) * np.sqrt(19 / 20)
    assert bootstrap_p_value(estimates, 20) == pytest.approx(2 * stats.t.sf(z, 19), rel=1e-12)
    assert bootstrap_p_value(np.full(99, 3.0), 10**9) == pytest.approx(2 / 100, rel=1e-4)  # never 0


@given(st.integers(0, 10_000), st.integers(20, 80), st.floats(-0.6, 0.6))
def test_the_p_value_and_the_interval_agree(seed, n, shift):
    generator = np.random.default_rng(seed)
    first = generator.normal(shift, 1, n)
    _, low, high, p = paired_mean_difference(first, np.zeros(n), 0.95, 400, generator)
    if not 0.03 < p < 0.07:  # at the edge the added one and the quantile's interpolation decide
        assert (low <= 0 <= high) == (p > 0.05)


@given(st.integers(0, 10_000), st.integers(2, 7), st.floats(-2, 2), st.sampled_from([0.9, 0.95]))
def test_few_items_get_students_interval_and_p_value(seed, n, shift, level):
    generator = np.random.default_rng(seed)
    first, second = generator.normal(shift, 1, n), np.zeros(n)
    expected = stats.ttest_1samp(first, 0)
    interval = expected.confidence_interval(level)
    found = paired_mean_difference(first, second, level, 50, generator)
    assert (found.low, found.high, found.p_value) == pytest.approx((interval.low, interval.high, expected.pvalue))
    assert mean_interval(first, level, 50, generator) == pytest.approx(found[:3])
    # Windows of one length: a rate is the mean over that length.
    rate = paired_rate_difference(4 * first, 4 * second, np.full(n, 4.0), level, 50, generator)
    assert rate == pytest.approx(found)
    assert ratio_interval(4 * first, np.full(n, 4.0), level, 50, generator) == pytest.approx(found[:3])
    for estimate in (found, rate):
        assert (estimate.low <= 0 <= estimate.high) == (estimate.p_value >= 1 - level)


def test_few_windows_vary_by_their_influence_on_the_rate(generator):
    # 2 + 6 nats over 1 + 3 tokens and 1 over 1: rate 9 / 5. Influence: (2 - 1.8, 6 - 5.4, 1 - 1.8) / (5 / 3)
    # = 0.12, 0.36, -0.48; variance (0.0144 + 0.1296 + 0.2304) / 2 / 3 = 0.0624.
    nats, tokens = np.array([2.0, 6, 1]), np.array([1.0, 3, 1])
    half = stats.t.isf(0.025, 2) * np.sqrt(0.0624)
    assert ratio_interval(nats, tokens, 0.95, 9, generator) == pytest.approx((1.8, 1.8 - half, 1.8 + half))
    found = paired_rate_difference(nats, np.zeros(3), tokens, 0.95, 9, generator)
    assert found.p_value == pytest.approx(2 * stats.t.sf(1.8 / np.sqrt(0.0624), 2))


def test_paired_differences_are_those_of_the_means(generator):
    first, second = np.array([0.4, 0.9, 0.1]), np.array([0.1, 0.5, 0.3])
    # (0.3 + 0.4 - 0.2) / 3
    assert paired_mean_difference(first, second, 0.95, 200, generator).value == pytest.approx(0.5 / 3)
    # (6 - 5 + 8 - 9 + 4 - 2) / (10 + 20 + 10)
    found = paired_rate_difference(
        np.array([6.0, 8, 4]), np.array([5.0, 9, 2]), np.array([10, 20, 10]), 0.95, 9, generator
    )
    assert found.value == pytest.approx(2 / 40)
    # The median of 2/1, 3/2 and 8/2.
    assert paired_median_ratio(np.array([2.0, 3, 8]), np.array([1.0, 2, 2]), 0.95, 99, generator).value == 2
    # Medians 3 and 2.5, not paired.
    assert median_ratio(np.array([2.0, 3, 8]), np.array([1.0, 2, 3, 9]), 0.95, 99, generator).value == 3 / 2.5


def test_the_paired_difference_is_near_scipys_bootstrap_and_t_test(generator):
    second = generator.normal(size=120)
    first = second + generator.normal(0.05, 0.3, 120)
    found = paired_mean_difference(first, second, 0.95, 9999, generator)
    expected = stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.05 * (found.high - found.low))
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.02)


def test_pairing_makes_the_interval_narrower(generator):
    slow = generator.lognormal(0, 0.5, 60)
    first, second = 2 * slow, slow * generator.lognormal(0, 0.01, 60)
    paired = paired_median_ratio(first, second, 0.95, 500, generator)
    assert paired.high - paired.low < 0.1 * np.diff(median_ratio(first, second, 0.95, 500, generator)[1:3])[0]


@pytest.mark.parametrize("scores", [[0.3], [0.5, 0.5, 0.5, 0.5]])
def test_one_item_or_no_difference_says_nothing(generator, scores):
    scores = np.array(scores)
    other = scores if len(scores) > 1 else scores + 1
    assert paired_mean_difference(other, scores, 0.95, 200, generator).p_value == 1
    assert paired_rate_difference(other, scores, np.ones(len(scores)), 0.95, 200, generator).p_value == 1
    assert paired_median_ratio(other, scores, 0.95, 200, generator).p_value == 1


def test_pairs_need_equal_lengths(generator):
    with pytest.raises(ValueError, match="got 2 first and 3 second scores"):
        paired_mean_difference(np.ones(2), np.ones(3), 0.95, 9, generator)
    with pytest.raises(ValueError, match="got 2 first and 3 second scored tokens"):
        paired_rate_difference(np.ones(2), np.ones(2), np.ones(3), 0.95, 9, generator)
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        mcnemar(np.ones(2), np.ones(3))


def test_mcnemar_by_hand():
    first = np.array([1, 1, 1, 1, 1, 0, 0, 1], dtype=bool)
    second = np.array([1, 0, 0, 0, 0, 1, 0, 1], dtype=bool)
    # Discordant: 4 to 1. Two-sided binomial(5, 1/2): 2 x (1 + 5) / 32.
    assert mcnemar(first, second) == (4, 1, pytest.approx(12 / 32))
    assert mcnemar(first, first) == (0, 0, 1.0)


def test_the_accuracy_difference_by_hand():
    # 60 to 20 of 1,000: Clopper and Pearson give 4.609% to 7.657% and 1.226% to 3.072%. So 4 points, less
    # sqrt((6 - 4.609)^2 + (3.072 - 2)^2) = 1.756, and more sqrt((7.657 - 6)^2 + (2 - 1.226)^2) = 1.829.
    found = accuracy_difference(60, 20, 1000, 0.95)
    assert found[:3] == pytest.approx((4, 4 - 1.756, 4 + 1.829), abs=2e-3) and found.p_value < 1e-5
    # 4 to 0 of 1,000: p = 2 / 2 ** 4, so the interval must hold 0.
    found = accuracy_difference(4, 0, 1000, 0.95)
    assert found.value == 0.4 and found.p_value == 0.125 and found.low < 0 < found.high
    # None: the largest share of discordant items that shows none of 1,000 with a chance of 2.5%.
    most = 100 * (1 - 0.025 ** (1 / 1000))
    assert accuracy_difference(0, 0, 1000, 0.95) == pytest.approx((0, -most, most, 1))
    with pytest.raises(ValueError, match="5 discordant of 4 items"):
        accuracy_difference(3, 2, 4, 0.95)
    with pytest.raises(ValueError, match="0 discordant of 0 items"):
        accuracy_difference(0, 0, 0, 0.95)


def check_accuracy_difference(only_first, only_second, items, level):
    value, low, high, p = accuracy_difference(only_first, only_second, items, level)
    assert (low <= 0 <= high) == (p >= 1 - level)
    assert -100.0001 <= low <= value <= high <= 100.0001
    assert accuracy_difference(only_second, only_first, items, level) == pytest.approx((-value, -high, -low, p))


def test_the_accuracy_differences_interval_and_p_value_agree_for_all_small_counts():
    for only_first in range(16):
        for only_second in range(16):
            check_accuracy_difference(only_first, only_second, only_first + only_second + 1, 0.95)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 1000), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_the_accuracy_differences_interval_and_p_value_agree(only_first, only_second, others, level):
    check_accuracy_difference(only_first, only_second, only_first + only_second + others, level)


def test_the_sign_test_by_hand():
    # 3 pairs smaller, 1 larger, 1 equal: two-sided binomial(4, 1/2) = 2 x (1 + 4) / 16.
    assert sign_test(np.array([1.0, 2, 3, 9, 5]), np.array([2.0, 3, 4, 8, 5])) == (3, 1, pytest.approx(10 / 16))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_scipys_binomial_test_and_symmetric(pairs):
    first, second = np.array(pairs).T
    only_first, only_second, p = mcnemar(first, second)
    if only_first + only_second:
        assert p == stats.binomtest(only_second, only_first + only_second).pvalue
    assert mcnemar(second, first) == (only_second, only_first, pytest.approx(p))


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; the last may not be below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_lies_between_none_and_bonferroni(p_values):
    p, adjusted = np.array(p_values), holm(p_values)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, len(p) * p)).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


# ---------------------------------------------------------------------------------------------------- replicates


def test_the_nested_interval_is_students():
    values = np.array([3.1, 3.4, 3.0])
    mean, low, high, p = nested_interval(values, 0.95, null=3.0)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 2, values.mean(), stats.sem(values)))
    assert mean == pytest.approx(values.mean()) and p == pytest.approx(stats.ttest_1samp(values, 3.0).pvalue)
    with pytest.raises(ValueError, match="one replicate"):
        nested_interval(np.array([1.0]), 0.95)


def test_the_crossed_interval_by_hand():
    # Rows 1 2 3 / 3 2 7: means 2 and 4, columns 2, 2, 5, all 3.
    # A = 3 x ((2-3)^2 + (4-3)^2) / 1 = 6, B = 2 x (1 + 1 + 4) / 2 = 6.
    # Rest, y - row - column + mean: 0 1 -1 / 0 -1 1, so E = 4 / 2 = 2.
    # Variance: (6 + (6 - 2)) / 6 = 10/6. Degrees of freedom: 10 / (6/1 + 4/2) = 1.25.
    mean, low, high, p = crossed_interval(np.array([[1.0, 2, 3], [3, 2, 7]]), None, 0.95)
    half = stats.t.isf(0.025, 1.25) * np.sqrt(10 / 6)
    assert (mean, low, high) == pytest.approx((3, 3 - half, 3 + half))
    assert p == pytest.approx(2 * stats.t.sf(3 / np.sqrt(10 / 6), 1.25))


def test_replicates_that_are_alike_give_the_items_interval(generator):
    scores = generator.normal(2, 1, 40)
    found = crossed_interval(np.stack([scores] * 3), None, 0.95)
    assert found[1:3] == pytest.approx(stats.t.interval(0.95, 39, scores.mean(), stats.sem(scores)))


def test_items_that_are_alike_give_the_replicates_interval():
    values = np.array([1.0, 1.5, 1.2])
    found = crossed_interval(np.repeat(values[:, None], 50, axis=1), None, 0.95)
    assert found == pytest.approx(nested_interval(values, 0.95))


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 30))
def test_the_crossed_interval_is_never_narrower_than_the_replicates_error(seed, replicates, items):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(replicates, items)) + generator.normal(size=(replicates, 1))
    mean, low, high, p = crossed_interval(scores, None, 0.95)
    error = scores.mean(axis=1).std(ddof=1) / np.sqrt(replicates)
    assert high - mean >= stats.norm.isf(0.025) * error * (1 - 1e-9)
    assert (low <= 0 <= high) == (p >= 0.05)
    shifted = crossed_interval(scores + 5, None, 0.95)
    assert shifted[:3] == pytest.approx((mean + 5, low + 5, high + 5), abs=1e-9)


def test_equal_denominators_change_nothing_but_the_scale(generator):
    scores = generator.normal(3, 1, size=(3, 25))
    plain, scaled = crossed_interval(scores, None, 0.95), crossed_interval(scores, np.full(25, 4.0), 0.95)
    assert np.array(plain[:3]) == pytest.approx(4 * np.array(scaled[:3]))


def test_a_rate_that_is_the_same_everywhere_has_no_width():
    scored = np.array([3.0, 9, 20, 31])
    nats = np.stack([2 * scored, 2 * scored])
    assert crossed_interval(nats, scored, 0.95)[:3] == pytest.approx((2, 2, 2))


def test_no_variance_decides_by_the_mean_alone():
    assert crossed_interval(np.zeros((2, 4)), None, 0.95) == (0, 0, 0, 1)
    assert crossed_interval(np.ones((2, 4)), None, 0.95) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("scores", "weights", "message"),
    [
        (np.ones((1, 5)), None, "at least two replicates"),
        (np.ones(5), None, "at least two replicates"),
        (np.full((2, 3), np.nan), None, "6 of 6 values are not finite"),
        (np.ones((2, 3)), np.ones(4), "got 3 items and 4 denominators"),
    ],
)
def test_scores_that_cannot_be_crossed_are_refused(scores, weights, message):
    with pytest.raises(ValueError, match=message):
        crossed_interval(scores, weights, 0.95)


def test_the_order_interval_by_hand():
    # Of 50 values, the number B below the true 90th percentile is binomial(50, 0.9): P(B < 41) = 0.0245 and
    # P(B < 42) = 0.0579 give the 41st as the lower limit, P(B >= 49) = 0.0338 and P(B >= 50) = 0.0052 the 50th as the
    # upper.
    centre, low, high, bounded = order_interval(np.arange(1.0, 51.0), 0.9, 0.95)
    assert (centre, low, high, bounded) == (pytest.approx(45.1), 41.0, 50.0, True)


@pytest.mark.parametrize(("n", "bounded"), [(12, False), (35, False), (36, True)])
def test_too_few_values_have_no_upper_limit_of_their_90th_percentile(n, bounded):
    # 0.9 ** 35 = 0.0250316 is more than 0.025, 0.9 ** 36 = 0.0225 less.
    _, _, high, found = order_interval(np.arange(float(n)), 0.9, 0.95)
    assert found is bounded and high == n - 1


def test_the_order_interval_covers_whatever_the_distribution(generator):
    truth = stats.expon.ppf(0.9)
    found = [order_interval(generator.exponential(size=50), 0.9, 0.95) for _ in range(4000)]
    held = [low <= truth <= high for _, low, high, _ in found]
    assert 0.95 <= np.mean(held) <= 0.985
