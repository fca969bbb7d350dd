"""The audit as a page: published figure, as-published rerun, each artefact's share, sound figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ffnfold.artefacts import ARTEFACTS
from ffnfold.audit import HEADLINES, findings
from ffnfold.formatting import decimals, interval, label, number, published, with_unit
from ffnfold.published import published_value

TITLES = {
    "perplexity": "Perplexity",
    "latency": "Latency",
    "sentiment": "Sentiment accuracy",
    "summarization": "ROUGE of the summaries",
}
_WORDS = {artefact.name: artefact.words for artefact in ARTEFACTS}


def build_context(
    *,
    study: Mapping,
    table: pd.DataFrame,
    facts: Mapping[str, Sequence[str]],
    flops: Mapping[str, float],
    before_recovery: Mapping[str, float],
    published_figures: pd.DataFrame,
    settings: Mapping[str, Mapping[str, str]],
    links: Mapping[str, str],
) -> dict:
    """Everything the audit's template prints, already worded and formatted.

    Args:
        study: `name`, `description` and `comparable`.
        table: of `audit.effects_table`.
        facts, flops, before_recovery: of `audit.findings`.
        published_figures: what `published.read_published` returned.
        settings: artefact → setting → its two values in words, sound and as published.
        links: name → address relative to the page.
    """
    names = list(dict.fromkeys(table["variant"]))
    return {
        "study": {key: study[key] for key in ("name", "description", "comparable")},
        "variants": names,
        "findings": [
            {**item, "verdict": "seen here" if item["shown"] else "not seen here"}
            for item in findings(table, facts, flops, before_recovery)
        ],
        "tables": [_chain(metric, table, names, published_figures) for metric in HEADLINES],
        "artefacts": [
            {
                "name": artefact.name.replace("_", " "),
                "words": artefact.words,
                "metrics": ", ".join(TITLES[m].lower() for m in artefact.metrics),
                "settings": [{"name": key, "values": text} for key, text in settings[artefact.name].items()],
            }
            for artefact in ARTEFACTS
        ],
        "links": dict(links),
    }


def _chain(metric: str, table: pd.DataFrame, names: Sequence[str], published_figures: pd.DataFrame) -> dict:
    """One metric's steps as rows, the variants as columns, in the order of reading."""
    name = HEADLINES[metric]
    rows = table[table["value_name"] == name]
    artefacts = [a.name for a in ARTEFACTS if metric in a.metrics and (rows["artefact"] == a.name).any()]
    steps = [("published", "", "As published, run again", "every artefact on, on this study's base and data")]
    steps += [("without", a, f"… less {a.replace('_', ' ')}", f"without this: {_WORDS[a]}") for a in artefacts]
    steps.append(("sound", "", "Sound", "every artefact off"))
    steps += [("only", a, f"Sound, with {a.replace('_', ' ')} alone", _WORDS[a]) for a in artefacts]
    at = {(r["step"], r["artefact"], r["variant"]): r for r in rows.to_dict("records")}
    body = [
        {
            "label": "Published",
            "words": "on GPT-2 and the published data",
            "kind": "given",
            "cells": [_given(published_value(published_figures, variant, name), name) for variant in names],
        }
    ]
    body += [
        {
            "label": title,
            "words": text,
            "kind": step,
            "cells": [_cell(at.get((step, artefact, variant)), step) for variant in names],
        }
        for step, artefact, title, text in steps
        if any((step, artefact, variant) in at for variant in names)  # some artefacts cannot be taken out alone
    ]
    unit = with_unit("", str(rows["unit"].iloc[0])).strip()
    return {"id": metric, "title": TITLES[metric], "figure": label(name) + (f", {unit}" if unit else ""), "rows": body}


def _given(value: float | None, name: str) -> dict:
    return {"text": "not published" if value is None else published(value, name), "note": "", "change": ""}


def _cell(row: Mapping | None, step: str) -> dict:
    if row is None:
        return {"text": "the same", "note": "", "change": ""}
    note = interval(row["value"], row["ci_low"], row["ci_high"])
    if row["generated_tokens"] == row["generated_tokens"]:
        note += f", {row['generated_tokens']:.0f} tokens"
    text = number(row["value"], decimals(row["value"], row["ci_low"], row["ci_high"]))
    changed = _change(row) if step in ("without", "only") else ""
    return {"text": text, "note": note, "change": changed}


def _change(row: Mapping) -> str:
    if row["scale"] == "ratio":
        same, text = row["change_low"] <= 1 <= row["change_high"], f"× {_digits(row['change'])}"
    else:
        same = row["change_low"] <= 0 <= row["change_high"]
        places = decimals(row["change"], row["change_low"], row["change_high"])
        text = f"{'+' if row['change'] > 0 else ''}{number(row['change'], places)}"
    return f"({text})" if same else text


def _digits(ratio: float) -> str:
    return number(ratio, 0) if ratio >= 100 else f"{ratio:.2g}" if ratio < 0.095 else number(ratio, 2)
