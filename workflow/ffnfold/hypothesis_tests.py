"""Differences between models, and figures over replicates: estimate, interval and p value each.

Apart from `statistics`, which the measurements import: a change here repeats no measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, norm
from scipy.stats import t as student_t

from ffnfold.statistics import checked, few_items, percentile_bounds, resample, student


class Estimate(NamedTuple):
    """An estimate, its interval, and the two-sided p value of its being what it is under the null hypothesis."""

    value: float
    low: float
    high: float
    p_value: float


# -------------------------------------------------------------------------------------------------- paired bootstrap


def bootstrap_p_value(estimates: np.ndarray, n: int | None, null: float = 0.0) -> float:
    """Two-sided p value of a bootstrap distribution: the level at which the percentile interval ends at the null.

    One is added to the count and to the resamples, so it is never 0 and at least about 2 / (resamples + 1). It is
    expanded like the interval. The two agree but at the edge, where the added one and the interpolation between
    resamples decide, and with few items: the expansion can then keep p above a level that no resample contradicts.

    Args:
        estimates: (resamples,) float.
        n: items behind them; fewer than two say nothing, and give 1. None expands nothing.
        null: the value that means no difference.

    Source: Efron and Tibshirani 1993, chapter 15; the added one from Davison and Hinkley 1997, chapter 4.
    """
    if n is not None and n < 2:
        return 1.0
    fewer = min(int((estimates <= null).sum()), int((estimates >= null).sum()))
    tail = (fewer + 1) / (len(estimates) + 1)
    if n is not None:
        tail = student_t.sf(np.sqrt((n - 1) / n) * norm.isf(tail), n - 1)
    return min(1.0, 2 * float(tail))


def _same_length(first: np.ndarray, second: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    first, second = checked(first, f"first {name}"), checked(second, f"second {name}")
    if len(first) != len(second):
        raise ValueError(f"got {len(first)} first and {len(second)} second {name}, expected pairs")
    return first, second


def _estimate(estimates: np.ndarray, centre: float, n: int | None, confidence: float, null: float = 0.0) -> Estimate:
    return Estimate(centre, *percentile_bounds(estimates, centre, n, confidence), bootstrap_p_value(estimates, n, null))


def paired_mean_difference(
    first: np.ndarray, second: np.ndarray, confidence: float, resamples: int, generator: np.random.Generator
) -> Estimate:
    """Mean of first - second over paired items, by bootstrap over the pairs; by Student's t if they are few.

    Args:
        first, second: (items,) float, scores of the same items in the same order.
        confidence: level, e.g. 0.95.
        resamples: bootstrap resamples.

    Raises:
        ValueError: the lengths differ, or a score is not finite.

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    first, second = _same_length(first, second, "scores")
    difference = first - second
    centre = float(difference.mean())
    if few := few_items(difference, None, confidence):
        return Estimate(centre, *few)
    estimates = resample([difference], lambda d: d.mean(axis=1), resamples, generator)
    return _estimate(estimates, centre, len(difference), confidence)


def paired_rate_difference(
    nats_first: np.ndarray,
    nats_second: np.ndarray,
    scored: np.ndarray,
    confidence: float,
    resamples: int,
    generator: np.random.Generator,
) -> Estimate:
    """Difference of two models' nats a token on the same windows; its exponential is the ratio of perplexities.

    By bootstrap over the windows; by Student's t of their influence if they are few.

    Args:
        nats_first, nats_second: (windows,) float, summed nats; resampled together.
        scored: (windows,) scored tokens, the same for both.

    Raises:
        ValueError: the lengths differ, or a number is not finite.
    """
    first, second = _same_length(nats_first, nats_second, "nats")
    _, scored = _same_length(first, scored, "scored tokens")
    difference = first - second
    centre = float(difference.sum() / scored.sum())
    if few := few_items(difference, scored, confidence):
        return Estimate(centre, *few)
    estimates = resample([difference, scored], lambda d, s: d.sum(axis=1) / s.sum(axis=1), resamples, generator)
    return _estimate(estimates, centre, len(scored), confidence)


def paired_median_ratio(
    first: np.ndarray, second: np.ndarray, confidence: float, resamples: int, generator: np.random.Generator
) -> Estimate:
    """Median over pairs of first / second, by bootstrap over the pairs; the p value is of a ratio of 1.

    Args:
        first, second: (pairs,) float, e.g. milliseconds of two models timed one after the other.
    """
    first, second = _same_length(first, second, "times")
    ratio = first / second
    estimates = resample([ratio], lambda r: np.median(r, axis=1), resamples, generator)
    return _estimate(estimates, float(np.median(ratio)), len(ratio), confidence, null=1.0)


def median_ratio(
    first: np.ndarray, second: np.ndarray, confidence: float, resamples: int, generator: np.random.Generator
) -> Estimate:
    """Ratio of the medians of two samples that are not paired, each resampled by itself; p value of a ratio of 1.

    The percentiles are not expanded: with two medians they cover 96 to 97% as they are.

    Args:
        first: (n,) float.
        second: (m,) float.

    Source: Efron and Tibshirani 1993, chapter 8 (two samples).
    """
    first, second = checked(first, "first times"), checked(second, "second times")
    medians = [resample([v], lambda r: np.median(r, axis=1), resamples, generator) for v in (first, second)]
    centre = float(np.median(first) / np.median(second))
    n = None if min(len(first), len(second)) > 1 else 1
    return _estimate(medians[0] / medians[1], centre, n, confidence, null=1.0)


# --------------------------------------------------------------------------------------------------- other tests


def mcnemar(first_correct: np.ndarray, second_correct: np.ndarray) -> tuple[int, int, float]:
    """Exact two-sided test that two models are right equally often on the same items.

    Args:
        first_correct, second_correct: bool (items,).

    Returns:
        Items that only the first has right, items that only the second has right, p value: that of a fair coin on
        these items, 1 where there are none.

    Source: McNemar 1947; exact, as a binomial test of the discordant pairs.
    """
    first, second = np.asarray(first_correct, dtype=bool), np.asarray(second_correct, dtype=bool)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"got shapes {first.shape} and {second.shape}, expected two vectors of one length")
    return _fair_coin(int((first & ~second).sum()), int((second & ~first).sum()))


def accuracy_difference(only_first: int, only_second: int, items: int, confidence: float) -> Estimate:
    """Difference of two accuracies on the same items, in points, with the p value of `mcnemar` and its own interval.

    The interval is made of Clopper and Pearson's for the shares of items that only the one and only the other has
    right. It excludes 0 exactly where the p value is below 1 - confidence: an end that would not is replaced by that of
    the test's own inverse, which holds the number of discordant items fixed and covers too rarely elsewhere.

    Args:
        only_first, only_second: items that only one of the two has right.
        items: all items.
        confidence: level, e.g. 0.95.

    Raises:
        ValueError: there are no items, or fewer than discordant ones.

    Source: Clopper and Pearson 1934; the two limits combined after Newcombe 1998 and Zou and Donner 2008
    (doi 10.1002/sim.3095).
    """
    only_first, only_second, p_value = _fair_coin(only_first, only_second)
    discordant = only_first + only_second
    if not max(1, discordant) <= items:
        raise ValueError(f"got {discordant} discordant of {items} items")
    if discordant == 0:
        most = 1 - ((1 - confidence) / 2) ** (1 / items)
        return Estimate(0.0, -100 * most, 100 * most, p_value)
    difference = (only_first - only_second) / items
    first, second = (
        (count / items, binomtest(count, items).proportion_ci(confidence, method="exact"))
        for count in (only_first, only_second)
    )
    low = difference - float(np.hypot(first[0] - first[1].low, second[1].high - second[0]))
    high = difference + float(np.hypot(first[1].high - first[0], second[0] - second[1].low))
    share = binomtest(only_first, discordant).proportion_ci(confidence, method="exact")
    inverse = [(2 * end - 1) * discordant / items for end in (share.low, share.high)]
    ends = [own if (own > 0) == (test > 0) else float(test) for own, test in zip((low, high), inverse, strict=True)]
    return Estimate(100 * difference, *(100 * end for end in ends), p_value)


def sign_test(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """Exact two-sided test that the median over pairs of first / second is 1, or that of first - second 0.

    Args:
        first, second: (pairs,) float; for few pairs, where a bootstrap's p value cannot become small.

    Returns:
        Pairs whose first is smaller, pairs whose first is larger, p value.

    Source: Conover 1999, section 3.4.
    """
    first, second = _same_length(first, second, "scores")
    return _fair_coin(int((first < second).sum()), int((first > second).sum()))


def _fair_coin(heads: int, tails: int) -> tuple[int, int, float]:
    """The two counts and the p value of their being thrown with a fair coin; 1 without any throw."""
    return heads, tails, float(binomtest(heads, heads + tails, 0.5).pvalue) if heads + tails else 1.0


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P values adjusted for their number: below a level, they are so with that chance of any false one among them.

    Args:
        p_values: (tests,) each 0 to 1.

    Returns:
        (tests,) float64 in the order given: the k-th smallest of m times m - k + 1, never below a smaller one's, at
        most 1.

    Source: Holm 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


# --------------------------------------------------------------------------------------------------- replicates


def nested_interval(values: np.ndarray, confidence: float, null: float = 0.0) -> Estimate:
    """Mean of replicates' figures whose items are not shared, such as timings, with Student's interval.

    Args:
        values: (replicates,) float, at least two.
        confidence: level, e.g. 0.95.
        null: the mean that the p value is of.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    values = checked(values, "replicates")
    if len(values) < 2:
        raise ValueError("got one replicate, expected at least two: one alone shows no spread")
    return _student(float(values.mean()), float(values.var(ddof=1)) / len(values), len(values) - 1, confidence, null)


def crossed_interval(scores: np.ndarray, denominators: np.ndarray | None, confidence: float) -> Estimate:
    """Mean over replicates of the scores of the same items, with an interval for other replicates and other items.

    Two-way random effects without replication, y[r, i] = mean + replicate[r] + item[i] + rest[r, i]. With mean
    squares A of replicates, B of items and E of the rest, the mean's variance is (A + B - E) / (replicates x items).
    It is taken as A + max(B - E, 0), which is never below what the replicates' figures show by themselves.

    Degrees of freedom are the harmonic mean of both factors', weighted by their shares of the variance. Satterthwaite
    weights by squared shares; where replicates differ much, his 95% intervals cover 91% and 93% with 2 and 3 of them,
    and 99% where the rest dominates. These cover 94 to 96% from 3 replicates on, and 91 to 95% with 2:
    benchmarks/interval_coverage.py.

    Args:
        scores: (replicates, items) float, at least two replicates.
        denominators: (items,), what an item's score is divided by, e.g. scored tokens where scores are nats: the
            estimate is then the mean over replicates of sum(scores) / sum(denominators), and items vary by
            their influence on it. None where each item counts once.
        confidence: level, e.g. 0.95.

    Returns:
        The estimate, its interval, and the p value of its being 0.

    Raises:
        ValueError: the shapes do not fit, there are fewer than two replicates, or a number is not finite.

    Source: Searle, Casella and McCulloch 1992, chapter 4, for the mean squares' expectations; Clark 1973 for items
    as a random factor; the degrees of freedom after Satterthwaite 1946.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] < 2 or scores.shape[1] < 1:
        raise ValueError(f"got scores of shape {scores.shape}, expected at least two replicates of one or more items")
    checked(scores.ravel(), "scores")
    replicates, items = scores.shape
    weights = np.ones(items) if denominators is None else checked(denominators, "denominators")
    if len(weights) != items:
        raise ValueError(f"got {items} items and {len(weights)} denominators")
    estimate = float(scores.sum() / (replicates * weights.sum()))
    # An item's influence on the ratio (the delta method); a row's mean is that replicate's own figure.
    linear = estimate + (scores - estimate * weights) / weights.mean()
    by_replicate, by_item = linear.mean(axis=1), linear.mean(axis=0)
    if items == 1:
        return nested_interval(by_replicate, confidence)
    rest = linear - by_replicate[:, None] - by_item + estimate
    degrees = replicates - 1, items - 1
    square_replicates = items * float(((by_replicate - estimate) ** 2).sum()) / degrees[0]
    square_items = replicates * float(((by_item - estimate) ** 2).sum()) / degrees[1]
    square_rest = float((rest**2).sum()) / (degrees[0] * degrees[1])
    parts = np.array([square_replicates, max(square_items - square_rest, 0.0)]) / (replicates * items)
    variance = float(parts.sum())
    freedom = variance / float((parts / degrees).sum()) if variance > 0 else float(degrees[0])
    return _student(estimate, variance, freedom, confidence, 0.0)


def _student(mean: float, variance: float, freedom: float, confidence: float, null: float) -> Estimate:
    return Estimate(mean, *student(mean, variance, freedom, confidence, null))
