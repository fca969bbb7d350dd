"""The report: tables, figures and records into a finished context, and the context into one HTML page."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence

import pandas as pd

from ffnfold.failures import by_reason, complete_tables, failed_cells
from ffnfold.figures import bounds_by_task, token_perplexity_floor
from ffnfold.formatting import (
    UNITS,
    decimals,
    duration,
    figure,
    interval,
    is_exact,
    label,
    moment,
    number,
    published,
    with_unit,
)
from ffnfold.provenance import collect_provenance
from ffnfold.published import published_value
from ffnfold.summary import baseline_name, findings, pool_replicates, shown
from ffnfold.tables import METRICS, value_names

TABLE_TITLES = {
    "parameters": "Parameters",
    "perplexity": "Perplexity",
    "latency": "Latency",
    "sentiment": "Sentiment",
    "summarization": "Summarization",
}
FIGURE_TITLES = {
    "perplexity_vs_parameters": "Token perplexity against size",
    "recovery": "Token perplexity before and after recovery",
    "latency": "Latency of one generation",
    "sentiment": "Sentiment accuracy",
    "summarization": "ROUGE-L of the summaries",
}
#: The values a figure draws, for its text alternative: table, value name.
_DRAWN = {
    "perplexity_vs_parameters": ("perplexity", "token_perplexity"),
    "recovery": ("perplexity", "token_perplexity_before_recovery"),
    "latency": ("latency", "latency_ms_median"),
    "sentiment": ("sentiment", "accuracy"),
    "summarization": ("summarization", "rougeL"),
}
#: The figure of ours that a known bound limits: task, bound → table, value name, more is better.
_BOUNDED = {
    ("language_modeling", "entropy_bits_per_byte"): ("perplexity", "bits_per_byte", False),
    ("sentiment", "accuracy_ceiling"): ("sentiment", "accuracy", True),
}


def build_context(
    *,
    study: Mapping,
    records: Sequence[Mapping],
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, bytes],
    published_figures: pd.DataFrame,
    dataset_infos: Sequence[Mapping],
    links: Mapping[str, str],
    failures: Sequence[Mapping] = (),
) -> dict:
    """Everything the templates print, already worded and formatted.

    Args:
        study: `name`, `description`, `seed` and `comparable`: whether base and data are those of the published study.
        records: every metric record.
        tables: metric → table from `tables.read_table`; the ones present are reported.
        figures: figure → SVG file.
        published_figures: what `published.read_published` returned.
        dataset_infos: the dataset_info of each task.
        links: file name → address relative to the report.
        failures: the cells without a figure, each with `variant`, `method`, `replicate`, `metric` and `reason`.

    Returns:
        Plain strings, lists and dicts. Nothing is escaped: the templates do that.
    """
    present = [metric for metric in METRICS if metric in tables]
    bounds = bounds_by_task(dataset_infos)
    return {
        "title": f"Merged and shared feed-forward networks: study “{study['name']}”",
        "study": {
            "name": str(study["name"]),
            "description": str(study.get("description", "")),
            "seed": str(study.get("seed", "not given")),
        },
        "comparable": _comparable(study),
        "scope": _scope(tables, published_figures),
        "failures": by_reason(failures, TABLE_TITLES),
        "findings": findings(complete_tables(tables, failures)),
        "tables": [_table(metric, tables[metric], published_figures, records, links, failures) for metric in present],
        "figures": [_figure(name, figures[name], tables) for name in FIGURE_TITLES if name in figures],
        "bounds": _bounds(dataset_infos, bounds, tables),
        "provenance": _provenance(collect_provenance(study, records, dataset_infos, {})),
        "links": [{"name": name, "href": href} for name, href in links.items()],
    }


def _comparable(study: Mapping) -> dict:
    name = study["name"]
    if study.get("comparable", False):
        return {
            "flag": True,
            "heading": "Same models and data as the published study, other protocol",
            "text": f"The study “{name}” starts from the published study's checkpoints and data sets. Where our "
            "figures and the published ones differ, the protocol differs too: under each table it says how the "
            "published figure was obtained.",
        }
    return {
        "flag": False,
        "heading": "Not comparable with the published figures",
        "text": f"The study “{name}” uses neither the published GPT-2 weights nor all of its data. The published GPT-2 "
        "figures stand beside ours to show which quantity was reported and in which order its variants came; the "
        "numbers themselves cannot be compared.",
    }


def _scope(tables: Mapping[str, pd.DataFrame], published_figures: pd.DataFrame) -> str:
    table = next(iter(tables.values()))
    variants, replicates = table["variant"].nunique(), table["replicate"].nunique()
    text = f"{variants} variants, {len(tables)} metrics"
    text += f", {replicates} replicates each" if replicates > 1 else ", one replicate each"
    return f"{text}; {len(published_figures)} published figures beside ours"


def _table(
    metric: str,
    table: pd.DataFrame,
    published_figures: pd.DataFrame,
    records: Sequence[Mapping],
    links: Mapping,
    failures: Sequence[Mapping] = (),
) -> dict:
    names = value_names(table)
    lead3 = [name for name in names if name.startswith("lead3_")]
    if any(table[name].nunique() > 1 for name in lead3):
        lead3 = []  # not the same articles for every variant: keep them as columns
    names = [name for name in names if name not in lead3]
    replicated = table["replicate"].nunique() > 1
    columns = [_column(table, name) for name in names]
    baseline = baseline_name(table)
    rows = []
    for row in table.to_dict("records"):
        cells = []
        for column in columns:
            cells.append(_cell(row, column["name"], column["same_n"]))
            if column["published"]:
                cells.append(_published_cell(row["variant"], column["name"], published_figures))
        rows.append(
            {
                "variant": row["variant"],
                "method": row["method"],
                "replicate": str(row["replicate"]),
                "is_baseline": row["variant"] == baseline,
                "cells": cells,
            }
        )
    for failure in (cell for cell in failures if cell["metric"] == metric):
        names = {key: str(failure[key]) for key in ("variant", "method", "replicate")}
        rows.append({**names, "is_baseline": False, "cells": failed_cells(failure, columns)})
    return {
        "id": metric,
        "title": TABLE_TITLES[metric],
        "columns": columns,
        "rows": rows,
        "replicated": replicated,
        "reference": _lead3_row(table.iloc[0], columns, lead3),
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


def _lead3_row(row: pd.Series, columns: Sequence[Mapping], lead3: Sequence[str]) -> dict | None:
    if not lead3:
        return None
    cells = []
    for column in columns:
        name = f"lead3_{column['name']}"
        cells.append(
            _cell(row, name, column["same_n"])
            if name in lead3
            else {"kind": "absent", "text": "not measured", "note": ""}
        )
        if column["published"]:
            cells.append({"kind": "absent", "text": "not published", "note": ""})
    return {"variant": "lead-3", "method": "no model", "cells": cells}


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


def _figure(name: str, svg: bytes, tables: Mapping[str, pd.DataFrame]) -> dict:
    metric, value = _DRAWN[name]
    pooled = pool_replicates(tables[metric], value)
    low, high = pooled["value"].idxmin(), pooled["value"].idxmax()
    what = {"recovery": "before recovery"}.get(name, "")
    alt = (
        f"{FIGURE_TITLES[name]} for {len(pooled)} variants with 95% intervals. Lowest {what}".rstrip()
        + f": {low}, {shown(pooled.loc[low])}. Highest: {high}, {shown(pooled.loc[high])}. The numbers are in the "
        f"table {TABLE_TITLES[metric]}."
    )
    return {
        "id": name,
        "title": FIGURE_TITLES[name],
        "src": "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii"),
        "alt": alt,
    }


def _bounds(dataset_infos: Sequence[Mapping], bounds: Mapping, tables: Mapping[str, pd.DataFrame]) -> list[dict]:
    rows = []
    for info in dataset_infos:
        for name, bound in bounds[info["task"]].items():
            value = with_unit(number(bound["value"]), bound["unit"])
            closest = _closest(tables, *_BOUNDED.get((info["task"], name), (None, "", False)))
            rows.append(
                {
                    "name": name.replace("_", " ").capitalize(),
                    "value": value,
                    "meaning": bound["meaning"],
                    "ours": closest,
                }
            )
    floor = token_perplexity_floor(tables["perplexity"], bounds) if "perplexity" in tables else None
    if floor is not None:
        rows.append(
            {
                "name": "Entropy as token perplexity",
                "value": f"about {number(floor, 2)}",
                "meaning": "The entropy above, converted with this study's own bytes per token.",
                "ours": _closest(tables, "perplexity", "token_perplexity", False),
            }
        )
    if "summarization" in tables:
        row = tables["summarization"].iloc[0]
        triple = (row["lead3_rougeL"], row["lead3_rougeL_ci_low"], row["lead3_rougeL_ci_high"])
        rows.append(
            {
                "name": "ROUGE-L of lead-3",
                "value": figure(*triple, int(row["lead3_rougeL_n"]), "F1"),
                "meaning": "The article's first three sentences as the summary; no model. A reference, not a bound.",
                "ours": _closest(tables, "summarization", "rougeL", True),
            }
        )
    return rows


def _closest(tables: Mapping[str, pd.DataFrame], metric: str | None, name: str, more_is_better: bool) -> str:
    if metric not in tables:
        return "no figure of ours is limited by it"
    pooled = pool_replicates(tables[metric], name)
    best = pooled["value"].idxmax() if more_is_better else pooled["value"].idxmin()
    return f"{best}, {shown(pooled.loc[best])}"


def _provenance(facts: Mapping) -> dict:
    return {
        "started_at": moment(facts["started_at"]),
        "finished_at": moment(facts["finished_at"]),
        "compute": duration(facts["compute_s"]),
        "compute_by_metric": [
            {"metric": TABLE_TITLES.get(metric, metric), "time": duration(seconds)}
            for metric, seconds in facts["compute_s_by_metric"].items()
        ],
        "software": [{"name": name, "version": " and ".join(versions)} for name, versions in facts["software"].items()],
        "devices": [_device(device) for device in facts["devices"]],
        "datasets": [_dataset(info) for info in facts["datasets"]],
        "checkpoints": [
            {"variant": item["variant"], "replicate": str(item["replicate"]), "sha256": item["sha256"]}
            for item in facts["checkpoints"]
        ],
    }


def _device(device: Mapping) -> str:
    threads = device.get("threads")
    suffix = "" if threads is None else f", {threads} thread" + ("" if threads == 1 else "s")
    return f"{device['type']}: {device['name']}{suffix}"


def _dataset(info: Mapping) -> dict:
    return {
        "task": str(info["task"]).replace("_", " "),
        "source": str(info["source"]),
        "revision": str(info.get("revision") or "none"),
        "licence": str(info.get("licence") or "not stated"),
        "fingerprint": info["fingerprint"],
        "splits": [
            {key: f"{split[key]:,}" for key in ("rows", "words", "bytes")} | {"name": name}
            for name, split in info["splits"].items()
        ],
    }
