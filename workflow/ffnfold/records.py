"""The metric record: built, checked against its schema, written and read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from ffnfold.checkpoints import write_atomic, write_json
from ffnfold.errors import InputError
from ffnfold.settings import load_schema

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("parameters", "perplexity", "latency", "sentiment", "summarization")


@dataclass(frozen=True)
class Value:
    """One figure with its unit, its interval in the same unit, the items behind it, and how the interval was made."""

    value: float
    unit: str
    ci_low: float
    ci_high: float
    n: int
    ci_method: str


def exact(value: float, unit: str, n: int) -> Value:
    """A counted figure: its interval is the figure itself."""
    return Value(float(value), unit, float(value), float(value), n, "exact")


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(load_schema("metric"))


def check_record(record: Mapping[str, Any], where: str) -> None:
    """Check a record against the schema, and its figures for being finite and inside their intervals.

    Raises:
        InputError: what is wrong and where.
    """
    error = next(iter(_validator().iter_errors(record)), None)
    if error is not None:
        raise InputError(
            "a metric record does not fit its schema",
            where=f"{where}: {'.'.join(map(str, error.absolute_path)) or '(top level)'}",
            got=error.message,
            remedy="delete the file and run the workflow again",
        )
    for name, figure in record["values"].items():
        numbers = [figure["ci_low"], figure["value"], figure["ci_high"]]
        if not all(map(math.isfinite, numbers)) or not numbers[0] <= numbers[1] <= numbers[2]:
            raise InputError(
                "a figure is not finite or lies outside its interval",
                where=f"{where}: values.{name}",
                got=f"{numbers[1]} in [{numbers[0]}, {numbers[2]}]",
                remedy="see the log of the rule that wrote it: a model that diverged gives such figures",
            )


def write_record(path: Path, record: dict[str, Any], items: pd.DataFrame | None) -> None:
    """Write a record, and its per-item scores beside it as Parquet; both atomically, the scores first.

    Args:
        path: the JSON file; the scores go beside it with the suffix .parquet.
        record: as the schema describes it, `values` as `Value` objects; `items` is filled in here.
        items: one row for each item, or None.

    Raises:
        InputError: the record does not fit the schema.
    """
    items_path = path.with_suffix(".parquet")
    values = {name: asdict(figure) for name, figure in record["values"].items()}
    record = {**record, "schema_version": 1, "values": values, "items": None if items is None else items_path.name}
    check_record(record, str(path))
    if items is not None:
        write_atomic(items_path, items.to_parquet(index=False))
    write_json(path, record)


def read_items(path: Path, record: Mapping[str, Any]) -> pd.DataFrame | None:
    """The per-item scores beside a record that was read, None where it has none."""
    import pandas as pd

    return None if record["items"] is None else pd.read_parquet(Path(path).parent / record["items"])


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        InputError: it is not JSON, does not fit the schema, or its per-item scores are missing.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # not JSON, or not text at all
        raise InputError(
            "a metric record cannot be read",
            where=str(path),
            got=str(error),
            remedy="delete the file and run the workflow again",
        ) from error
    check_record(record, str(path))
    if record["items"] is not None and not (Path(path).parent / record["items"]).is_file():
        raise InputError(
            "the per-item scores of a record are missing",
            where=str(Path(path).parent / record["items"]),
            remedy="delete the record and run the workflow again",
        )
    return record
