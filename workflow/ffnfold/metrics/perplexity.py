"""Sliding-window perplexity of a whole split, each window weighted by the tokens it scores.

The published artefacts are switches: rows cut and scored one by one, padding scored with the text, fewer items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from ffnfold.errors import InputError
from ffnfold.records import Value
from ffnfold.statistics import interval_words, ratio_interval


@dataclass(frozen=True)
class Plan:
    """What is scored: tokens, the windows over them, and how much text they are.

    Attributes:
        ids: int64 (tokens,).
        windows: (start, end, scored) each; see `plan_windows`.
        attend: bool (tokens,), False at padding; None where nothing is padded.
        size: of the text: `tokens`, `words` (between white space) and `bytes` (UTF-8).
    """

    ids: np.ndarray
    windows: list[tuple[int, int, int]]
    attend: np.ndarray | None
    size: dict[str, int]


def plan_windows(tokens: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """Windows (start, end, scored) over a text: no token is scored twice.

    A window reads tokens start..end-1 and scores its last `scored` ones, so each has at least window - stride
    tokens of context where the text has them. The text's first token is never scored, and with stride = window no
    window's first token is: nothing inside the window predicts it.

    Source: the strided evaluation of transformers' documentation on perplexity of fixed-length models.

    Raises:
        ValueError: fewer than two tokens, or a stride outside 1..window.
    """
    if tokens < 2:
        raise ValueError(f"perplexity needs at least 2 tokens, got {tokens}")
    if not 1 <= stride <= window:
        raise ValueError(f"stride must be between 1 and the window {window}, got {stride}")
    windows, scored_to = [], 1
    for start in range(0, tokens, stride):
        end = min(start + window, tokens)
        if end > scored_to:
            scored = min(end - scored_to, end - start - 1)
            if scored:  # a last window of one token would score none
                windows.append((start, end, scored))
            scored_to = end
        if end == tokens:
            break
    return windows


def plan(tokenizer: Any, rows: Sequence[str], join: str, settings: Mapping[str, Any]) -> Plan:
    """The windows of a split under a protocol.

    Args:
        tokenizer: the base's tokenizer.
        rows: the split's rows.
        join: what stands between two rows of the whole text.
        settings: window, stride, batch_size, and the artefacts: truncate_tokens, score_padding, pad_to, max_items.

    Raises:
        InputError: there are not two tokens to score.
    """
    if settings["truncate_tokens"] or settings["score_padding"]:
        return _plan_rows(tokenizer, rows, settings)
    text = join.join(rows)
    ids = np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int64)
    _require_tokens(len(ids) if text.split() else 0)
    windows = plan_windows(len(ids), settings["window"], settings["stride"])
    if settings["max_items"] and settings["max_items"] < len(windows):
        windows = windows[: settings["max_items"]]
        ids = ids[: windows[-1][1]]
        text = tokenizer.decode(ids)
    return Plan(ids, windows, None, {"tokens": len(ids), **_words_and_bytes([text])})


def _plan_rows(tokenizer: Any, rows: Sequence[str], settings: Mapping[str, Any]) -> Plan:
    """Each non-empty row as a window of its own, cut, and padded with end-of-text where the pads are scored."""
    longest = settings["truncate_tokens"] or settings["window"]
    texts = [row for row in rows if row.strip()][: settings["max_items"]]
    encoded = (
        tokenizer(texts, add_special_tokens=False, truncation=True, max_length=longest)["input_ids"] if texts else []
    )
    encoded = [row for row in encoded if row]
    lengths = [len(row) for row in encoded]
    if settings["score_padding"]:
        for first in range(0, len(encoded), settings["batch_size"]):
            batch = slice(first, first + settings["batch_size"])
            full = longest if settings["pad_to"] == "full" else max(lengths[batch])
            encoded[batch] = [row + [tokenizer.eos_token_id] * (full - len(row)) for row in encoded[batch]]
    ends = np.cumsum([len(row) for row in encoded], dtype=np.int64)
    windows = [
        (int(end) - len(row), int(end), len(row) - 1) for row, end in zip(encoded, ends, strict=True) if len(row) > 1
    ]
    _require_tokens(2 if windows else 0)
    attend = np.concatenate([np.arange(len(row)) < n for row, n in zip(encoded, lengths, strict=True)])
    size = _words_and_bytes([tokenizer.decode(row[:n]) for row, n in zip(encoded, lengths, strict=True)])
    ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in encoded])
    return Plan(ids, windows, attend if settings["score_padding"] else None, {"tokens": len(ids), **size})


def _words_and_bytes(texts: Sequence[str]) -> dict[str, int]:
    return {"words": sum(len(t.split()) for t in texts), "bytes": sum(len(t.encode("utf-8")) for t in texts)}


def _require_tokens(tokens: int) -> None:
    if tokens < 2:
        raise InputError(
            "the text to score holds no two tokens",
            where="data.language_modeling, the split that metrics.perplexity names",
            got=f"{tokens} tokens",
            remedy="give a split with text",
        )


def score_windows(
    model: nn.Module,
    ids: np.ndarray,
    windows: list[tuple[int, int, int]],
    batch_size: int,
    device: str,
    attend: np.ndarray | None = None,
) -> np.ndarray:
    """Nats of the scored tokens of each window.

    Args:
        model: causal language model.
        ids: int64 (tokens,).
        windows: from `plan_windows`.
        attend: bool (tokens,), False where no position attends to a token; None attends to all.
        batch_size: windows in a batch; only windows of one length share a batch, so nothing is padded.

    Returns:
        float64 (windows,): summed negative log-likelihood (nats).
    """
    model.to(device).eval()
    nats = np.zeros(len(windows))
    lengths: dict[int, list[int]] = {}
    for index, (start, end, _) in enumerate(windows):
        lengths.setdefault(end - start, []).append(index)
    with torch.inference_mode():
        for length, members in lengths.items():
            for first in range(0, len(members), batch_size):
                batch = members[first : first + batch_size]
                taken = np.stack([ids[windows[i][0] : windows[i][1]] for i in batch])
                # The last token is predicted, never read: a window may hold one more than the model's positions.
                inputs, targets = torch.from_numpy(taken[:, :-1]).to(device), torch.from_numpy(taken[:, 1:]).to(device)
                mask = None
                if attend is not None:
                    mask = np.stack([attend[windows[i][0] : windows[i][1] - 1] for i in batch])
                    mask = torch.from_numpy(mask).to(device).long()
                logits = model(input_ids=inputs, attention_mask=mask).logits.float()
                losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
                losses = losses.view(len(batch), length - 1).double()
                for row, i in enumerate(batch):
                    nats[i] = float(losses[row, length - 1 - windows[i][2] :].sum())
    return nats


def figures(
    nats: np.ndarray,
    scored: np.ndarray,
    size: Mapping[str, int],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> dict[str, Value]:
    """Token perplexity, word perplexity and bits per byte with intervals.

    All three are monotone functions of nats a token, since the text's tokens, words and bytes are fixed; so the
    interval of the one, by bootstrap over windows, gives the intervals of the others. The few tokens that no window
    scores count at the mean rate, so that words and bytes are those of the whole text.

    Args:
        nats, scored: (windows,) summed nats and scored tokens.
        size: of the text: `tokens`, `words` (between white space) and `bytes` (UTF-8).

    Raises:
        FloatingPointError: the model's loss is not finite.
    """
    if not np.isfinite(nats).all():
        bad = int((~np.isfinite(nats)).sum())
        raise FloatingPointError(
            f"the model's loss is not finite in {bad} of {len(nats)} windows; its weights diverged"
        )
    rate = ratio_interval(nats, scored, statistics["confidence"], statistics["resamples"], generator)
    tokens, n = size["tokens"], len(nats)
    method = interval_words(n, "windows", statistics["resamples"])

    def value(convert: Any, unit: str) -> Value:
        middle, low, high = (convert(r) for r in rate)
        return Value(middle, unit, low, high, n, method)

    def bounded_exp(exponent: float) -> float:
        return math.exp(min(exponent, 700.0))  # a word perplexity beyond 1e304 says no more than that

    return {
        "token_perplexity": value(bounded_exp, "perplexity"),
        "word_perplexity": value(lambda r: bounded_exp(r * tokens / size["words"]), "perplexity"),
        "bits_per_byte": value(lambda r: r * tokens / size["bytes"] / math.log(2), "bits/byte"),
    }


def measure(
    models: Mapping[str, nn.Module],
    tokenizer: Any,
    rows: Sequence[str],
    join: str,
    settings: Mapping[str, Any],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
    device: str,
) -> tuple[dict[str, Value], pd.DataFrame]:
    """Score one text with one or more models (before and after recovery) over the same windows.

    Args:
        models: suffix of the figures' names -> model, e.g. {"": recovered, "_before_recovery": built}.
        tokenizer: the base's tokenizer.
        rows, join: the split's rows, and what stands between them.
        settings: as of `plan`.
        statistics: confidence, resamples.

    Returns:
        The figures, and one row for each window: start, scored tokens, nats by model.
    """
    planned = plan(tokenizer, rows, join, settings)
    scored = np.asarray([w[2] for w in planned.windows])
    items = pd.DataFrame({"start_token": [w[0] for w in planned.windows], "scored_tokens": scored})
    values: dict[str, Value] = {}
    for suffix, model in models.items():
        nats = score_windows(model, planned.ids, planned.windows, settings["batch_size"], device, planned.attend)
        items[f"nats{suffix}"] = nats
        found = figures(nats, scored, planned.size, statistics, generator)
        values.update({f"{name}{suffix}": figure for name, figure in found.items()})
    return values, items
