"""The report: tables, figures and records into a finished context, and the context into one HTML page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import pandas as pd

from ffnfold.failures import by_reason, complete_tables
from ffnfold.figures import bounds_by_task, token_perplexity_floor
from ffnfold.formatting import duration, moment, number, with_unit
from ffnfold.gates import describe
from ffnfold.provenance import collect_provenance
from ffnfold.report_tables import TABLE_TITLES, questions_context, table_context
from ffnfold.summary import by_variant, findings, shown
from ffnfold.tables import METRICS, models

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
    others: Sequence[tuple[str, str]] = (),
    comparisons: pd.DataFrame | None = None,
    questions: pd.DataFrame | None = None,
    claims: Sequence[Mapping] = (),
    gates: Sequence[Mapping] | None = None,
    audit: Mapping[str, str] | None = None,
) -> dict:
    """Everything the templates print, already worded and formatted.

    Args:
        study: `name`, `description`, `seed`, `comparable` (whether base and data are those of the published study) and
            `artefacts` (those that are on, in words).
        records: every metric record.
        tables: metric → table from `tables.read_table`; the ones present are reported.
        figures: figure → SVG file.
        published_figures: what `published.read_published` returned.
        dataset_infos: the dataset_info of each task.
        links: file name → address relative to the report.
        failures: the cells without a figure, each with `variant`, `method`, `replicate`, `metric` and `reason`.
        others: name and reason of other jobs that failed, such as a floor's.
        comparisons: of `comparisons.read_comparisons`; None compares nothing.
        questions: of `answers.read_answers`; None or an empty table where the study asks none, or is not complete.
        claims: of `claims.judge`.
        gates: what `gates.judge` gave for each; None where the study has no known values, empty where none was checked.
        audit: `command` that makes the audit and `href` of its page; None where the study has none.

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
        "failures": by_reason(failures, TABLE_TITLES)
        + [{"reason": reason, "cells": [name]} for name, reason in others],
        "gates": _gates(gates),
        "artefacts": list(study.get("artefacts", ())),
        "audit": dict(audit) if audit else None,
        "compared": comparisons is not None,
        "findings": findings(complete_tables(tables, failures), comparisons),
        "questions": questions_context(questions, links),
        "claims": list(claims),
        "tables": [
            table_context(metric, tables[metric], published_figures, records, links, failures, comparisons)
            for metric in present
        ],
        "figures": [_figure(name, figures[name], tables) for name in FIGURE_TITLES if name in figures],
        "bounds": _bounds(dataset_infos, bounds, tables),
        "provenance": _provenance(collect_provenance(study, records, dataset_infos, {})),
        "links": [{"name": name, "href": href} for name, href in links.items()],
    }


def _gates(gates: Sequence[Mapping] | None) -> dict:
    """Whether the study has known values, and a line for each."""
    results = gates or ()
    lines = [
        {"passed": r["passed"], "text": f"{text}. Source: {r['source']}"}
        for r, text in zip(results, describe(results), strict=True)
    ]
    return {"known": gates is not None, "lines": lines}


def _comparable(study: Mapping) -> dict:
    name = study["name"]
    if study.get("comparable", False) and study.get("artefacts"):
        return {
            "flag": True,
            "heading": "Models, data and protocols of the published study",
            "text": f"The study “{name}” takes its figures as the published ones were taken, as far as that is known.",
        }
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
    variants, replicates = len(models(table)), int(table["replicates"].max())
    text = f"{variants} variants, {len(tables)} metrics"
    text += f", {replicates} replicates each" if replicates > 1 else ", one replicate each"
    return f"{text}; {len(published_figures)} published figures beside ours"


def _figure(name: str, svg: bytes, tables: Mapping[str, pd.DataFrame]) -> dict:
    metric, value = _DRAWN[name]
    pooled = by_variant(tables[metric], value)
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
    return rows


def _closest(tables: Mapping[str, pd.DataFrame], metric: str | None, name: str, more_is_better: bool) -> str:
    if metric not in tables:
        return "no figure of ours is limited by it"
    pooled = by_variant(tables[metric], name)
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
