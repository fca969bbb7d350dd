"""Perplexity of whole documents a word and a byte, as lm-evaluation-harness's task `wikitext` takes it.

It can be compared between tokenizers, since words and bytes are those of the text as it is published. The text itself
is read with WikiText's tokenisation undone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from ffnfold.errors import InputError
from ffnfold.metrics.perplexity import score_windows
from ffnfold.records import Value
from ffnfold.statistics import interval_words, ratio_interval


def _literal(spaced: str, written: str) -> tuple[str, str]:
    return re.escape(spaced), written


def _enclosed(opening: str, closing: str) -> tuple[str, str]:
    """Marks that lose the white space inside them."""
    return rf"{re.escape(opening)}\s*([^{re.escape(closing)}]*?)\s*{re.escape(closing)}", rf"{opening}\1{closing}"


#: What WikiText's tokenisation wrote -> what is written; each in the whole text, in this order.
_RULES = [
    (re.compile(pattern), written)
    for pattern, written in (
        _literal("s '", "s'"),
        (r"/' [0-9]/", "/'[0-9]/"),  # a slip of the harness, which defines the figure: every digit becomes this
        *(_literal(f" @{mark}@ ", mark) for mark in "-,."),
        *(_literal(f" {mark} ", f"{mark} ") for mark in ":;.!?,"),
        *(_enclosed(*pair) for pair in ("()", "[]", "{}", '""', "''")),
        *(_literal(" ".join("=" * depth), "=" * depth) for depth in (4, 3, 2)),
        _literal(" ° ", "°"),
        _literal(" \n", "\n"),
        _literal("\n ", "\n"),
        _literal(" N ", " 1 "),
        _literal(" 's", "'s"),
    )
]


def documents(rows: Sequence[str], join: str) -> list[str]:
    """The documents of a split: its text cut before every first-level heading (" = Title = "), empty ones left out.

    Rows are lines where one of them has a line end of its own or is a heading: `join` may then hold blank lines that
    are no part of the text, and each row takes the one line end it has or lacks. Other rows are joined by `join`. The
    hub's copy of WikiText has "" for the blank lines, which are " " in the files that it was made from; where the other
    lines are as in those files, the space is put back, so that bytes are counted as in the published text.

    Args:
        rows: the split's rows.
        join: what the study puts between two rows.

    Source: the data set EleutherAI/wikitext_document_level (62 documents in WikiText-2's test split).
    """
    pages: list[list[str]] = [[]]
    for line in _whole_text(rows, join).split("\n"):
        if _is_title(line):
            pages.append([])
        pages[-1].append(line)
    return [page for lines in pages if (page := "\n".join(lines)).strip()]


def _whole_text(rows: Sequence[str], join: str) -> str:
    if not any(row.endswith("\n") or _is_title(row) for row in rows):
        return join.join(rows)
    spaced = all(row.startswith(" ") and row.endswith((" ", " \n")) for row in rows if row.strip())
    blank = " " if spaced else ""
    return "".join(row if row.endswith("\n") else f"{row or blank}\n" for row in rows)


def _is_title(line: str) -> bool:
    """Whether a line is a heading of the first level; those below it open with "= =" and close so."""
    line = line.strip()
    return line.startswith("= ") and line.endswith(" =") and not (line.startswith("= =") or line.endswith("= ="))


def detokenise(text: str) -> str:
    """WikiText's text as it would be written: without the spaces that its tokenisation put in.

    Source: lm-evaluation-harness, task `wikitext`, whose text this is character by character.
    """
    for pattern, written in _RULES:
        text = pattern.sub(written, text)
    return text


def plan_rolling(tokens: int, window: int) -> list[tuple[int, int, int]]:
    """Windows (start, end, scored) over one document of `tokens` tokens that begins after an end-of-text token.

    Positions count the end-of-text as 0. Each window scores the next `window` tokens, and reads as many: the first
    from the end-of-text on, each later one from the token before. The last window scores what is left and reaches back
    until it is full. The ids of a window are one more than it reads, as `score_windows` takes them.

    Source: lm-evaluation-harness, rolling log-likelihood with a context of one token.
    """
    windows = []
    for first in range(0, tokens, window):
        last = min(first + window, tokens)
        windows.append((max(0, last - window), last + 1, last - first))
    return windows


def plan_documents(
    tokenizer: Any, documents: Sequence[str], window: int
) -> tuple[np.ndarray, list[tuple[int, int, int]], np.ndarray]:
    """Tokens and windows of several documents, each after an end-of-text token of its own.

    Args:
        tokenizer: the base's tokenizer.
        documents: as published; they are detokenised here.
        window: tokens that a window reads, at most the model's positions.

    Returns:
        int64 (tokens,) ids; windows (start, end, scored) for `score_windows`, none across two documents; int64
        (windows,) index of each window's document.
    """
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids: list[int] = []
    windows: list[tuple[int, int, int]] = []
    owners: list[int] = []
    for index, document in enumerate(documents):
        encoded = tokenizer(detokenise(document), add_special_tokens=False, verbose=False)["input_ids"]
        planned = plan_rolling(len(encoded), window)
        windows += [(len(ids) + start, len(ids) + end, scored) for start, end, scored in planned]
        owners += [index] * len(planned)
        ids += [begin, *encoded]
    return np.asarray(ids, dtype=np.int64), windows, np.asarray(owners, dtype=np.int64)


def count_words(document: str) -> int:
    """Pieces of a document between white space; the empty ones before its first and after its last word count too.

    Source: lm-evaluation-harness, task `wikitext`, which counts so.
    """
    return len(re.split(r"\s+", document))


def measure(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[str],
    join: str,
    settings: Mapping[str, Any],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
    device: str,
) -> tuple[dict[str, Value], pd.DataFrame]:
    """Word perplexity, byte perplexity and bits per byte of a split's documents, with intervals over documents.

    Args:
        model: causal language model.
        tokenizer: the base's tokenizer.
        rows, join: the split's rows, and what the study puts between them.
        settings: `window` (tokens) and `batch_size` (windows).
        statistics: confidence, resamples.

    Returns:
        word_perplexity, byte_perplexity (both without unit) and bits_per_byte; and one row for each document: scored
        tokens, words, bytes, nats.

    Raises:
        InputError: the split holds no words.
        FloatingPointError: the model's loss is not finite.

    Source: lm-evaluation-harness, task `wikitext`: exp(nats / words), exp(nats / bytes), nats / bytes / log 2.
    """
    texts = documents(rows, join)
    if not texts:
        raise InputError(
            "the text to score holds no words",
            where="data.language_modeling, the split that is scored",
            got=f"{len(rows)} rows",
            remedy="give a split with text",
        )
    ids, windows, owners = plan_documents(tokenizer, texts, settings["window"])
    nats = score_windows(model, ids, windows, settings["batch_size"], device)
    if not np.isfinite(nats).all():
        bad = int((~np.isfinite(nats)).sum())
        raise FloatingPointError(
            f"the model's loss is not finite in {bad} of {len(nats)} windows; its weights diverged"
        )
    scored = np.asarray([w[2] for w in windows])
    items = pd.DataFrame(
        {
            "document": np.arange(len(texts)),
            "scored_tokens": np.bincount(owners, scored, len(texts)).astype(np.int64),
            "words": [count_words(text) for text in texts],
            "bytes": [len(text.encode("utf-8")) for text in texts],
            "nats": np.bincount(owners, nats, len(texts)),
        }
    )
    return _figures(items, nats, scored, statistics, generator), items


def _figures(
    items: pd.DataFrame,
    nats: np.ndarray,
    scored: np.ndarray,
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> dict[str, Value]:
    """The figures from documents; one document alone says nothing of its kind, so its windows are resampled instead."""
    alone = len(items) == 1
    numerators = nats if alone else items["nats"].to_numpy()
    n = len(numerators)
    unit_of_resampling = "windows of the one document" if alone else "documents"
    method = interval_words(n, unit_of_resampling, statistics["resamples"])

    def rate(size: str) -> tuple[float, float, float]:
        """Nats a word or byte, low, high; a window has the words that its share of the tokens amounts to."""
        sizes = scored * (items[size].sum() / scored.sum()) if alone else items[size].to_numpy()
        return ratio_interval(numerators, sizes, statistics["confidence"], statistics["resamples"], generator)

    def exponent(nats_each: float) -> float:
        return math.exp(min(nats_each, 700.0))  # a perplexity beyond 1e304 says no more than that

    word, byte = rate("words"), rate("bytes")
    return {
        "word_perplexity": Value(*_value(word, exponent, "perplexity"), n, method),
        "byte_perplexity": Value(*_value(byte, exponent, "perplexity"), n, method),
        "bits_per_byte": Value(*_value(byte, lambda nats_each: nats_each / math.log(2), "bits/byte"), n, method),
    }


def _value(rate: tuple[float, float, float], convert: Any, unit: str) -> tuple[float, str, float, float]:
    """Value, unit, low and high of a figure that rises with its rate."""
    middle, low, high = (convert(r) for r in rate)
    return middle, unit, low, high
