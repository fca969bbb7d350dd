"""Intervals: bootstrap of means, ratios and medians, and Wilson's for proportions. Generators are passed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import binom, norm
from scipy.stats import t as student_t

CHUNK_ELEMENTS = 4_000_000


def resample(
    arrays: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """A statistic of resampled items, in chunks that bound the memory; all arrays are resampled together.

    Args:
        arrays: (items,) each.
        statistic: takes an array (rows, items) for each of them and returns (rows,).
        resamples: how often items are drawn with replacement.

    Returns:
        (resamples,) float64.
    """
    n = len(arrays[0])
    estimates = []
    rows = max(1, min(resamples, CHUNK_ELEMENTS // n))
    for start in range(0, resamples, rows):
        picks = generator.integers(0, n, size=(min(rows, resamples - start), n))
        estimates.append(statistic(*(array[picks] for array in arrays)))
    return np.concatenate(estimates)


def percentile_bounds(estimates: np.ndarray, centre: float, n: int | None, confidence: float) -> tuple[float, float]:
    """Ends of the expanded percentile interval; they always enclose the estimate.

    The plain percentiles are too narrow by sqrt((n - 1) / n) and take normal quantiles for t's; the tails are chosen
    so that the interval of a mean of normal items becomes Student's.

    Args:
        estimates: (resamples,) from `resample`.
        centre: the estimate from the items themselves.
        n: items; None leaves the percentiles as they are.
        confidence: level, e.g. 0.95.

    Source: Efron and Tibshirani 1993, chapter 13; expanded after Hesterberg 2014 (arXiv 1411.5279).
    """
    tail = (1 - confidence) / 2
    if n is not None and n > 1:
        tail = float(norm.sf(np.sqrt(n / (n - 1)) * student_t.isf(tail, n - 1)))
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return min(float(low), centre), max(float(high), centre)


def checked(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name}: got shape {values.shape}, expected a non-empty vector")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: {int((~np.isfinite(values)).sum())} of {values.size} values are not finite")
    return values


def mean_interval(
    values: np.ndarray, confidence: float, resamples: int, generator: np.random.Generator
) -> tuple[float, float, float]:
    """Mean of item scores and its percentile bootstrap interval (expanded, as `percentile_bounds` says).

    Args:
        values: (items,) float.
        confidence: level, e.g. 0.95.
        resamples: bootstrap resamples.

    Returns:
        mean, low, high; low <= mean <= high.

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    values = checked(values, "values")
    centre = float(values.mean())
    estimates = resample([values], lambda v: v.mean(axis=1), resamples, generator)
    return centre, *percentile_bounds(estimates, centre, len(values), confidence)


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray, confidence: float, resamples: int, generator: np.random.Generator
) -> tuple[float, float, float]:
    """Ratio of sums, such as nats a token over windows of unequal length, and its percentile bootstrap interval.

    Args:
        numerators, denominators: (items,) float; an item's two numbers are resampled together.

    Returns:
        sum(numerators) / sum(denominators), low, high.
    """
    numerators, denominators = checked(numerators, "numerators"), checked(denominators, "denominators")
    if len(numerators) != len(denominators):
        raise ValueError(f"got {len(numerators)} numerators and {len(denominators)} denominators")
    centre = float(numerators.sum() / denominators.sum())
    estimates = resample([numerators, denominators], lambda a, b: a.sum(axis=1) / b.sum(axis=1), resamples, generator)
    return centre, *percentile_bounds(estimates, centre, len(numerators), confidence)


def quantile_interval(
    values: np.ndarray, quantile: float, confidence: float, resamples: int, generator: np.random.Generator
) -> tuple[float, float, float]:
    """A quantile of the values (0.5 is the median) and its percentile bootstrap interval.

    For quantiles near the median; no resample goes beyond the largest value, so farther out it covers too rarely
    (`order_interval`).
    """
    values = checked(values, "values")
    centre = float(np.quantile(values, quantile))
    estimates = resample([values], lambda v: np.quantile(v, quantile, axis=1), resamples, generator)
    return centre, *percentile_bounds(estimates, centre, len(values), confidence)


def order_interval(values: np.ndarray, quantile: float, confidence: float) -> tuple[float, float, float, bool]:
    """A quantile of the values and an interval between two of them, whatever their distribution.

    The number of values below the true quantile is binomial. With few values all of them lie below it too often for any
    upper limit (for the 90th percentile at 95%: fewer than 36 values); then the largest stands in.

    Returns:
        quantile, low, high, and whether the interval has both its limits.

    Source: Conover 1999, Practical Nonparametric Statistics, section 3.2.
    """
    values = np.sort(checked(values, "values"))
    n, tail = len(values), (1 - confidence) / 2
    # With B values below the true one: P(B < lower) <= tail, and P(B >= upper) <= tail; both count from 1.
    below = binom.cdf(np.arange(n + 1), n, quantile)
    lower = int(np.searchsorted(below, tail, side="right"))
    upper = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    centre = float(np.quantile(values, quantile))
    low, high = float(values[max(lower - 1, 0)]), float(values[min(upper, n) - 1])
    return centre, min(low, centre), max(high, centre), lower >= 1 and upper <= n


def wilson_interval(successes: int, n: int, confidence: float) -> tuple[float, float, float]:
    """A proportion and its Wilson score interval.

    Raises:
        ValueError: n is below 1, or the successes are not between 0 and n.

    Source: Wilson 1927; Brown, Cai and DasGupta 2001, section 3.1.1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"got {successes} successes of {n}, expected 0 <= successes <= n and n >= 1")
    z = float(norm.ppf(1 - (1 - confidence) / 2))
    share = successes / n
    scale = 1 + z**2 / n
    centre = (share + z**2 / (2 * n)) / scale
    half = z / scale * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return share, max(0.0, min(share, float(centre - half))), min(1.0, max(share, float(centre + half)))
