"""Questions that a study asks on pairs of its variants: checked before any job, answered from the records."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffnfold.errors import InputError

# `study` imports this module and must load in no time: what needs NumPy or pandas is imported where it is used.
if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ffnfold.comparisons import Comparison, Side

_ASKED = ("question", "text")
_COUNTS = "parameters"
_WHOLE = ("n", "replicates")
_NUMBERS = ("estimate", "ci_low", "ci_high", "p_value", "p_holm")


def check_questions(study: Mapping[str, Any], source: str) -> None:
    """Check that each question is on two variants that the study has.

    Args:
        study: a study with its variants expanded and its defaults written out.
        source: what messages call it.

    Raises:
        InputError: a variant is not in the study, or a question compares it with itself.
    """
    for name, question in study["questions"].items():
        where = f"{source}: questions.{name}"
        out = f"leave the question out: questions: {{{name}: null}} does so in a study that extends another"
        for side in ("variant", "against"):
            if question[side] not in study["variants"]:
                raise InputError(
                    "a question is on a variant that the study does not have",
                    where=f"{where}.{side}",
                    got=repr(question[side]),
                    expected="one of " + ", ".join(study["variants"]),
                    remedy=f"name one of these, or {out}",
                )
        if question["variant"] == question["against"]:
            raise InputError(
                "a question compares a variant with itself",
                where=where,
                got=f"{question['variant']!r} twice",
                expected="two variants",
                remedy=f"name another variant, or {out}",
            )


def columns() -> tuple[str, ...]:
    """The columns of the table of answers: the question's name and text, then those of a comparison."""
    from ffnfold.comparisons import COLUMNS

    return (*_ASKED, *COLUMNS)


def values() -> tuple[tuple[str, str], ...]:
    """What each question compares, as (metric, value name): size, surgery alone, and each metric's headline."""
    from ffnfold.combination import BEFORE
    from ffnfold.comparisons import HEADLINES

    surgery = ("perplexity", HEADLINES["perplexity"] + BEFORE)
    return ((_COUNTS, "stored_parameters"), surgery, *HEADLINES.items())


def answer(
    questions: Mapping[str, Mapping[str, str]],
    sides: Mapping[str, Mapping[str, Side]],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Compare the two variants of each question by every value of `values`.

    Every comparison starts from the same state of the generator, so a question more or less changes no other estimate.

    Args:
        questions: name -> question, variant, against.
        sides: metric -> variant -> its records and items.
        statistics: confidence, resamples.
        generator: for the bootstrap; not advanced.

    Returns:
        Columns `columns()`, the questions in their order; `against` is "pair". `p_holm` is corrected over the questions
        for each value by itself. Numbers are empty only in rows that could not be compared.
    """
    import pandas as pd

    from ffnfold.comparisons import compare
    from ffnfold.hypothesis_tests import holm

    def compared(metric: str, value_name: str, question: Mapping[str, str]) -> Comparison | None:
        pair = [sides.get(metric, {}).get(question[side]) for side in ("variant", "against")]
        if any(side is None for side in pair):
            return None
        return compare(metric, value_name, *pair, statistics, copy.deepcopy(generator))

    found = {(name, *value): compared(*value, question) for value in values() for name, question in questions.items()}
    corrected: dict[tuple[str, str, str], float] = {}
    for value in values():
        family = [key for key, comparison in found.items() if key[1:] == value and comparison is not None]
        corrected |= zip(family, holm([found[key].p_value for key in family]).tolist(), strict=True)
    rows = [
        _row(name, question, value, found[name, *value], corrected.get((name, *value)), 1 - statistics["confidence"])
        for name, question in questions.items()
        for value in values()
    ]
    table = pd.DataFrame(rows, columns=list(columns()))
    return table.astype(dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(_WHOLE, "Int64"))


def _row(
    name: str,
    question: Mapping[str, str],
    value: tuple[str, str],
    comparison: Comparison | None,
    p_holm: float | None,
    level: float,
) -> dict[str, Any]:
    """One answer, as of `answer`; without a comparison no number."""
    from ffnfold.comparisons import NOT_COMPARED, scale_of

    row = {"question": name, "text": question["question"], "against": "pair"}
    if comparison is not None:
        return {**row, **asdict(comparison), "p_holm": p_holm, "verdict": verdict(comparison, p_holm, level)}
    pair = {"variant": question["variant"], "reference": question["against"]}
    what = zip(("metric", "value_name", "scale", "unit"), (*value, *scale_of(*value)), strict=True)
    return {**row, **pair, **dict(what), "test": "none", "verdict": NOT_COMPARED}


def verdict(comparison: Comparison, p_holm: float, level: float) -> str:
    """A comparison in words: better than the other variant, worse, or neither; counts are exact: fewer or more.

    Args:
        comparison: of two variants.
        p_holm: its corrected p value.
        level: below which a p value counts, e.g. 0.05.
    """
    from ffnfold.comparisons import LESS_IS_BETTER

    gain = comparison.estimate - (1 if comparison.scale == "ratio" else 0)
    if comparison.metric == _COUNTS:
        return f"{'fewer than' if gain < 0 else 'more than' if gain else 'as many as'} {comparison.reference}"
    if p_holm >= level:
        return f"indistinguishable from {comparison.reference}"
    better = gain < 0 if comparison.metric in LESS_IS_BETTER else gain > 0
    return f"{'better' if better else 'worse'} than {comparison.reference}"


def read_questions(path: str | Path) -> pd.DataFrame:
    """Read the table that `answer` gave and `comparisons.write_comparisons` wrote.

    Raises:
        InputError: the file is missing or has other columns.
    """
    from ffnfold.comparisons import read_comparisons

    return read_comparisons(path, columns())
