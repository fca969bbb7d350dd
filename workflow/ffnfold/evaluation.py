"""A study's records compared: every variant with the baseline and the best floor, questions answered, claims judged."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ffnfold.answers import answer
from ffnfold.claims import Claim, judge
from ffnfold.combination import combine
from ffnfold.comparisons import Comparison, Side, compare, comparison_table
from ffnfold.records import Value

Measured = Sequence[tuple[Mapping[str, Any], pd.DataFrame | None]]


def evaluate(
    measured: Measured,
    floors: Measured,
    variants: Sequence[Mapping[str, str]],
    questions: Mapping[str, Mapping[str, str]],
    claims: Sequence[Claim],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
    comparable: bool,
) -> tuple[pd.DataFrame, pd.DataFrame, list[dict[str, Any]]]:
    """Compare everything that a study measured.

    Args:
        measured: every metric record of every variant and replicate, with its item scores.
        floors: the same of what needs no language model.
        variants: the study's variants in order, each with `name` and `method`.
        questions: the study's questions on pairs of them: name -> question, variant, against.
        claims: of `claims.read_claims`.
        statistics: confidence, resamples.
        generator: for the bootstrap; not advanced.
        comparable: whether the study has the published model and data.

    Returns:
        The table of `comparisons.comparison_table`, that of `answers.answer`, and a mapping for each claim: claim,
        published, reading, verdict, reason, evidence (lines).
    """
    roles = {v["name"]: "baseline" if v["method"] == "baseline" else "variant" for v in variants}
    sides = _sides(measured, roles)
    by_metric = {metric: list(found.values()) for metric, found in sides.items()}
    references = _sides(floors, {record["variant"]: "floor" for record, _ in floors})
    table = comparison_table(
        by_metric, {metric: list(found.values()) for metric, found in references.items()}, statistics, generator
    )

    def compared(metric: str, name: str, variant: str, other: str) -> Comparison | None:
        pair = (sides[metric][variant], sides[metric][other])
        return compare(metric, name, *pair, statistics, copy.deepcopy(generator))

    def figure(metric: str, name: str, variant: str) -> Value | None:
        side = sides.get(metric, {}).get(variant)
        return None if side is None else combine(metric, side.records, side.items).get(name)

    verdicts = [
        {
            **{key: getattr(found.claim, key) for key in ("id", "claim", "published", "reading")},
            **{"verdict": found.verdict, "reason": found.reason, "evidence": list(found.evidence)},
        }
        for found in judge(claims, compared, figure, comparable)
    ]
    return table, answer(questions, sides, statistics, generator), verdicts


def _sides(measured: Measured, roles: Mapping[str, str]) -> dict[str, dict[str, Side]]:
    """Metric → name → side, names in the order of `roles`, replicates in their own order."""
    sides: dict[str, dict[str, Side]] = {}
    for name, role in roles.items():
        mine = sorted((m for m in measured if m[0]["variant"] == name), key=lambda m: m[0]["replicate"])
        for metric in dict.fromkeys(record["metric"] for record, _ in mine):
            found = [(record, items) for record, items in mine if record["metric"] == metric]
            sides.setdefault(metric, {})[name] = Side(name, *map(list, zip(*found, strict=True)), role)
    return sides
