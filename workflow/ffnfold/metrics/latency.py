"""Latency of one greedy generation, timed alternately with the baseline in one process.

Every generation has the same length, unless a protocol lets the model stop (an artefact).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ffnfold.floors.bandwidth import bound, read_bytes, read_seconds
from ffnfold.records import Value
from ffnfold.statistics import order_interval, quantile_interval

PROMPTS = 32  # different prompts, used in turn


def generate_greedy(model: nn.Module, prompt: Tensor, tokens: int, stop_at_end_of_text: bool = False) -> Tensor:
    """Greedy continuation of exactly `tokens` tokens with a KV cache, whatever the model says.

    Args:
        prompt: int64 (1, prompt tokens).
        stop_at_end_of_text: end-of-text ends it, so that `tokens` is only the most it makes.

    Returns:
        int64 (1, prompt + tokens).
    """
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=tokens,
        min_new_tokens=None if stop_at_end_of_text else tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=model.config.eos_token_id,
    )


def time_pairs(
    baseline: nn.Module, variant: nn.Module, prompts: Tensor, settings: Mapping[str, Any], device: str
) -> pd.DataFrame:
    """Time baseline and variant in turn on the same prompts; which goes first alternates.

    Args:
        baseline, variant: causal language models on `device`.
        prompts: int64 (prompts, prompt tokens), used in turn.
        settings: warmup, repeats, generated_tokens, stop_at_end_of_text.

    Returns:
        One row for each repeat: baseline_ms, variant_ms, baseline_tokens and variant_tokens (generated).
    """
    tokens, stops = settings["generated_tokens"], settings["stop_at_end_of_text"]

    def run(model: nn.Module, index: int) -> tuple[float, int]:
        prompt = prompts[index % len(prompts)][None].to(device)
        if device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        output = generate_greedy(model, prompt, tokens, stops)
        if device != "cpu":
            torch.cuda.synchronize()
        elapsed_ms = (time.perf_counter() - start) * 1000
        made = output.shape[1] - prompt.shape[1]
        assert stops or made == tokens, f"generated {made} tokens, not {tokens}"
        return elapsed_ms, made

    with torch.inference_mode():
        for index in range(settings["warmup"]):
            run(baseline, index)
            run(variant, index)
        rows = []
        for index in range(settings["repeats"]):
            first, second = (baseline, variant) if index % 2 == 0 else (variant, baseline)
            times = {id(first): [run(first, index)]}
            times.setdefault(id(second), []).append(run(second, index))
            (baseline_ms, baseline_tokens), (variant_ms, variant_tokens) = (
                times[id(baseline)][0],
                times[id(variant)][-1],
            )
            rows.append((baseline_ms, variant_ms, baseline_tokens, variant_tokens))
    return pd.DataFrame(rows, columns=["baseline_ms", "variant_ms", "baseline_tokens", "variant_tokens"])


def figures(items: pd.DataFrame, statistics: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Value]:
    """Median, 90th percentile, generated tokens and tokens a second, and the paired speedup (above 1 is faster).

    The speedup is the median over repeats of baseline / variant, so that slow moments of the machine cancel.
    """
    level, resamples, n = statistics["confidence"], statistics["resamples"], len(items)
    method = f"percentile bootstrap over repeats, {resamples} resamples"
    variant_ms = items["variant_ms"].to_numpy()

    def median(scores: np.ndarray, unit: str) -> Value:
        middle, low, high = quantile_interval(scores, 0.5, level, resamples, generator)
        return Value(middle, unit, low, high, n, method)

    slow, low, high, bounded = order_interval(variant_ms, 0.9, level)
    limits = (
        "order statistics" if bounded else "order statistics; too few repeats for an upper limit, the slowest stands in"
    )
    return {
        "latency_ms_median": median(variant_ms, "ms"),
        "latency_ms_p90": Value(slow, "ms", low, high, n, limits),
        "speedup": median(items["baseline_ms"].to_numpy() / variant_ms, "x"),
        "generated_tokens_per_s": median(1000 * items["variant_tokens"].to_numpy() / variant_ms, "tokens/s"),
        "generated_tokens": median(items["variant_tokens"].to_numpy(dtype=float), "tokens"),
    }


def measure(
    baseline: nn.Module,
    variant: nn.Module,
    ids: np.ndarray,
    settings: Mapping[str, Any],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
    device: str,
) -> tuple[dict[str, Value], pd.DataFrame]:
    """Latency of a variant beside the baseline.

    Args:
        ids: int64 (tokens,), text to take prompts from; at least one prompt long.
        settings: prompt_tokens, generated_tokens, warmup, repeats, threads, and the artefacts stop_at_end_of_text
            and max_items (different prompts at most).

    Returns:
        The figures, `latency_ms_memory_bound` of the shortest generation among them, and one row for each timed pair
        (milliseconds, tokens).
    """
    length = settings["prompt_tokens"]
    prompts = torch.from_numpy(ids[: len(ids) // length * length].reshape(-1, length))[
        : settings["max_items"] or PROMPTS
    ]
    torch.set_num_threads(settings["threads"])
    items = time_pairs(baseline.to(device).eval(), variant.to(device).eval(), prompts, settings, device)
    seconds = read_seconds(read_bytes(variant), device, settings["threads"], settings["repeats"])
    memory_bound = bound(seconds, int(items["variant_tokens"].min()))
    return {**figures(items, statistics, generator), "latency_ms_memory_bound": memory_bound}, items
