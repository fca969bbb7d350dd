"""A study's questions answered: both variants of each compared by size, surgery alone, and every metric."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ffnfold.combination import BEFORE
from ffnfold.comparisons import (
    COLUMNS,
    HEADLINES,
    LESS_IS_BETTER,
    NOT_COMPARED,
    NUMBERS,
    WHOLE,
    Comparison,
    Side,
    compare,
    read_comparisons,
    scale_of,
)
from ffnfold.hypothesis_tests import holm

#: The question's name and text, then what a comparison has.
ANSWER_COLUMNS = ("question", "text", *COLUMNS)
#: What each question compares: metric, value name.
VALUES = (
    ("parameters", "stored_parameters"),
    ("parameters", "nonzero_parameters"),
    ("perplexity", f"{HEADLINES['perplexity']}{BEFORE}"),
    *HEADLINES.items(),
)


def answer(
    questions: Mapping[str, Mapping[str, str]],
    sides: Mapping[str, Mapping[str, Side]],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Compare the two variants of each question by each of `VALUES`.

    Every comparison starts from the same state of the generator, so a question more or less changes no other estimate.

    Args:
        questions: name -> question, variant, against.
        sides: metric -> variant -> its records and items.
        statistics: confidence, resamples.
        generator: for the bootstrap; not advanced.

    Returns:
        Columns `ANSWER_COLUMNS`, the questions in their order; `against` is "pair". `p_holm` is corrected over the
        questions for each value by itself. Numbers are empty only in rows that could not be compared.

    Raises:
        InputError: the replicates of one variant were measured on different items.
    """

    def compared(metric: str, value_name: str, question: Mapping[str, str]) -> Comparison | None:
        pair = [sides.get(metric, {}).get(question[side]) for side in ("variant", "against")]
        if any(side is None for side in pair):
            return None
        return compare(metric, value_name, *pair, statistics, copy.deepcopy(generator))

    found = {(name, *value): compared(*value, question) for value in VALUES for name, question in questions.items()}
    corrected: dict[tuple[str, str, str], float] = {}
    for value in VALUES:
        family = [key for key, comparison in found.items() if key[1:] == value and comparison is not None]
        corrected |= zip(family, holm([found[key].p_value for key in family]).tolist(), strict=True)
    rows = []
    for name, question in questions.items():
        for metric, value_name in VALUES:
            key = (name, metric, value_name)
            row = {"question": name, "text": question["question"], "metric": metric, "value_name": value_name}
            row |= {"variant": question["variant"], "reference": question["against"], "against": "pair"}
            if (comparison := found[key]) is None:
                scale, unit = scale_of(metric, value_name)
                row |= {"scale": scale, "unit": unit, "test": "none", "verdict": NOT_COMPARED}
            else:
                words = verdict(comparison, corrected[key], 1 - statistics["confidence"])
                row |= {**asdict(comparison), "p_holm": corrected[key], "verdict": words}
            rows.append(row)
    table = pd.DataFrame(rows, columns=list(ANSWER_COLUMNS))
    return table.astype(dict.fromkeys(NUMBERS, "float64") | dict.fromkeys(WHOLE, "Int64"))


def verdict(comparison: Comparison, p_holm: float, level: float) -> str:
    """A comparison in words: better than the other variant, worse, or neither; counts are exact: fewer or more.

    Args:
        comparison: of two variants.
        p_holm: its corrected p value.
        level: below which a p value counts, e.g. 0.05.
    """
    gain = comparison.estimate - (1 if comparison.scale == "ratio" else 0)
    if comparison.metric == "parameters":
        return f"{'fewer than' if gain < 0 else 'more than' if gain else 'as many as'} {comparison.reference}"
    if p_holm >= level:
        return f"indistinguishable from {comparison.reference}"
    better = gain < 0 if comparison.metric in LESS_IS_BETTER else gain > 0
    return f"{'better' if better else 'worse'} than {comparison.reference}"


def read_answers(path: str | Path) -> pd.DataFrame:
    """Read the table that `answer` gave and `comparisons.write_comparisons` wrote.

    Raises:
        InputError: the file is missing or has other columns.
    """
    return read_comparisons(path, ANSWER_COLUMNS)
