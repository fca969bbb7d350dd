"""Variants compared with the baseline and with the best floor, on the same items, with corrected p values."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ffnfold.combination import BEFORE, RATES, check_same_items, from_rate, item_column, rate_factor, same_items
from ffnfold.errors import InputError
from ffnfold.files import write_atomic
from ffnfold.hypothesis_tests import (
    Estimate,
    accuracy_difference,
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
from ffnfold.statistics import FEW_ITEMS

#: The value that a metric's variants are compared by.
HEADLINES = {
    "perplexity": "token_perplexity",
    "latency": "latency_ms_median",
    "sentiment": "accuracy",
    "summarization": "rougeL",
}
LESS_IS_BETTER = frozenset({"perplexity", "latency"})
#: A bootstrap's p value is at least about 2 / resamples, and is then multiplied by the number of variants.
LEAST_RESAMPLES = 10_000
NOT_COMPARED = "other items or protocol: not compared"
_ITEMS = {"perplexity": "windows", "sentiment": "reviews", "summarization": "articles"}
WHOLE = ("n", "replicates")
NUMBERS = ("estimate", "ci_low", "ci_high", "p_value", "p_holm")
COLUMNS = (
    *("metric", "value_name", "variant", "reference", "against", "scale", "estimate", "ci_low", "ci_high", "unit"),
    *("n", "replicates", "test", "p_value", "p_holm", "verdict"),
)


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Args:
        name: of the variant or floor.
        records: its record of one metric for each replicate.
        items: each replicate's item scores, None where there are none.
        role: "variant", "baseline" (latency is timed beside it) or "floor" (one record holds for every replicate).
    """

    name: str
    records: Sequence[Mapping[str, Any]]
    items: Sequence[pd.DataFrame | None] = field(repr=False)
    role: str = "variant"


@dataclass(frozen=True)
class Comparison:
    """A variant against a reference: ratio (1 is no difference) or difference (0 is none), variant first."""

    metric: str
    value_name: str
    variant: str
    reference: str
    estimate: float
    scale: str
    unit: str
    ci_low: float
    ci_high: float
    p_value: float
    n: int
    replicates: int
    test: str


def scale_of(metric: str, value_name: str) -> tuple[str, str]:
    """How two figures are compared: ("ratio", "x"), or ("difference", unit).

    Raises:
        InputError: there is no comparison of that value.
    """
    if metric == "parameters" or (metric, value_name) == ("latency", "latency_ms_median"):
        return "ratio", "x"
    base = value_name.removesuffix(BEFORE)
    if metric == "perplexity" and base in RATES:
        return ("difference", "bits/byte") if base == "bits_per_byte" else ("ratio", "x")
    if (metric, value_name) == ("sentiment", "accuracy"):
        return "difference", "points"
    if metric == "summarization" and value_name.startswith("rouge"):
        return "difference", "F1"
    raise InputError(
        "this figure cannot be compared item by item",
        got=f"{metric}: {value_name}",
        expected=f"one of {', '.join(HEADLINES.values())}, {', '.join(RATES)}, a ROUGE, or any count of parameters",
    )


def compare(
    metric: str,
    value_name: str,
    variant: Side,
    reference: Side,
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> Comparison | None:
    """Compare two sides on the items that both were measured on.

    One replicate: bootstrap over the items' pairs (Student's t for few), for accuracy the exact McNemar test and the
    interval that inverts it. More: `crossed_interval` of the items' differences. Latency against the baseline: the
    ratio within the timed pairs of the variant's own frame, with the sign test; between two other variants the medians'
    ratio, unpaired; over replicates Student's interval of its logarithm. Parameters: the exact ratio.

    Args:
        metric, value_name: what is compared.
        variant, reference: replicates are matched by number; a floor's one record goes with each.
        statistics: confidence, resamples (at least LEAST_RESAMPLES are made).
        generator: for the bootstrap.

    Returns:
        The comparison; None where the pair cannot be compared: no replicate in common, no item scores, or other
        items, data or protocol on the two sides.

    Raises:
        InputError: the value has no comparison, or the replicates of one side were measured on different items.
    """
    scale, unit = scale_of(metric, value_name)
    statistics = {**statistics, "resamples": max(statistics["resamples"], LEAST_RESAMPLES)}
    if metric == "latency":
        found = _compare_latency(variant, reference, statistics, generator)
    else:
        pairs = _matched(variant, reference)
        if metric == "parameters":
            found = _compare_counts(value_name, pairs)
        else:
            found = _compare_scores(metric, value_name, pairs, statistics, generator)
    if found is None:
        return None
    estimate, n, replicates, test = found
    value, low, high, p_value = estimate
    return Comparison(
        metric, value_name, variant.name, reference.name, value, scale, unit, low, high, p_value, n, replicates, test
    )


_Found = tuple[Estimate, int, int, str] | None  # estimate, items, replicates, test in words
_Pair = tuple[tuple[Mapping[str, Any], pd.DataFrame | None], tuple[Mapping[str, Any], pd.DataFrame | None]]


def _matched(variant: Side, reference: Side) -> list[_Pair]:
    """Record and items of both sides for each replicate that both have."""
    sides = [
        {int(record["replicate"]): (record, frame) for record, frame in zip(side.records, side.items, strict=True)}
        for side in (variant, reference)
    ]
    for index, side in enumerate((variant, reference)):
        other = sides[1 - index]
        if side.role == "floor" and len(sides[index]) == 1:
            sides[index] = dict.fromkeys(other, next(iter(sides[index].values())))
    return [(sides[0][r], sides[1][r]) for r in sorted(sides[0]) if r in sides[1]]


def _compare_counts(value_name: str, pairs: Sequence[_Pair]) -> _Found:
    figures = [[record["values"].get(value_name) for record, _ in pair] for pair in pairs]
    if not figures or any(figure is None for pair in figures for figure in pair):
        return None
    ratios = [first["value"] / second["value"] for first, second in figures]
    middle = ratios[0] if len(set(ratios)) == 1 else float(np.mean(ratios))
    estimate = Estimate(middle, min(ratios), max(ratios), float(middle == 1))
    return estimate, figures[0][0]["n"], len(pairs), "exact count"


def _compare_scores(
    metric: str,
    value_name: str,
    pairs: Sequence[_Pair],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> _Found:
    """Perplexity, accuracy or ROUGE on shared items."""
    column = item_column(metric, value_name)
    frames = [[frame for _, frame in side] for side in zip(*pairs, strict=True)]
    if not pairs or any(frame is None or column not in frame for side in frames for frame in side):
        return None
    for side, records in zip(frames, zip(*pairs, strict=True), strict=True):
        check_same_items(metric, side, f"{metric} of {records[0][0].get('variant', 'a side')}")
    if not same_items(metric, frames[0][0], frames[1][0]) or _measured_otherwise(pairs):
        return None
    variant, reference = (np.stack([f[column].to_numpy(dtype=np.float64) for f in side]) for side in frames)
    scored = frames[0][0]["scored_tokens"].to_numpy(dtype=np.float64) if metric == "perplexity" else None
    estimate, test = _scores_differ(metric, variant, reference, scored, statistics, generator)
    if scored is not None:
        factor = _factor(value_name, pairs, (variant, reference), scored)
        if factor is None:
            return None
        numbers = (factor * number for number in estimate[:3])
        if not value_name.startswith("bits_per_byte"):
            numbers = (from_rate(value_name, number) for number in numbers)
        estimate = Estimate(*numbers, estimate.p_value)
    return estimate, variant.shape[1], len(pairs), test


def _scores_differ(
    metric: str,
    variant: np.ndarray,
    reference: np.ndarray,
    scored: np.ndarray | None,
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> tuple[Estimate, str]:
    """Difference of two arrays (replicates, items) of nats (`scored` given), correctness or ROUGE, and the test."""
    replicates, items = variant.shape
    level, resamples = statistics["confidence"], statistics["resamples"]
    if replicates > 1:
        scale = 100.0 if metric == "sentiment" else 1.0
        test = f"t test over {replicates} replicates and {items} {_ITEMS[metric]} (two-way random effects)"
        return crossed_interval(scale * (variant - reference), scored, level), test
    first, second = variant[0], reference[0]
    if metric == "sentiment":
        only_first, only_second, _ = mcnemar(first > 0, second > 0)
        test = f"exact McNemar, {only_first} reviews to {only_second}; interval of the two shares"
        return accuracy_difference(only_first, only_second, items, level), test
    over = f"over {items} {_ITEMS[metric]}"
    test = f"paired t test {over}" if items < FEW_ITEMS else f"paired bootstrap {over}, {resamples} resamples"
    if scored is not None:
        return paired_rate_difference(first, second, scored, level, resamples, generator), test
    return paired_mean_difference(first, second, level, resamples, generator), test


def _factor(
    value_name: str, pairs: Sequence[_Pair], nats: tuple[np.ndarray, np.ndarray], scored: np.ndarray
) -> float | None:
    """What nats a token are multiplied by to give the value or its logarithm; both sides read one text."""
    if value_name.removesuffix(BEFORE) == "token_perplexity":
        return 1.0
    factors = [
        rate_factor(value_name, pair[side][0]["values"][value_name]["value"], rate)
        for index, pair in enumerate(pairs)
        for side in (0, 1)
        if value_name in pair[side][0]["values"] and (rate := float(nats[side][index].sum() / scored.sum())) > 0
    ]
    return max(factors, default=None)


def _measured_otherwise(pairs: Sequence[_Pair]) -> bool:
    """Whether the sides' records name different data, or a setting that both have differs."""
    for (first, _), (second, _) in pairs:
        prints = [record["data"]["fingerprint"] for record in (first, second) if record.get("data")]
        mine, other = first.get("protocol", {}), second.get("protocol", {})
        if len(set(prints)) > 1 or any(mine[key] != other[key] for key in mine.keys() & other.keys()):
            return True
    return False


def _compare_latency(
    variant: Side, reference: Side, statistics: Mapping[str, Any], generator: np.random.Generator
) -> _Found:
    """Ratio of times: in timed pairs where one side is the baseline, else of the medians."""
    level, resamples = statistics["confidence"], statistics["resamples"]
    paired = "baseline" in (variant.role, reference.role)
    if paired:
        own = reference if variant.role == "baseline" else variant
        columns = ["variant_ms", "baseline_ms"] if own is variant else ["baseline_ms", "variant_ms"]
        frames = [(frame, frame) for frame in own.items]
    else:
        columns = ["variant_ms", "variant_ms"]
        pairs = _matched(variant, reference)
        frames = [] if _measured_otherwise(pairs) else [(first, second) for (_, first), (_, second) in pairs]
    if not frames or any(frame is None for pair in frames for frame in pair):
        return None
    times = [[f[c].to_numpy(dtype=np.float64) for f, c in zip(pair, columns, strict=True)] for pair in frames]
    n = min(len(t) for pair in times for t in pair)
    if len(times) > 1:
        ratios = [np.median(a / b) if paired else np.median(a) / np.median(b) for a, b in times]
        found = nested_interval(np.log(ratios), level)
        numbers = [math.exp(min(number, 700.0)) for number in found[:3]]
        return Estimate(*numbers, found.p_value), n, len(times), f"t test of log ratios over {len(times)} replicates"
    first, second = times[0]
    if not paired:
        test = f"unpaired bootstrap over {n} timings each, {resamples} resamples"
        return median_ratio(first, second, level, resamples, generator), n, 1, test
    faster, slower, p_value = sign_test(first, second)
    test = f"sign test, {faster} pairs to {slower}; interval by paired bootstrap, {resamples} resamples"
    estimate = paired_median_ratio(first, second, level, resamples, generator)
    return estimate._replace(p_value=p_value), n, 1, test


# --------------------------------------------------------------------------------------------------- the table


def comparison_table(
    sides: Mapping[str, Sequence[Side]],
    floors: Mapping[str, Sequence[Side]],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Each variant against the baseline, and each variant (the baseline too) against the metric's best floor.

    Every comparison starts from the same state of the generator, so a variant more or less changes no other row.

    Args:
        sides: metric -> the study's variants in order, one of them with the role "baseline".
        floors: metric -> its floors; the best by the headline value is the reference.
        statistics: confidence, resamples.
        generator: for the bootstrap; not advanced.

    Returns:
        Columns `COLUMNS`. `p_holm` is corrected within each metric and `against`. Numbers are empty only in rows
        that could not be compared.
    """
    rows: list[dict[str, Any]] = []
    for metric, value_name in HEADLINES.items():
        variants = sides.get(metric, ())
        baseline = next((side for side in variants if side.role == "baseline"), None)
        others = [side for side in variants if side is not baseline]
        families = {"baseline": (baseline, others), "floor": (best_floor(metric, floors.get(metric, ())), variants)}
        for against, (reference, members) in families.items():
            if reference is None:
                continue
            found = [
                compare(metric, value_name, side, reference, statistics, copy.deepcopy(generator)) for side in members
            ]
            corrected = iter(holm([comparison.p_value for comparison in found if comparison is not None]))
            for side, comparison in zip(members, found, strict=True):
                row = {"metric": metric, "value_name": value_name, "variant": side.name, "reference": reference.name}
                if comparison is None:
                    scale, unit = scale_of(metric, value_name)
                    row |= {"scale": scale, "unit": unit, "test": "none", "verdict": NOT_COMPARED}
                else:
                    p_holm = float(next(corrected))
                    verdict = _verdict(comparison, against, p_holm, 1 - statistics["confidence"])
                    row |= {**asdict(comparison), "p_holm": p_holm, "verdict": verdict}
                rows.append({**row, "against": against})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(NUMBERS, "float64") | dict.fromkeys(WHOLE, "Int64"))


def best_floor(metric: str, floors: Sequence[Side]) -> Side | None:
    """The floor with the best headline value (the mean of its records), None where there is none."""
    name = HEADLINES[metric]
    able = [side for side in floors if side.records and all(name in record["values"] for record in side.records)]
    sign = 1 if metric in LESS_IS_BETTER else -1
    return min(
        able,
        key=lambda side: sign * sum(record["values"][name]["value"] for record in side.records) / len(side.records),
        default=None,
    )


def _verdict(comparison: Comparison, against: str, p_holm: float, level: float) -> str:
    gain = comparison.estimate - (1 if comparison.scale == "ratio" else 0)
    better = gain < 0 if comparison.metric in LESS_IS_BETTER else gain > 0
    significant = p_holm < level
    if against == "floor":
        return "beats the floor" if significant and better else "does not beat the floor"
    if not significant:
        return "indistinguishable from the baseline"
    return f"{'better' if better else 'worse'} than the baseline"


def write_comparisons(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table of comparisons as CSV with every digit."""
    write_atomic(path, table.to_csv(index=False, lineterminator="\n").encode())


def read_comparisons(path: str | Path, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Read a table that `write_comparisons` wrote; empty numbers become NaN, texts stay texts.

    Raises:
        InputError: the file is missing or has other columns.
    """
    remedy = "delete the file and run the workflow again"
    try:
        table = pd.read_csv(
            path,
            dtype={c: str for c in columns if c not in NUMBERS} | dict.fromkeys(WHOLE, "Int64"),
            keep_default_na=False,
            na_values={column: [""] for column in (*NUMBERS, *WHOLE)},
        )
    except (OSError, ValueError) as error:
        raise InputError("the table of comparisons cannot be read", where=str(path), got=error, remedy=remedy) from None
    if tuple(table.columns) != tuple(columns):
        got, expected = ", ".join(table.columns), ", ".join(columns)
        what = "the table of comparisons has other columns"
        raise InputError(what, where=str(path), got=got, expected=expected, remedy=remedy)
    return table.astype(dict.fromkeys(NUMBERS, "float64"))
