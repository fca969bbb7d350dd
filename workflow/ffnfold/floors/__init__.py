"""Floors: what needs no language model, measured on the same items under the same protocol as the models.

A figure of a model means something only above its floor. `FLOORS` names them; nothing heavy is imported to list it.
A floor's module has `measure(name, tokenizer, train, test, join, settings, statistics, generator)`; it is imported by
name, so a rule that runs a floor names the module among its inputs. `floors.bandwidth` is the floor of latency, taken
beside each variant, since it depends on the variant's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ffnfold.records import Value


@dataclass(frozen=True)
class Floor:
    """One entry of `FLOORS`.

    Args:
        metric: the metric whose figures and items it gives.
        title: what the report calls it.
        module: module under `ffnfold.floors` that holds `measure`.
        trains: it reads the training split.
    """

    metric: str
    title: str
    module: str
    trains: bool


FLOORS: dict[str, Floor] = {
    "unigram": Floor("perplexity", "token frequencies", "ngrams", True),
    "trigram": Floor("perplexity", "Kneser-Ney trigram", "ngrams", True),
    "majority": Floor("sentiment", "majority class", "reviews", True),
    "tfidf": Floor("sentiment", "bag of words and pairs", "reviews", True),
    "prompt": Floor("summarization", "the article's beginning", "summaries", False),
    "prompt_noise": Floor("summarization", "the article's beginning and random tokens", "summaries", False),
    "lead3": Floor("summarization", "first three sentences", "summaries", False),
    "random3": Floor("summarization", "three random sentences", "summaries", False),
}


def measure_floor(
    name: str,
    tokenizer: Any,
    train: Mapping[str, Any] | None,
    test: Mapping[str, Any],
    join: str | None,
    settings: Mapping[str, Any],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> tuple[dict[str, Value], pd.DataFrame]:
    """Measure one floor.

    Args:
        name: a key of `FLOORS`.
        tokenizer: the base's tokenizer.
        train: the training split's columns; None where the floor does not train.
        test: the columns of the split that the models are measured on.
        join: what stands between two rows of a whole text; only the perplexity's floors read it.
        settings: the metric's settings, as the models are measured with.
        statistics: confidence, resamples.
        generator: all of the floor's randomness.

    Returns:
        The figures and the items, with the names, units and columns of the metric's own `measure`.
    """
    module = import_module(f"ffnfold.floors.{FLOORS[name].module}")
    return module.measure(name, tokenizer, train, test, join, settings, statistics, generator)
