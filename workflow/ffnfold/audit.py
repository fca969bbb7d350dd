"""What each published artefact does to the audited figures: one long table, and four effects in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from ffnfold.errors import InputError
from ffnfold.formatting import decimals, number, variants, with_unit, words

#: The figures that are audited, and whether a change of them is a ratio or a difference.
FIGURES = {
    "perplexity": {"token_perplexity": "ratio"},
    "latency": {"latency_ms_median": "ratio", "speedup": "ratio"},
    "sentiment": {"accuracy": "difference"},
    "summarization": {"rougeL": "difference", "rouge1": "difference", "rouge2": "difference"},
}
NOTABLE = 1.5  # latencies of models with equal work differ by less on a machine that is not quiet
HEADLINES = {metric: next(iter(names)) for metric, names in FIGURES.items()}
COLUMNS = (
    *("metric", "value_name", "variant", "step", "artefact", "value", "ci_low", "ci_high", "unit", "n"),
    *("scale", "change", "change_low", "change_high", "generated_tokens", "record"),
)


def change(before: Mapping[str, float], after: Mapping[str, float], scale: str) -> tuple[float, float, float]:
    """How a figure changes, with a 95% interval made of the two figures' own intervals.

    Args:
        before, after: figures with `value`, `ci_low`, `ci_high`, in one unit.
        scale: `ratio` (after / before, all above 0) or `difference` (after - before).

    Returns:
        Change, low, high. The two are taken as independent; where both come from the same items, which vary together,
        the interval is too wide, never too narrow.

    Source: Zou and Donner 2008 (doi 10.1002/sim.3095), the method of variance estimates recovery.
    """
    keys = ("value", "ci_low", "ci_high")
    first, second = ([math.log(f[k]) if scale == "ratio" else f[k] for k in keys] for f in (before, after))
    centre = second[0] - first[0]
    low = centre - math.hypot(second[0] - second[1], first[2] - first[0])
    high = centre + math.hypot(second[2] - second[0], first[0] - first[1])
    return tuple(math.exp(x) for x in (centre, low, high)) if scale == "ratio" else (centre, low, high)


def effects_table(
    cells: Sequence[Mapping[str, str | None]], records: Mapping[tuple[str, str, str], Mapping]
) -> pd.DataFrame:
    """Every audited figure, and how it differs from where it starts.

    Args:
        cells: of `scenarios.Audit.cells`.
        records: (owner, variant, metric) → metric record.

    Returns:
        One row for each cell and figure, columns `COLUMNS`. `step` is sound, published, only (the sound run with one
        artefact) or without (the as-published run less one). The change of `only` and of `published` is from the sound
        figure, that of `without` from the as-published one; a sound figure has none. `record` is the record's place in
        the study's results.

    Raises:
        InputError: a record lacks a figure, or holds one that no ratio can be made of.
    """
    rows = []
    starts = {(c["metric"], c["variant"], c["scenario"]): c for c in cells if c["artefact"] is None}
    for cell in cells:
        metric, variant, scenario = cell["metric"], cell["variant"], cell["scenario"]
        step = scenario if cell["artefact"] is None else scenario.partition("_")[0]
        values = _values(records, cell)
        folder = f"audit/{cell['owner']}/" if cell["owner"] else ""
        start = {"sound": None, "without": "published"}.get(step, "sound")
        base = start and _values(records, starts[metric, variant, start])
        for name, scale in FIGURES[metric].items():
            figure = values[name]
            changed = (math.nan,) * 3 if base is None else change(base[name], figure, scale)
            rows.append(
                {
                    **{"metric": metric, "value_name": name, "variant": variant, "step": step},
                    "artefact": cell["artefact"] or "",
                    **{key: figure[key] for key in ("value", "ci_low", "ci_high", "unit", "n")},
                    "scale": scale,
                    **dict(zip(("change", "change_low", "change_high"), changed, strict=True)),
                    "generated_tokens": values.get("generated_tokens", {}).get("value", math.nan),
                    "record": f"{folder}metrics/{variant}/0/{metric}.json",
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _values(records: Mapping[tuple[str, str, str], Mapping], cell: Mapping) -> Mapping[str, Mapping]:
    values = records[cell["owner"], cell["variant"], cell["metric"]]["values"]
    for name, scale in FIGURES[cell["metric"]].items():
        if name not in values or (scale == "ratio" and values[name]["ci_low"] <= 0):
            raise InputError(
                "a record cannot be audited",
                where=f"scenario {cell['scenario']}, variant {cell['variant']}, metric {cell['metric']}",
                got=f"{name}: {values.get(name)}",
                expected="a figure above 0",
                remedy="delete the record and run the audit again",
            )
    return values


def findings(
    table: pd.DataFrame, facts: Mapping[str, Sequence[str]], flops: Mapping[str, float], before_recovery: Mapping
) -> list[dict[str, object]]:
    """The four effects that the published figures suffer from, as this study shows them.

    Args:
        table: of `effects_table`.
        facts: of `scenarios.Audit.facts`.
        flops: variant → operations a token.
        before_recovery: variant → token perplexity right after surgery, in the sound protocol.

    Returns:
        Each with `title`, `text`, and `shown`: whether the effect is there. Plain text, not yet escaped.
    """
    at = table.set_index(["value_name", "step", "artefact", "variant"]).sort_index()
    return [
        _pads(at, facts),
        _stopping(at, facts, flops),
        _own_words(at, facts, before_recovery),
        _pooling(at, facts),
    ]


def _at(at: pd.DataFrame, name: str, step: str, artefact: str, variant: str) -> pd.Series:
    """A figure at a step; where the artefact does not touch the variant, that of the step's start."""
    key = (name, step, artefact, variant)
    if key not in at.index:
        key = (name, "published" if step == "without" else "sound", "", variant)
    return at.loc[key]


def _pads(at: pd.DataFrame, facts: Mapping[str, Sequence[str]]) -> dict[str, object]:
    title = "A model that never learnt to emit pads, charged for them"
    masked, learnt = facts["pads_masked"], facts["pads_learnt"]
    if not masked or not learnt:
        return _absent(title, "no audited variant was trained with its pads masked and scored with them")

    def times(step: str, artefact: str) -> tuple[pd.Series, dict[str, tuple[float, float, float]]]:
        figure = _at(at, "token_perplexity", step, artefact, masked[0])
        return figure, {v: change(_at(at, "token_perplexity", step, artefact, v), figure, "ratio") for v in learnt}

    with_pads, ratios = times("published", "")
    without, plain = times("without", "score_padding")
    middle, least = float(np.median([r[0] for r in ratios.values()])), min(r[1] for r in ratios.values())
    text = (
        f"As published, {masked[0]} was trained with its pads masked out of the loss and then scored with them: token "
        f"perplexity {_shown(with_pads)}. The others had learnt to emit pads: it is "
        f"{words([f'{_times(r[0])} that of {v}' for v, r in ratios.items()])}, in the median {_times(middle)} (the "
        f"lowest end of a 95% interval: {_times(least)}). With the pads left out of the score and nothing else changed "
        f"it is {_shown(without)}: {words([f'{_times(r[0])} {v}' for v, r in plain.items()])}."
    )
    return {
        "title": title,
        "text": text,
        "shown": bool(middle >= 100 and least > 10 and max(r[0] for r in plain.values()) < 10),
    }


def _stopping(at: pd.DataFrame, facts: Mapping[str, Sequence[str]], flops: Mapping[str, float]) -> dict[str, object]:
    title = "An order of speed that is an order of silence"
    names, baseline = facts["audited"], facts["baseline"][0]

    def times(step: str, artefact: str) -> dict[str, pd.Series]:
        """Each variant's time as a share of the baseline's, which was timed in turn with it."""
        rows = {v: _at(at, "speedup", step, artefact, v) for v in names}
        keys = {"value": "value", "ci_low": "ci_high", "ci_high": "ci_low", "generated_tokens": "generated_tokens"}
        found = {v: pd.Series({k: row[of] for k, of in keys.items()}) for v, row in rows.items()}
        for figure in found.values():
            figure[["value", "ci_low", "ci_high"]] = 1 / figure[["value", "ci_low", "ci_high"]]
        return found

    def against_compute(found: Mapping[str, pd.Series]) -> list[str]:
        """What times, intervals apart, say other than the operations a token."""
        slower: dict[str, list[str]] = {}
        for one, other in combinations(names, 2):
            fast, slow = sorted((one, other), key=lambda v: found[v]["value"])
            a, b = found[fast], found[slow]
            if flops[slow] < flops[fast] and a["ci_high"] < b["ci_low"]:
                slower.setdefault(f"{slow}, with less to compute, is slower than", []).append(fast)
            elif flops[slow] == flops[fast] and NOTABLE * a["ci_high"] < b["ci_low"]:
                part = f"{_times(b['value'] / a['value'])} {fast}"
                slower.setdefault(f"{slow}, with as much to compute, takes", []).append(part)
        return [f"{claim} {words(parts)}" for claim, parts in slower.items()]

    def listed(found: Mapping[str, pd.Series]) -> str:
        order = sorted(names, key=lambda v: found[v]["value"])
        return ", ".join(
            f"{v} {number(f['value'], 2)} ({f['generated_tokens']:.0f} tokens)"
            for v, f in ((v, found[v]) for v in order)
        )

    stopped, fixed = times("published", ""), times("without", "stop_at_end_of_text")
    scrambled, left = against_compute(stopped), against_compute(fixed)
    text = (
        f"With generation ended by the end-of-text token, times from fast to slow, as shares of {baseline}'s, timed in "
        f"turn: {listed(stopped)}. "
        + (f"Beyond their intervals: {'; '.join(scrambled)}. " if scrambled else "")
        + f"At a fixed length: {listed(fixed)}; "
        + (
            f"still, {'; '.join(left)}."
            if left
            else "no order beyond the intervals contradicts what they have to compute."
        )
    )
    return {"title": title, "text": text, "shown": bool(scrambled) and not left}


def _own_words(
    at: pd.DataFrame, facts: Mapping[str, Sequence[str]], before_recovery: Mapping[str, float]
) -> dict[str, object]:
    title = "A broken model with most of the full model's ROUGE"
    broken = [v for v in facts["summarized_unrecovered"] if v != facts["baseline"][0]]
    if not broken:
        return _absent(title, "no audited variant is summarised before recovery")
    worst, baseline = max(broken, key=lambda v: before_recovery[v]), facts["baseline"][0]

    def share(name: str, step: str, artefact: str) -> float:
        if not _at(at, name, step, artefact, baseline)["value"]:
            return 0.0 if not _at(at, name, step, artefact, worst)["value"] else math.inf
        return _at(at, name, step, artefact, worst)["value"] / _at(at, name, step, artefact, baseline)["value"]

    with_words = {name: share(name, "published", "") for name in FIGURES["summarization"]}
    alone = {name: share(name, "without", "include_prompt") for name in FIGURES["summarization"]}

    def both(step: str, artefact: str) -> str:
        mine, whole = (_shown(_at(at, "rougeL", step, artefact, v)) for v in (worst, baseline))
        return f"ROUGE-L {mine} and {whole}"

    def shares(found: Mapping[str, float]) -> str:
        labels = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
        return words([f"{100 * found[name]:.0f}% of its {labels[name]}" for name in ("rouge1", "rouge2", "rougeL")])

    text = (
        f"Right after surgery, {worst} has a token perplexity of {number(before_recovery[worst], 0)}. With the "
        f"article's own first words scored as part of the summary it reaches, against {baseline}, {shares(with_words)} "
        f"({both('published', '')}). Where only what the model adds is scored, {shares(alone)} "
        f"({both('without', 'include_prompt')})."
    )
    shown = before_recovery[worst] >= 1000 and with_words["rougeL"] > 0.5 and alone["rougeL"] < with_words["rougeL"] / 2
    return {"title": title, "text": text, "shown": bool(shown)}


def _pooling(at: pd.DataFrame, facts: Mapping[str, Sequence[str]]) -> dict[str, object]:
    title = "Accuracy read off a pad"
    key = ("accuracy", "only", "pool_last_position")
    if key not in at.index:
        return _absent(title, "no audited variant is read at the last position")
    moved = at.loc[key].reindex([v for v in facts["audited"] if v in at.loc[key].index])
    parts = [
        f"{variant} {_points(row['change'])} ({number(row['change_low'], 1)} to {number(row['change_high'], 1)})"
        for variant, row in moved.iterrows()
    ]
    beyond = [v for v, row in moved.iterrows() if row["change_low"] > 0 or row["change_high"] < 0]
    mean, high = moved["change"].mean(), np.abs(moved["change"]).max()
    text = (
        f"Reading the classifier at the last position of the padded row, in place of the review's last token, in "
        f"training and in testing, shifts the accuracy by {', '.join(parts)}; {_points(mean)} on average, "
        f"{number(high, 1)} points at most. "
        + (f"Beyond the interval: {variants(beyond)}." if beyond else "No single shift lies beyond its interval.")
    )
    text += " Each is one training; what another seed would do is not in these intervals."
    if facts["pooled_at_position"]:
        text += f" The published study read {variants(list(facts['pooled_at_position']))} so, the others at a token."
    return {"title": title, "text": text, "shown": bool(beyond)}


def _absent(title: str, why: str) -> dict[str, object]:
    return {"title": title, "text": f"Not to be seen here: {why}.", "shown": False}


def _shown(row: Mapping) -> str:
    places = decimals(row["value"], row["ci_low"], row["ci_high"])
    main = with_unit(number(row["value"], places), row["unit"])
    return f"{main} [{number(row['ci_low'], places)}, {number(row['ci_high'], places)}]"


def _times(ratio: float) -> str:
    return f"{number(ratio, 0 if ratio >= 100 else 2)} times"


def _points(difference: float) -> str:
    return f"{'+' if difference > 0 else ''}{number(difference, 1)} points"
