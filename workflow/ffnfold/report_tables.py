"""The report's tables: every variant's figures, published ones, floors and how each compares; and the questions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pandas as pd

from ffnfold.failures import failed_cells
from ffnfold.floors import FLOORS
from ffnfold.formatting import UNITS, decimals, interval, is_exact, label, number, published, with_unit
from ffnfold.published import published_value
from ffnfold.summary import baseline_name
from ffnfold.tables import floors, models, value_names

TABLE_TITLES = {
    "parameters": "Parameters",
    "perplexity": "Perplexity",
    "latency": "Latency",
    "sentiment": "Sentiment",
    "summarization": "Summarization",
}
_NO_VERDICT = {"kind": "absent", "text": "–", "note": ""}


def table_context(
    metric: str,
    table: pd.DataFrame,
    published_figures: pd.DataFrame,
    records: Sequence[Mapping],
    links: Mapping,
    failures: Sequence[Mapping] = (),
    comparisons: pd.DataFrame | None = None,
) -> dict:
    """What the templates print of one metric's table.

    Args:
        table: from `tables.read_table`.
        records: every metric record; those of this metric give the protocol.
        links, failures, comparisons: as of `report.build_context`.
    """
    columns = [_column(models(table), name) for name in value_names(table)]
    baseline = baseline_name(table)
    against = _verdicts(metric, comparisons)
    rows = []
    for row in models(table).to_dict("records"):
        cells = []
        for column in columns:
            cells.append(_cell(row, column["name"], column["same_n"]))
            if column["published"]:
                cells.append(_published_cell(row["variant"], column["name"], published_figures))
        rows.append(
            {
                "variant": row["variant"],
                "method": row["method"],
                "is_baseline": row["variant"] == baseline,
                "cells": cells + [column["cells"].get(row["variant"], _NO_VERDICT) for column in against],
            }
        )
    for failure in (cell for cell in failures if cell["metric"] == metric):
        name = f"{failure['variant']}, replicate {failure['replicate']}"
        rows.append(
            {
                "variant": name,
                "method": str(failure["method"]),
                "is_baseline": False,
                "cells": failed_cells(failure, columns) + [_NO_VERDICT for _ in against],
            }
        )
    return {
        "id": metric,
        "title": TABLE_TITLES[metric],
        "columns": columns,
        "rows": rows,
        "verdicts": [column["label"] for column in against],
        "floors": [_floor_row(row, columns, len(against)) for row in floors(table).to_dict("records")],
        "has_published": any(column["published"] for column in columns),
        "csv": links.get(f"{metric}.csv"),
        "protocol": _protocol([record for record in records if record["metric"] == metric]),
    }


def _column(table: pd.DataFrame, name: str) -> dict:
    unit = str(table[f"{name}_unit"].iloc[0])
    same_n = table[f"{name}_n"].nunique() == 1
    exact = bool((table[f"{name}_ci_low"] == table[f"{name}_ci_high"]).all())
    parts = [{"F1": "F1, 0 to 1", "x": "×"}.get(unit, UNITS.get(unit) or unit)]
    if exact:
        parts.append("exact")
    elif same_n:
        parts.append(f"n\u00a0=\u00a0{int(table[f'{name}_n'].iloc[0]):,}")
    return {
        "name": name,
        "label": label(name),
        "note": ", ".join(parts),
        "published": f"{name}_published" in table.columns,
        "same_n": same_n,
        "exact": exact,
    }


def _cell(row: Mapping, name: str, same_n: bool) -> dict:
    value, low, high = (row[f"{name}{suffix}"] for suffix in ("", "_ci_low", "_ci_high"))
    exact = is_exact(low, high)
    note = "" if exact else interval(value, low, high)
    if not same_n and not exact:
        note += f", n\u00a0=\u00a0{int(row[f'{name}_n']):,}"
    return {"kind": "ours", "text": number(value, decimals(value, low, high)), "note": note}


def _published_cell(variant: str, name: str, published_figures: pd.DataFrame) -> dict:
    value = published_value(published_figures, variant, name)
    if value is not None:
        return {"kind": "published", "text": published(value, name), "note": ""}
    known = (published_figures["variant"] == variant).any()
    return {"kind": "absent", "text": "not published" if known else "not in that study", "note": ""}


def _floor_row(row: Mapping, columns: Sequence[Mapping], verdicts: int) -> dict:
    """What needs no language model, in the columns of the models."""
    cells = []
    for column in columns:
        measured = row[f"{column['name']}_unit"] != ""
        cells.append(_cell(row, column["name"], column["same_n"]) if measured else _absent("not measured"))
        if column["published"]:
            cells.append(_absent("not published"))
    return {"variant": FLOORS[row["variant"]].title, "method": row["method"], "cells": cells + [_NO_VERDICT] * verdicts}


def _absent(text: str) -> dict:
    return {"kind": "absent", "text": text, "note": ""}


def _verdicts(metric: str, comparisons: pd.DataFrame | None) -> list[dict]:
    """The columns that say how each variant compares, with the baseline and with the best floor."""
    if comparisons is None:
        return []
    columns = []
    titles = {"baseline": "Against the baseline", "floor": "Against no model"}
    for against, rows in comparisons[comparisons["metric"] == metric].groupby("against", sort=False):
        cells = {row["variant"]: _verdict(row) for row in rows.to_dict("records")}
        reference = rows["reference"].iloc[0]
        other = FLOORS[reference].title if against == "floor" else reference
        note = f"{label(rows['value_name'].iloc[0])}, {other}"
        columns.append({"label": {"title": titles[against], "note": note}, "cells": cells})
    return columns


def _verdict(row: Mapping) -> dict:
    words = row["verdict"].replace("beats the floor", "beats it").replace("does not beat the floor", "does not beat it")
    short = words.partition(" the ")[0].removesuffix(" than").removesuffix(" from")
    if row["estimate"] != row["estimate"]:
        return {"kind": "verdict", "text": short, "note": ""}
    places = decimals(row["estimate"], row["ci_low"], row["ci_high"])
    sign = "×\u00a0" if row["scale"] == "ratio" else "+" if row["estimate"] > 0 else ""
    note = f"{sign}{number(row['estimate'], places)} {interval(row['estimate'], row['ci_low'], row['ci_high'])}"
    return {"kind": "verdict", "text": short, "note": note}


def questions_context(answers: pd.DataFrame | None, links: Mapping) -> dict:
    """What the templates print of the study's questions.

    Args:
        answers: of `answers.read_answers`.
        links: as of `report.build_context`.

    Returns:
        `blocks`, one for each question: id, text, variant, against and rows; `covers`, a sentence on the intervals;
        `csv`, the table's address or None.
    """
    answers = pd.DataFrame() if answers is None else answers
    blocks = [
        {
            "id": name,
            "text": rows["text"].iloc[0],
            "variant": rows["variant"].iloc[0],
            "against": rows["reference"].iloc[0],
            "rows": [_answer_row(row) for row in rows.to_dict("records")],
        }
        for name, rows in (answers.groupby("question", sort=False) if len(answers) else ())
    ]
    several = len(answers) > 0 and bool((answers["replicates"] > 1).any())
    covers = (
        "They cover other items and other seeds of recovery and fine-tuning: the spread between replicates is in them."
        if several
        else "They cover other items alone: with one replicate the spread between seeds of recovery and fine-tuning is "
        "not in them."
    )
    return {"blocks": blocks, "covers": covers, "csv": links.get("questions.csv")}


def _answer_row(row: Mapping) -> dict:
    scale = row["scale"] + (", F1" if row["unit"] == "F1" else "")  # the other units stand beside the number
    cells = {"label": label(row["value_name"]), "scale": scale, "test": row["test"], "verdict": row["verdict"]}
    if row["estimate"] != row["estimate"]:
        return cells | dict.fromkeys(("estimate", "n", "replicates", "p"), "–") | {"interval": ""}
    value, low, high = (row[key] for key in ("estimate", "ci_low", "ci_high"))
    sign = "+" if row["scale"] == "difference" and value > 0 else ""
    counted = row["metric"] == "parameters"
    return cells | {
        "estimate": sign + with_unit(number(value, decimals(value, low, high)), row["unit"]),
        "interval": "exact" if counted and low == high else interval(value, low, high),
        "n": "–" if counted else f"{row['n']:,}",
        "replicates": str(row["replicates"]),
        "p": "–" if counted else "< 0.001" if row["p_holm"] < 0.001 else number(row["p_holm"], 3),
    }


def _protocol(records: Sequence[Mapping]) -> list[dict[str, str]]:
    """Every parameter of the protocol; one that differs between variants shows each value once."""
    seen: dict[str, list[str]] = {}
    for record in records:
        for key, value in _flatten(record["protocol"]):
            if value not in seen.setdefault(key, []):
                seen[key].append(value)
    return [
        {"name": key.replace("_", " ").replace(".", ": "), "value": " or ".join(values)} for key, values in seen.items()
    ]


def _flatten(value: Mapping, prefix: str = ""):
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flatten(item, f"{prefix}{key}.")
        elif isinstance(item, str):
            yield f"{prefix}{key}", item
        else:
            yield f"{prefix}{key}", json.dumps(item, ensure_ascii=False)
