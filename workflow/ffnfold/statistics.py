"""Intervals: bootstrap of means, ratios and medians, and Wilson's for proportions. Generators are passed in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import norm

CHUNK_ELEMENTS = 4_000_000


def _bootstrap(
    arrays: list[np.ndarray],
    statistic: Callable[..., np.ndarray],
    confidence: float,
    resamples: int,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Percentile bootstrap over items, in chunks that bound the memory; all arrays are resampled together."""
    n = len(arrays[0])
    estimates = []
    rows = max(1, min(resamples, CHUNK_ELEMENTS // n))
    for start in range(0, resamples, rows):
        picks = generator.integers(0, n, size=(min(rows, resamples - start), n))
        estimates.append(statistic(*(array[picks] for array in arrays)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(estimates), [tail, 1 - tail])
    return float(low), float(high)


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name}: got shape {values.shape}, expected a non-empty vector")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: {int((~np.isfinite(values)).sum())} of {values.size} values are not finite")
    return values


def mean_interval(
    values: np.ndarray, confidence: float, resamples: int, generator: np.random.Generator
) -> tuple[float, float, float]:
    """Mean of item scores and its percentile bootstrap interval.

    Args:
        values: (items,) float.
        confidence: level, e.g. 0.95.
        resamples: bootstrap resamples.

    Returns:
        mean, low, high; low <= mean <= high.

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    values = _checked(values, "values")
    centre = float(values.mean())
    low, high = _bootstrap([values], lambda v: v.mean(axis=1), confidence, resamples, generator)
    return centre, min(low, centre), max(high, centre)


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray, confidence: float, resamples: int, generator: np.random.Generator
) -> tuple[float, float, float]:
    """Ratio of sums, such as nats a token over windows of unequal length, and its percentile bootstrap interval.

    Args:
        numerators, denominators: (items,) float; an item's two numbers are resampled together.

    Returns:
        sum(numerators) / sum(denominators), low, high.
    """
    numerators, denominators = _checked(numerators, "numerators"), _checked(denominators, "denominators")
    if len(numerators) != len(denominators):
        raise ValueError(f"got {len(numerators)} numerators and {len(denominators)} denominators")
    centre = float(numerators.sum() / denominators.sum())
    low, high = _bootstrap(
        [numerators, denominators], lambda a, b: a.sum(axis=1) / b.sum(axis=1), confidence, resamples, generator
    )
    return centre, min(low, centre), max(high, centre)


def quantile_interval(
    values: np.ndarray, quantile: float, confidence: float, resamples: int, generator: np.random.Generator
) -> tuple[float, float, float]:
    """A quantile of the values (0.5 is the median) and its percentile bootstrap interval."""
    values = _checked(values, "values")
    centre = float(np.quantile(values, quantile))
    low, high = _bootstrap([values], lambda v: np.quantile(v, quantile, axis=1), confidence, resamples, generator)
    return centre, min(low, centre), max(high, centre)


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
