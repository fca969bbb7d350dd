"""Metric records into one table per metric: our figures beside the published ones, and what needs no language model."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from ffnfold.combination import combine
from ffnfold.errors import InputError
from ffnfold.files import write_atomic
from ffnfold.published import PUBLISHED_VALUES, published_value

METRICS = ("parameters", "perplexity", "latency", "sentiment", "summarization")
FLOOR = "no model"  # the method of a row that needs no language model

_PERPLEXITIES = ("token_perplexity", "word_perplexity", "bits_per_byte")
_ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")

#: The columns of each table, in reading order; values a record holds beyond these follow in alphabetical order.
VALUE_NAMES = {
    "parameters": ("stored_parameters", "nonzero_parameters", "size_bytes", "flops_per_token"),
    "perplexity": (*_PERPLEXITIES, *(f"{name}_before_recovery" for name in _PERPLEXITIES)),
    "latency": (
        *("latency_ms_median", "latency_ms_p90", "latency_ms_memory_bound"),
        *("speedup", "generated_tokens_per_s", "generated_tokens"),
    ),
    "sentiment": ("accuracy",),
    "summarization": _ROUGES,
}

_REMEDY = "run the study again, so that the measurement is repeated"


def build_table(
    metric: str,
    records: Sequence[Mapping],
    published: pd.DataFrame,
    variants: Sequence[Mapping],
    failed: Collection[tuple[str, int]] = (),
    items: Mapping[tuple[str, int], pd.DataFrame] | None = None,
    floors: Sequence[Mapping] = (),
) -> pd.DataFrame:
    """One row per variant, in the study's order, its replicates combined; then one for each floor.

    Nothing is rounded here. For each value the columns are `<name>`, `<name>_ci_low`, `<name>_ci_high`, `<name>_n`,
    `<name>_unit` and, where the published study has that figure, `<name>_published` (empty where it does not give it
    for the variant).

    Args:
        metric: one of `METRICS`.
        records: metric records; those of other metrics are passed over.
        published: what `published.read_published` returned.
        variants: the study's variants in order, each with `name` and `method`.
        failed: variant and replicate of measurements that failed; the others of the variant are combined.
        items: variant and replicate → item scores; without them replicates are combined by their figures alone.
        floors: records of what needs no language model, `variant` being the floor's name.

    Returns:
        The table, columns variant, method, replicates (how many), then those above. A floor has no cell for a value
        that it does not measure.

    Raises:
        InputError: a record is missing, given twice, of an unknown variant, incomplete, or holds a value that is
            not a finite number.
    """
    by_variant = _measured(metric, records, variants, failed)
    names = _value_names(metric, [record for found in by_variant.values() for record in found.values()])
    rows = []
    for variant in variants:
        found = by_variant[variant["name"]]
        if not found:
            continue
        for record in found.values():
            _check_values(metric, record, names)
        scores = [(items or {}).get((variant["name"], replicate)) for replicate in found]
        values = {name: asdict(value) for name, value in combine(metric, list(found.values()), scores).items()}
        row = {"variant": variant["name"], "method": variant["method"], "replicates": len(found)}
        for name in names:
            row |= _cells(name, values[name])
            if name in PUBLISHED_VALUES[metric]:
                value = published_value(published, variant["name"], name)
                row[f"{name}_published"] = math.nan if value is None else value
        rows.append(row)
    for record in floors:
        row = {"variant": record["variant"], "method": FLOOR, "replicates": 1}
        for name in names:
            row |= _cells(name, record["values"].get(name))
        rows.append(row)
    return pd.DataFrame(rows)


def replicate_table(metric: str, records: Sequence[Mapping], variants: Sequence[Mapping]) -> pd.DataFrame:
    """One row per variant and replicate, in the study's order, none of them combined.

    Args and errors: as of `build_table`.

    Returns:
        Columns variant, method, replicate, then for each value its figure, interval, n and unit.
    """
    by_variant = _measured(metric, records, variants, ())
    names = _value_names(metric, [record for found in by_variant.values() for record in found.values()])
    rows = []
    for variant in variants:
        for replicate, record in by_variant[variant["name"]].items():
            _check_values(metric, record, names)
            row = {"variant": variant["name"], "method": variant["method"], "replicate": replicate}
            for name in names:
                row |= _cells(name, record["values"][name])
            rows.append(row)
    return pd.DataFrame(rows)


def models(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that are models."""
    return table[table["method"] != FLOOR]


def floors(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that need no language model."""
    return table[table["method"] == FLOOR]


def _measured(
    metric: str, records: Sequence[Mapping], variants: Sequence[Mapping], failed: Collection[tuple[str, int]]
) -> dict[str, dict[int, Mapping]]:
    """Variant → replicate → record, complete but for what failed."""
    if metric not in METRICS:
        raise InputError("unknown metric", got=metric, expected=", ".join(METRICS))
    by_key = _index_records(metric, records, [variant["name"] for variant in variants])
    replicates = sorted({replicate for _, replicate in by_key}) or [0]
    measured: dict[str, dict[int, Mapping]] = {}
    for variant in variants:
        found = measured.setdefault(variant["name"], {})
        for replicate in replicates:
            key = (variant["name"], replicate)
            if key in by_key:
                found[replicate] = by_key[key]
            elif key not in failed:
                raise InputError(
                    f"the {metric} table lacks a record",
                    where=f"variant {variant['name']}, replicate {replicate}",
                    got=f"{len(by_key)} records",
                    expected=f"{len(variants)} variants x {len(replicates)} replicates",
                    remedy=_REMEDY,
                )
    return measured


def _index_records(metric: str, records: Sequence[Mapping], known: Sequence[str]) -> dict[tuple[str, int], Mapping]:
    by_key: dict[tuple[str, int], Mapping] = {}
    for record in records:
        if record["metric"] != metric:
            continue
        key = (record["variant"], int(record["replicate"]))
        where = f"{metric} record of variant {key[0]}, replicate {key[1]}"
        if key[0] not in known:
            raise InputError("a record names an unknown variant", where=where, expected=", ".join(known))
        if key in by_key:
            raise InputError("two records measure the same thing", where=where, remedy="pass each record once")
        by_key[key] = record
    return by_key


def _value_names(metric: str, records) -> list[str]:
    extra = {name for record in records for name in record["values"]} - set(VALUE_NAMES[metric])
    return [*VALUE_NAMES[metric], *sorted(extra)]


def _check_values(metric: str, record: Mapping, names: Sequence[str]) -> None:
    for name in names:
        where = f"{metric} record of variant {record['variant']}, replicate {record['replicate']}, value {name}"
        entry = record["values"].get(name)
        if entry is None:
            raise InputError("a record lacks a value", where=where, expected=f"the value {name}", remedy=_REMEDY)
        for value in (entry["value"], entry["ci_low"], entry["ci_high"]):
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise InputError(
                    "a record holds a value that is not a finite number",
                    where=where,
                    got=value,
                    expected="a finite value with a finite interval",
                    remedy="if training diverged, lower its learning rate in the study; " + _REMEDY,
                )


def _cells(name: str, entry: Mapping | None) -> dict[str, object]:
    """A value's columns; empty where a floor has no such value."""
    if entry is None:
        return {f"{name}{suffix}": math.nan for suffix in ("", "_ci_low", "_ci_high", "_n")} | {f"{name}_unit": ""}
    numbers = {"": entry["value"], "_ci_low": entry["ci_low"], "_ci_high": entry["ci_high"]}
    cells: dict[str, object] = {f"{name}{suffix}": float(value) for suffix, value in numbers.items()}
    return cells | {f"{name}_n": int(entry["n"]), f"{name}_unit": str(entry["unit"])}


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table as CSV with every digit; whole numbers are written without a decimal point."""
    out = table.copy()
    for column in out.select_dtypes("float64"):
        if column.endswith(("_published", "_n")) or column.rsplit("_ci_", 1)[0].endswith(
            ("_parameters", "_bytes", "_token")
        ):
            values = out[column]
            if (values.dropna() % 1 == 0).all():
                out[column] = values.astype("Int64")
    write_atomic(path, out.to_csv(index=False, lineterminator="\n").encode())


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote; empty cells become NaN, names and units stay text."""
    table = pd.read_csv(path, dtype={"variant": str, "method": str}, keep_default_na=False, na_values=[""])
    numeric = table.select_dtypes("number").columns.difference(["replicate", "replicates"])
    whole = [column for column in numeric if column.endswith("_n")]
    floats = [column for column in numeric if column not in whole]
    units = {column: "" for column in table.columns if column.endswith("_unit")}
    return table.astype(dict.fromkeys(floats, "float64")).fillna(units)


def value_names(table: pd.DataFrame) -> list[str]:
    """The value names of a table, in column order."""
    return [column.removesuffix("_ci_low") for column in table.columns if column.endswith("_ci_low")]
