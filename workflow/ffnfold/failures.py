"""Cells of a report that have no figure because their job failed: their words, and what is left to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ffnfold.summary import baseline_name
from ffnfold.tables import METRICS


def by_reason(failures: Sequence[Mapping], titles: Mapping[str, str]) -> list[dict]:
    """One entry for each reason, with the cells that it left empty.

    Args:
        failures: `variant`, `replicate`, `metric` and `reason` of each cell.
        titles: metric → its table's title.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    for cell in failures:
        who = f"{cell['variant']}, replicate {cell['replicate']}"
        groups.setdefault(cell["reason"], {}).setdefault(who, []).append(titles[cell["metric"]].lower())
    return [
        {"reason": reason, "cells": [f"{who}: {', '.join(metrics)}" for who, metrics in cells.items()]}
        for reason, cells in groups.items()
    ]


def complete_tables(tables: Mapping[str, pd.DataFrame], failures: Sequence[Mapping]) -> dict[str, pd.DataFrame]:
    """The tables without the variants that lack a figure anywhere; none where the baseline is among these.

    Args:
        tables: metric → table.
        failures: as for `by_reason`; none leaves all tables as they are.
    """
    if not failures:
        return dict(tables)
    lacking = {cell["variant"] for cell in failures}
    complete = {metric: table[~table["variant"].isin(lacking)] for metric, table in tables.items()}
    kept = all(baseline_name(table) is not None for table in complete.values())
    return complete if kept and set(complete) == set(METRICS) else {}


def failed_cells(failure: Mapping, columns: Sequence[Mapping]) -> list[dict]:
    """A row of a table that says `failed` in each of our columns and `not compared` in the published ones."""
    cells = []
    for column in columns:
        cells.append({"kind": "failed", "text": "failed", "note": ""})
        if column["published"]:
            cells.append({"kind": "absent", "text": "not compared", "note": ""})
    return cells
