"""Floors of ROUGE: the prompt alone, the prompt followed by noise, and three sentences of the article."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ffnfold.metrics.summarization import lead, score_texts, split_sentences
from ffnfold.records import Value

SENTENCES = 3


def prompt_texts(
    tokenizer: Any, articles: Sequence[str], settings: Mapping[str, Any], generator: np.random.Generator
) -> list[str]:
    """Each article's first `article_tokens` tokens: what is scored of a model that adds nothing to its prompt."""
    return [_decode(tokenizer, row) for row in _beginnings(tokenizer, articles, settings)]


def prompt_noise_texts(
    tokenizer: Any, articles: Sequence[str], settings: Mapping[str, Any], generator: np.random.Generator
) -> list[str]:
    """Each article's first tokens and `generated_tokens` others drawn uniformly: a model that adds noise.

    Special tokens are not drawn: decoding would leave them out.
    """
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    noise = generator.choice(ordinary, size=(len(articles), settings["generated_tokens"]))
    rows = _beginnings(tokenizer, articles, settings)
    return [_decode(tokenizer, [*row, *drawn.tolist()]) for row, drawn in zip(rows, noise, strict=True)]


def lead3_texts(
    tokenizer: Any, articles: Sequence[str], settings: Mapping[str, Any], generator: np.random.Generator
) -> list[str]:
    """Each article's first three sentences, of the whole article.

    Source: See, Liu and Manning 2017, table 1 (lead-3 baseline).
    """
    return [lead(article, SENTENCES) for article in articles]


def random3_texts(
    tokenizer: Any, articles: Sequence[str], settings: Mapping[str, Any], generator: np.random.Generator
) -> list[str]:
    """Three random sentences of each article in their order; all of them where it has fewer."""
    texts = []
    for article in articles:
        sentences = split_sentences(article)
        picks = generator.choice(len(sentences), min(SENTENCES, len(sentences)), replace=False) if sentences else []
        texts.append("\n".join(sentences[index] for index in sorted(picks)))
    return texts


WRITERS: dict[str, Callable[..., list[str]]] = {
    "prompt": prompt_texts,
    "prompt_noise": prompt_noise_texts,
    "lead3": lead3_texts,
    "random3": random3_texts,
}


def _beginnings(tokenizer: Any, articles: Sequence[str], settings: Mapping[str, Any]) -> list[list[int]]:
    """Token ids of each article's first `article_tokens` tokens."""
    if not articles:
        return []
    cut = {"truncation": True, "max_length": settings["article_tokens"]}
    return tokenizer(list(articles), add_special_tokens=False, **cut)["input_ids"]


def _decode(tokenizer: Any, row: Sequence[int]) -> str:
    return tokenizer.decode(row, skip_special_tokens=True).strip()


def measure(
    name: str,
    tokenizer: Any,
    train: Mapping[str, Any] | None,
    test: Mapping[str, Any],
    join: str | None,
    settings: Mapping[str, Any],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> tuple[dict[str, Value], pd.DataFrame]:
    """ROUGE of a text that no model wrote, against the references of the models' articles.

    Args:
        name: a key of `WRITERS`.
        train, join: not used.
        test: columns id, article, highlights.
        settings: article_tokens, generated_tokens, max_items.

    Returns:
        The figures (F1, 0 to 1), and one row for each article: id, generated, and every score.
    """
    test = {column: list(test[column])[: settings["max_items"]] for column in ("id", "article", "highlights")}
    texts = WRITERS[name](tokenizer, test["article"], settings, generator)
    return score_texts(texts, test["highlights"], test["id"], statistics, generator)
