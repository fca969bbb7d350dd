"""Sliding-window perplexity of a whole split, each window weighted by the tokens it scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from ffnfold.records import Value
from ffnfold.statistics import ratio_interval


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


def score_windows(
    model: nn.Module, ids: np.ndarray, windows: list[tuple[int, int, int]], batch_size: int, device: str
) -> np.ndarray:
    """Nats of the scored tokens of each window.

    Args:
        model: causal language model.
        ids: int64 (tokens,).
        windows: from `plan_windows`.
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
                inputs = torch.from_numpy(np.stack([ids[windows[i][0] : windows[i][1]] for i in batch])).to(device)
                logits = model(input_ids=inputs).logits[:, :-1].float()
                losses = functional.cross_entropy(logits.flatten(0, 1), inputs[:, 1:].flatten(), reduction="none")
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
    method = f"percentile bootstrap over windows, {statistics['resamples']} resamples"

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
    text: str,
    settings: Mapping[str, Any],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
    device: str,
) -> tuple[dict[str, Value], pd.DataFrame]:
    """Score one text with one or more models (before and after recovery) over the same windows.

    Args:
        models: suffix of the figures' names -> model, e.g. {"": recovered, "_before_recovery": built}.
        tokenizer: the base's tokenizer.
        text: the whole split.
        settings: window, stride, batch_size.
        statistics: confidence, resamples.

    Returns:
        The figures, and one row for each window: start, scored tokens, nats by model.
    """
    ids = np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int64)
    windows = plan_windows(len(ids), settings["window"], settings["stride"])
    scored = np.asarray([w[2] for w in windows])
    items = pd.DataFrame({"start_token": [w[0] for w in windows], "scored_tokens": scored})
    size = {"tokens": len(ids), "words": len(text.split()), "bytes": len(text.encode("utf-8"))}
    values: dict[str, Value] = {}
    for suffix, model in models.items():
        nats = score_windows(model, ids, windows, settings["batch_size"], device)
        items[f"nats{suffix}"] = nats
        found = figures(nats, scored, size, statistics, generator)
        values.update({f"{name}{suffix}": figure for name, figure in found.items()})
    return values, items
