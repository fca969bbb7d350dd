"""The headline findings of a study in plain words, computed from its tables."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ffnfold.comparisons import NOT_COMPARED
from ffnfold.floors import FLOORS
from ffnfold.formatting import figure, label, number, variants
from ffnfold.tables import floors, models

_NOUNS = {"token_perplexity": "Token perplexity", "accuracy": "Sentiment accuracy", "rougeL": "Summarization, ROUGE-L"}


def by_variant(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """One value of each model's row.

    Returns:
        Indexed by variant in table order, columns method, value, low, high, n, unit.
    """
    rows = models(table).set_index("variant")
    columns = {
        "value": name,
        "low": f"{name}_ci_low",
        "high": f"{name}_ci_high",
        "n": f"{name}_n",
        "unit": f"{name}_unit",
    }
    return pd.DataFrame({"method": rows["method"], **{key: rows[column] for key, column in columns.items()}})


def shown(row: pd.Series) -> str:
    """One row as running text with unit, interval and n."""
    return figure(row["value"], row["low"], row["high"], int(row["n"]), row["unit"])


def baseline_name(table: pd.DataFrame) -> str | None:
    """The variant that others are compared with, or None where the study has none."""
    rows = table[table["method"] == "baseline"]
    return None if rows.empty else str(rows["variant"].iloc[0])


def findings(tables: Mapping[str, pd.DataFrame], comparisons: pd.DataFrame | None = None) -> list[dict[str, str]]:
    """The headline findings, most important first.

    Args:
        tables: metric → table from `tables.read_table`.
        comparisons: of `comparisons.read_comparisons`; without them nothing is compared.

    Returns:
        Each with `lead` (two or three words) and `text` (one or two sentences). Plain text, not yet escaped.
    """
    if "parameters" not in tables or "perplexity" not in tables:
        return []
    baseline = baseline_name(tables["parameters"])
    found = [] if baseline is None else [_baseline(tables, baseline)]
    if baseline is not None and tables["parameters"]["variant"].nunique() > 1:
        found.append(_best_smaller(tables, baseline))
        if comparisons is not None:
            for metric, rows in comparisons[comparisons["against"] == "baseline"].groupby("metric", sort=False):
                compare = _speed if metric == "latency" else _against_baseline
                if metric in tables:
                    found.append(compare(rows, tables[metric], baseline))
        found.append(_recovery(tables["perplexity"], baseline))
    if comparisons is not None and (comparisons["against"] == "floor").any():
        found.append(_against_floor(comparisons[comparisons["against"] == "floor"], tables))
    return found


def _baseline(tables: Mapping[str, pd.DataFrame], baseline: str) -> dict[str, str]:
    names = [("perplexity", "token_perplexity"), ("sentiment", "accuracy"), ("summarization", "rougeL")]
    names.append(("latency", "latency_ms_median"))
    parts = [
        f"{label(name)[0].lower() if not name.startswith('rouge') else 'R'}{label(name)[1:]} "
        f"{shown(by_variant(tables[metric], name).loc[baseline])}"
        for metric, name in names
        if metric in tables
    ]
    stored = by_variant(tables["parameters"], "stored_parameters").loc[baseline]
    return {"lead": "Baseline", "text": f"{baseline} stores {shown(stored)} and reaches {'; '.join(parts)}."}


def _best_smaller(tables: Mapping[str, pd.DataFrame], baseline: str) -> dict[str, str]:
    sizes = by_variant(tables["parameters"], "nonzero_parameters")["value"]
    quality = by_variant(tables["perplexity"], "token_perplexity")
    smaller = [variant for variant in quality.index if sizes[variant] < sizes[baseline]]
    if not smaller:
        return {"lead": "Best smaller model", "text": f"No variant has fewer non-zero parameters than {baseline}."}
    best = quality.loc[smaller, "value"].idxmin()
    share = 100 * sizes[best] / sizes[baseline]
    text = (
        f"Of the {len(smaller)} variants with fewer non-zero parameters than {baseline}, {best} has the lowest token "
        f"perplexity after recovery, {shown(quality.loc[best])}, with {number(sizes[best], 0)} parameters, "
        f"{number(share, 1)}\u00a0% of the baseline's."
    )
    least = sizes[smaller].idxmin()
    if sizes[least] < sizes[best]:
        smallest = [variant for variant in smaller if sizes[variant] == sizes[least]]
        first = quality.loc[smallest, "value"].idxmin()
        share = 100 * sizes[first] / sizes[baseline]
        text += (
            f" The smallest keep {number(share, 1)}\u00a0%; the best of them, {first}, is at"
            if len(smallest) > 1
            else f" The smallest, {first}, keeps {number(share, 1)}\u00a0% and is at"
        )
        text += f" {shown(quality.loc[first])}."
    return {"lead": "Best smaller model", "text": text}


def _against_baseline(comparisons: pd.DataFrame, table: pd.DataFrame, baseline: str) -> dict[str, str]:
    """One metric's variants, each compared with the baseline on the same items."""
    name = str(comparisons["value_name"].iloc[0])
    groups = {verdict: rows["variant"].tolist() for verdict, rows in comparisons.groupby("verdict", sort=False)}
    same, better, worse = (
        groups.pop(f"{what} the baseline", []) for what in ("indistinguishable from", "better than", "worse than")
    )
    parts = []
    if better:
        parts.append(f"Better than {baseline}: {variants(better)}.")
    if same:
        parts.append(f"Indistinguishable from {baseline}: {variants(same)}.")
    if worse:
        rows = by_variant(table, name).loc[worse]
        last = rows["value"].idxmax() if name == "token_perplexity" else rows["value"].idxmin()
        parts.append(
            f"Worse: {variants(worse)}; {'last comes ' if len(worse) > 1 else ''}{last}, {shown(rows.loc[last])}."
        )
    parts += [f"Not compared, as items or protocol differ: {variants(names)}." for names in groups.values()]
    return {"lead": _NOUNS[name], "text": " ".join(parts)}


def _against_floor(comparisons: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Which models do no better than what needs none."""
    parts = []
    for metric, rows in comparisons.groupby("metric", sort=False):
        name, reference = rows["value_name"].iloc[0], rows["reference"].iloc[0]
        floor = floors(tables[metric]).set_index("variant").loc[reference]
        figure_text = figure(
            *(floor[f"{name}{end}"] for end in ("", "_ci_low", "_ci_high", "_n")), unit=floor[f"{name}_unit"]
        )
        verdicts = rows.set_index("variant")["verdict"]
        short = verdicts.index[verdicts == "does not beat the floor"].tolist()
        left = verdicts.index[verdicts == NOT_COMPARED].tolist()
        verdict = "every other variant beats it" if left else "every variant beats it"
        if short:
            verdict = f"{variants(short)} {'do' if len(short) > 1 else 'does'} not beat it"
        if len(short) == len(rows):
            verdict = "no variant beats it"
        if left:
            verdict += f"; not compared, as items or protocol differ: {variants(left)}"
        parts.append(
            f"{label(name)}: the best without a language model is {FLOORS[reference].title}, {figure_text}; {verdict}."
        )
    return {"lead": "Against no model at all", "text": " ".join(parts)}


def _speed(comparisons: pd.DataFrame, table: pd.DataFrame, baseline: str) -> dict[str, str]:
    """Which variants are faster, each timed in turn with the baseline."""
    verdicts = comparisons.set_index("variant")["verdict"]
    better, worse = (verdicts.index[verdicts == f"{w} than the baseline"].tolist() for w in ("better", "worse"))
    if not better:
        text = f"No variant is faster than {baseline} beyond chance."
    else:
        faster = by_variant(table, "speedup").loc[better]
        best = faster["value"].idxmax()
        count = f"{len(better)} of {len(verdicts)} variants are" if len(better) > 1 else "One variant is"
        text = f"{count} faster than {baseline}: {variants(better)}; the fastest is {best}, {shown(faster.loc[best])}."
    if worse:
        text += f" Slower: {variants(worse)}."
    return {"lead": "Speed", "text": text}


def _recovery(table: pd.DataFrame, baseline: str) -> dict[str, str]:
    before = by_variant(table, "token_perplexity_before_recovery").drop(index=baseline)
    after = by_variant(table, "token_perplexity").drop(index=baseline)
    worst = before["value"].idxmax()
    text = (
        f"Right after surgery {worst} is worst, token perplexity {shown(before.loc[worst])}; "
        f"recovery brings it to {shown(after.loc[worst])}."
    )
    return {"lead": "Recovery", "text": text}
