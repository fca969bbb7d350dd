import numpy as np
import pytest
from ffnfold.statistics import mean_interval, quantile_interval, ratio_interval, wilson_interval
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


@pytest.mark.parametrize("estimator", ["mean", "median"])
def test_intervals_cover_the_truth_about_as_often_as_they_say(estimator):
    generator = np.random.default_rng(5)
    covered, trials = 0, 300
    for _ in range(trials):
        sample = generator.normal(1.0, 2.0, 80)
        if estimator == "mean":
            _, low, high = mean_interval(sample, 0.9, 300, generator)
        else:
            _, low, high = quantile_interval(sample, 0.5, 0.9, 300, generator)
        covered += low <= 1.0 <= high
    assert 0.84 <= covered / trials <= 0.96


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
