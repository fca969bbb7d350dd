"""Intervals of means, ratios and medians by bootstrap or Student, and Wilson's. Generators are passed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import binom, norm
from scipy.stats import t as student_t

CHUNK_ELEMENTS = 4_000_000
#: With fewer items no resample reaches beyond them often enough: 95% intervals of a mean would cover 50% with 2 items
#: and 75% with 3. Means and ratios then take Student's interval.
FEW_ITEMS = 8


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
    so that the interval of a mean of normal items comes near Student's. With fewer than `FEW_ITEMS` it does not: no
    resample goes beyond the items.

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


def student(
    centre: float, variance: float, freedom: float, confidence: float, null: float = 0.0
) -> tuple[float, float, float]:
    """Ends of Student's interval and the two-sided p value; the interval excludes the null where p < 1 - confidence.

    Args:
        centre, variance: the estimate and its own variance; without any, p is 1 at the null and 0 elsewhere.
        freedom: degrees of freedom.
        confidence: level, e.g. 0.95.
        null: the value that means no difference.
    """
    error = variance**0.5
    half = float(student_t.isf((1 - confidence) / 2, freedom)) * error
    p_value = float(2 * student_t.sf(abs(centre - null) / error, freedom)) if error > 0 else float(centre == null)
    return centre - half, centre + half, p_value


def few_items(
    numerators: np.ndarray, denominators: np.ndarray | None, confidence: float
) -> tuple[float, float, float] | None:
    """Student's interval and p value (of 0) of a mean or ratio of fewer than `FEW_ITEMS` items, else None.

    Args:
        numerators: (items,) float.
        denominators: (items,) float: the estimate is sum(numerators) / sum(denominators), and items vary by their
            influence on it. None for the mean.
        confidence: level, e.g. 0.95.

    Returns:
        low, high, p value. One item alone shows no spread: no width, and p = 1.

    Source: Efron and Tibshirani 1993, chapters 12 (Student's interval) and 21 (influence, the delta method).
    """
    n = len(numerators)
    if n >= FEW_ITEMS:
        return None
    weights = np.ones(n) if denominators is None else denominators
    centre = float(numerators.sum() / weights.sum())
    if n < 2:
        return centre, centre, 1.0
    influence = (numerators - centre * weights) / weights.mean()
    return student(centre, float(influence.var(ddof=1)) / n, n - 1, confidence)


def checked(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name}: got shape {values.shape}, expected a non-empty vector")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: {int((~np.isfinite(values)).sum())} of {values.size} values are not finite")
    return values


def interval_words(n: int, items: str, resamples: int) -> str:
    """How `mean_interval` and `ratio_interval` make an interval of so many items, for the record."""
    if 1 < n < FEW_ITEMS:
        return f"Student's t over {n} {items}"
    return f"percentile bootstrap over {items}, {resamples} resamples"


def mean_interval(
    values: np.ndarray, confidence: float, resamples: int, generator: np.random.Generator
) -> tuple[float, float, float]:
    """Mean of item scores and its percentile bootstrap interval (expanded, as `percentile_bounds` says).

    Fewer than `FEW_ITEMS` get Student's interval, which may reach beyond the values a score can take.

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
    if few := few_items(values, None, confidence):
        return centre, *few[:2]
    estimates = resample([values], lambda v: v.mean(axis=1), resamples, generator)
    return centre, *percentile_bounds(estimates, centre, len(values), confidence)


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray, confidence: float, resamples: int, generator: np.random.Generator
) -> tuple[float, float, float]:
    """Ratio of sums, such as nats a token over windows of unequal length, and its percentile bootstrap interval.

    Fewer than `FEW_ITEMS` get Student's interval of their influence.

    Args:
        numerators, denominators: (items,) float; an item's two numbers are resampled together.

    Returns:
        sum(numerators) / sum(denominators), low, high.
    """
    numerators, denominators = checked(numerators, "numerators"), checked(denominators, "denominators")
    if len(numerators) != len(denominators):
        raise ValueError(f"got {len(numerators)} numerators and {len(denominators)} denominators")
    centre = float(numerators.sum() / denominators.sum())
    if few := few_items(numerators, denominators, confidence):
        return centre, *few[:2]
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
