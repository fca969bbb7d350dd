"""One variant's figures over its replicates: the mean, with an interval for other replicates and other items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ffnfold.errors import InputError
from ffnfold.hypothesis_tests import crossed_interval, nested_interval
from ffnfold.records import Value

#: The columns by which a metric's items are known: equal in two frames, they are the same items in the same order.
IDENTITY = {
    "perplexity": ("start_token", "scored_tokens"),
    "sentiment": ("id",),
    "summarization": ("id",),
}
BEFORE = "_before_recovery"
RATES = ("token_perplexity", "word_perplexity", "bits_per_byte")  # monotone functions of nats a token
_LIMITS = {"latency": (0.0, math.inf), "sentiment": (0.0, 100.0), "summarization": (0.0, 1.0)}


def combine(
    metric: str, records: Sequence[Mapping[str, Any]], items: Sequence[pd.DataFrame | None], confidence: float = 0.95
) -> dict[str, Value]:
    """The figures of one variant over its replicates.

    One replicate keeps its record's figures, and so do replicates that are all alike (counts, or what nothing random
    made). Else: perplexity, accuracy and ROUGE get the mean with `crossed_interval`, since replicates share their
    items; perplexity's mean is that of nats a token, so the geometric one. Latency, and figures whose items are not
    known, get the mean with `nested_interval`. Parameters that differ get their mean and range.

    Args:
        metric: one of `records.METRICS`.
        records: its record for each replicate, `values` as mappings.
        items: each replicate's item scores, None where there are none.
        confidence: level of the records' intervals.

    Returns:
        Value name -> figure; n is the number of items of one replicate.

    Raises:
        InputError: there are no records, a replicate lacks a value or items, or replicates have other items.
    """
    check_replicates(metric, records, items)
    names = list(records[0]["values"])
    own = {name: [Value(**record["values"][name]) for record in records] for name in names}
    if len(records) == 1:
        return {name: values[0] for name, values in own.items()}
    frames = [frame for frame in items if frame is not None] if metric in IDENTITY else []
    if len(frames) > 1:
        check_same_items(metric, frames, f"{metric} of {records[0].get('variant', 'a variant')}")
    return {name: _combined(metric, name, own[name], frames, confidence) for name in names}


def check_replicates(metric: str, records: Sequence[Mapping[str, Any]], items: Sequence[pd.DataFrame | None]) -> None:
    """Refuse replicates that do not hold the same.

    Raises:
        InputError: there are no records, other numbers of records and items, or a replicate lacks a value or items.
    """
    where = f"{metric} of {records[0].get('variant', 'a variant') if records else 'a variant'}"
    if not records or len(items) != len(records):
        raise InputError(
            "replicates without records, or without a place for their items",
            where=where,
            got=f"{len(records)} records and {len(items)} tables of items",
            expected="one of each for every replicate",
        )
    wanted = set(records[0]["values"])
    for index, record in enumerate(records):
        if set(record["values"]) != wanted or (items[index] is None) != (items[0] is None):
            raise InputError(
                "the replicates of a variant do not hold the same figures",
                where=f"{where}, replicate {record.get('replicate', index)}",
                got=", ".join(sorted(record["values"])) + (", no items" if items[index] is None else ""),
                expected=", ".join(sorted(wanted)) + (", no items" if items[0] is None else ""),
                remedy="run the study again, so that the measurement is repeated",
            )


def same_items(metric: str, first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Whether two frames hold the same items in the same order."""
    columns = list(IDENTITY[metric])
    if any(column not in frame for frame in (first, second) for column in columns):
        return False
    return len(first) == len(second) and all(
        np.array_equal(first[column].to_numpy(), second[column].to_numpy()) for column in columns
    )


def check_same_items(metric: str, frames: Sequence[pd.DataFrame], where: str) -> None:
    """Refuse replicates that were measured on other items.

    Raises:
        InputError: the first frame's items are not those of each other frame.
    """
    for index, frame in enumerate(frames[1:], start=1):
        if not same_items(metric, frames[0], frame):
            raise InputError(
                "replicates were measured on other items, or on the same in another order",
                where=f"{where}, table {index} of {len(frames)}",
                got=f"{len(frame)} items",
                expected=f"the {len(frames[0])} items of the first, equal in {', '.join(IDENTITY[metric])}",
                remedy="run the study again, so that the measurement is repeated",
            )


def item_column(metric: str, name: str) -> str:
    """The items' column that a value is the mean of; for perplexity the nats."""
    if metric == "perplexity":
        return f"nats{BEFORE if name.endswith(BEFORE) else ''}"
    return "correct" if metric == "sentiment" else name


def rate_factor(name: str, value: float, rate: float) -> float:
    """What a rate (nats a token) is multiplied by to give a figure, or the logarithm of one that is a perplexity."""
    return (value if name.removesuffix(BEFORE) == "bits_per_byte" else math.log(value)) / rate


def from_rate(name: str, scaled_rate: float) -> float:
    """A figure from its rate times `rate_factor`; perplexities stay finite, as in `metrics.perplexity`."""
    return scaled_rate if name.removesuffix(BEFORE) == "bits_per_byte" else math.exp(min(scaled_rate, 700.0))


def _combined(metric: str, name: str, own: Sequence[Value], frames: Sequence[pd.DataFrame], confidence: float) -> Value:
    count, first = len(own), own[0]
    column = item_column(metric, name)
    scores = np.stack([frame[column].to_numpy(dtype=np.float64) for frame in frames]) if _has(frames, column) else None
    values = np.array([value.value for value in own])
    if len(set(own)) == 1 and (scores is None or (scores == scores[0]).all()):
        return replace(first, ci_method=f"{first.ci_method}; the same in {count} replicates")
    if metric == "parameters":
        method = f"not equal in {count} replicates: their mean, lowest and highest"
        return Value(float(values.mean()), first.unit, float(values.min()), float(values.max()), first.n, method)
    crossed = f"t interval over {count} replicates and {first.n} items (two-way random effects)"
    if metric == "perplexity" and name.removesuffix(BEFORE) in RATES and scores is not None:
        scored = frames[0]["scored_tokens"].to_numpy(dtype=np.float64)
        rates = scores.sum(axis=1) / scored.sum()
        if rates.min() > 0:
            # The largest: a figure that was cut at exp(700) gives less than the factor.
            factor = max(rate_factor(name, value, rate) for value, rate in zip(values, rates, strict=True))
            middle, low, high = (from_rate(name, factor * x) for x in crossed_interval(scores, scored, confidence)[:3])
            return Value(middle, first.unit, low, high, len(scored), crossed)
    least, most = _LIMITS.get(metric, (-math.inf, math.inf))
    if metric in ("sentiment", "summarization") and scores is not None:
        scale = 100.0 if metric == "sentiment" else 1.0
        found, method = crossed_interval(scale * scores, None, confidence), crossed
    else:
        found, method = nested_interval(values, confidence), f"t interval over {count} replicates"
    return Value(found.value, first.unit, max(least, found.low), min(most, found.high), first.n, method)


def _has(frames: Sequence[pd.DataFrame], column: str) -> bool:
    return bool(frames) and all(column in frame for frame in frames)
