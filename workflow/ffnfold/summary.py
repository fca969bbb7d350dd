"""The headline findings of a study in plain words, computed from its tables."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ffnfold.formatting import decimals, figure, label, number, variants

#: The figures compared with the baseline: table, value name, +1 where more is better.
_COMPARED = (
    ("perplexity", "token_perplexity", -1),
    ("sentiment", "accuracy", +1),
    ("summarization", "rougeL", +1),
)
_NOUNS = {"token_perplexity": "Token perplexity", "accuracy": "Sentiment accuracy", "rougeL": "Summarization, ROUGE-L"}


def pool_replicates(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """One row per variant: the replicates' mean, the span of their intervals and the n of one replicate.

    Returns:
        Indexed by variant in table order, columns method, value, low, high, n, unit.
    """
    groups = table.groupby("variant", sort=False)
    return pd.DataFrame(
        {
            "method": groups["method"].first(),
            "value": groups[name].mean(),
            "low": groups[f"{name}_ci_low"].min(),
            "high": groups[f"{name}_ci_high"].max(),
            "n": groups[f"{name}_n"].first(),
            "unit": groups[f"{name}_unit"].first(),
        }
    )


def shown(row: pd.Series) -> str:
    """One pooled row as running text with unit, interval and n."""
    return figure(row["value"], row["low"], row["high"], int(row["n"]), row["unit"])


def baseline_name(table: pd.DataFrame) -> str | None:
    """The variant that others are compared with, or None where the study has none."""
    rows = table[table["method"] == "baseline"]
    return None if rows.empty else str(rows["variant"].iloc[0])


def findings(tables: Mapping[str, pd.DataFrame]) -> list[dict[str, str]]:
    """The headline findings, most important first.

    Args:
        tables: metric → table from `tables.read_table`.

    Returns:
        Each with `lead` (two or three words) and `text` (one or two sentences). Plain text, not yet escaped.
    """
    if "parameters" not in tables or "perplexity" not in tables:
        return []
    baseline = baseline_name(tables["parameters"])
    found = [] if baseline is None else [_baseline(tables, baseline)]
    if baseline is not None and tables["parameters"]["variant"].nunique() > 1:
        found.append(_best_smaller(tables, baseline))
        found += [
            _against_baseline(tables[metric], name, sign, baseline)
            for metric, name, sign in _COMPARED
            if metric in tables
        ]
        if "latency" in tables:
            found.append(_fastest(tables["latency"], baseline))
        found.append(_recovery(tables["perplexity"], baseline))
    if "summarization" in tables:
        found.append(_lead3(tables["summarization"]))
    return found


def _baseline(tables: Mapping[str, pd.DataFrame], baseline: str) -> dict[str, str]:
    names = [("perplexity", "token_perplexity"), ("sentiment", "accuracy"), ("summarization", "rougeL")]
    names.append(("latency", "latency_ms_median"))
    parts = [
        f"{label(name)[0].lower() if not name.startswith('rouge') else 'R'}{label(name)[1:]} "
        f"{shown(pool_replicates(tables[metric], name).loc[baseline])}"
        for metric, name in names
        if metric in tables
    ]
    stored = pool_replicates(tables["parameters"], "stored_parameters").loc[baseline]
    return {"lead": "Baseline", "text": f"{baseline} stores {shown(stored)} and reaches {'; '.join(parts)}."}


def _best_smaller(tables: Mapping[str, pd.DataFrame], baseline: str) -> dict[str, str]:
    sizes = pool_replicates(tables["parameters"], "nonzero_parameters")["value"]
    quality = pool_replicates(tables["perplexity"], "token_perplexity")
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


def _against_baseline(table: pd.DataFrame, name: str, sign: int, baseline: str) -> dict[str, str]:
    pooled = pool_replicates(table, name)
    low, high = pooled.loc[baseline, ["low", "high"]]
    others = pooled.drop(index=baseline)
    inside = others[(others["value"] >= low) & (others["value"] <= high)].index.tolist()
    outside = others.drop(index=inside)
    # Apart means that the two intervals do not meet; a point outside the baseline's interval alone says less.
    better = outside[outside["low"] > high if sign > 0 else outside["high"] < low].index.tolist()
    worse = outside[outside["high"] < low if sign > 0 else outside["low"] > high]
    unclear = outside.drop(index=[*better, *worse.index]).index.tolist()
    text = (
        f"{variants(inside)} {'lie' if len(inside) > 1 else 'lies'} within {baseline}'s 95% interval, "
        if inside
        else f"No variant lies within {baseline}'s 95% interval, "
    )
    places = decimals(low, low, high)
    text += f"{number(low, places)} to {number(high, places)} (n\u00a0=\u00a0{pooled.loc[baseline, 'n']:,})."
    if better:
        text += f" Better, their intervals apart from its own: {variants(better)}."
    if unclear:
        text += f" Outside it, but with intervals that meet its own: {variants(unclear)}."
    if len(worse):
        last = worse["value"].idxmin() if sign > 0 else worse["value"].idxmax()
        text += f" Worse, intervals apart: {variants(worse.index.tolist())}"
        text += (
            f"; last comes {last}, {shown(pooled.loc[last])}." if len(worse) > 1 else f", {shown(pooled.loc[last])}."
        )
    return {"lead": _NOUNS[name], "text": text}


def _fastest(table: pd.DataFrame, baseline: str) -> dict[str, str]:
    pooled = pool_replicates(table, "speedup").drop(index=baseline)
    faster = pooled[pooled["low"] > 1]
    slower = pooled[pooled["high"] < 1].index.tolist()
    if faster.empty:
        text = f"No variant is faster than {baseline} beyond its 95% interval."
    else:
        best = faster["value"].idxmax()
        count = f"{len(faster)} of {len(pooled)} variants are" if len(faster) > 1 else "One variant is"
        text = f"{count} faster than {baseline} beyond the interval; the fastest is {best}, {shown(faster.loc[best])}."
    if slower:
        text += f" Slower beyond the interval: {variants(slower)}."
    return {"lead": "Speed", "text": text}


def _recovery(table: pd.DataFrame, baseline: str) -> dict[str, str]:
    before = pool_replicates(table, "token_perplexity_before_recovery").drop(index=baseline)
    after = pool_replicates(table, "token_perplexity").drop(index=baseline)
    worst = before["value"].idxmax()
    text = (
        f"Right after surgery {worst} is worst, token perplexity {shown(before.loc[worst])}; "
        f"the same recovery budget for every variant brings it to {shown(after.loc[worst])}."
    )
    return {"lead": "Recovery", "text": text}


def _lead3(table: pd.DataFrame) -> dict[str, str]:
    pooled, lead = pool_replicates(table, "rougeL"), pool_replicates(table, "lead3_rougeL").iloc[0]
    above = pooled[pooled["low"] > lead["high"]].index.tolist()
    best = pooled["value"].idxmax()
    verdict = (
        f"{variants(above)} {'score' if len(above) > 1 else 'scores'} above it beyond the interval"
        if above
        else "no variant scores above it beyond the interval"
    )
    text = (
        f"Copying an article's first three sentences, with no model at all, gives ROUGE-L {shown(lead)}: {verdict}. "
        f"The best variant is {best}, {shown(pooled.loc[best])}."
    )
    return {"lead": "Against lead-3", "text": text}
