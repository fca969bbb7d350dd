"""The published figures, as a long table, and how to look one up."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from ffnfold.errors import InputError

COLUMNS = ("variant", "metric", "value", "unit")

#: The published names that differ from the value names in our records.
RENAMED = {"latency_ms": "latency_ms_median"}

#: What the published study reported, by our metric and value names.
PUBLISHED_VALUES = {
    "parameters": ("stored_parameters", "nonzero_parameters"),
    "perplexity": ("token_perplexity",),
    "latency": ("latency_ms_median", "speedup"),
    "sentiment": ("accuracy",),
    "summarization": ("rouge1", "rouge2", "rougeL"),
}

_KNOWN = {name for names in PUBLISHED_VALUES.values() for name in names}


def read_published(path: str | Path) -> pd.DataFrame:
    """Read and check the published figures.

    Args:
        path: a CSV file with the columns variant, metric, value, unit; one row per published figure.

    Returns:
        The rows with `metric` in our value names (`latency_ms` becomes `latency_ms_median`) and `value` as float64.

    Raises:
        InputError: the file is missing, or a column, a name or a value is not what it should be.
    """
    where = str(path)
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, comment="#")
    except FileNotFoundError:
        raise InputError(
            "the published figures are missing", where=where, remedy="restore the file or correct the path to it"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError("the published figures are not a readable CSV file", where=where, got=error) from None
    if tuple(frame.columns) != COLUMNS:
        raise InputError(
            "the published figures have other columns",
            where=where,
            got=", ".join(map(str, frame.columns)),
            expected=", ".join(COLUMNS),
        )
    frame["metric"] = frame["metric"].replace(RENAMED)
    for line, row in enumerate(frame.itertuples(index=False), start=2):
        _check_row(row, f"{where}, row {line}")
    double = frame.duplicated(["variant", "metric"])
    if double.any():
        row = frame[double].iloc[0]
        raise InputError(
            "a published figure is given twice",
            where=where,
            got=f"{row['variant']}, {row['metric']}",
            expected="one row for each variant and metric",
            remedy="remove one of the two rows",
        )
    frame["value"] = frame["value"].astype("float64")
    return frame


def _check_row(row, where: str) -> None:
    if not row.variant.strip():
        raise InputError("a published figure names no variant", where=where)
    if row.metric not in _KNOWN:
        known = sorted(_KNOWN - set(RENAMED.values()) | set(RENAMED))
        raise InputError("unknown published metric", where=where, got=row.metric, expected=", ".join(known))
    try:
        value = float(row.value)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        raise InputError(
            "a published figure is not a positive number",
            where=where,
            got=repr(row.value),
            expected="a number above 0",
            remedy="leave the row out if the figure was not published",
        )
    if not row.unit.strip():
        raise InputError("a published figure has no unit", where=where)


def published_value(published: pd.DataFrame, variant: str, name: str) -> float | None:
    """The published figure of one variant.

    Args:
        published: what `read_published` returned.
        variant: the variant's name, e.g. "merged_4".
        name: our value name, e.g. "token_perplexity"; `latency_ms` is understood too.

    Returns:
        The figure in the unit of the published table, or None where none was published.
    """
    name = RENAMED.get(name, name)
    rows = published[(published["variant"] == variant) & (published["metric"] == name)]
    return None if rows.empty else float(rows["value"].iloc[0])
