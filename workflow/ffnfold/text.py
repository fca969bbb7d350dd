"""From rows of text to the token windows that models read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ffnfold.errors import InputError

ENCODE_ROWS = 512
VERDICTS = ("\nVerdict: bad", "\nVerdict: good")  # by label: 0 negative, 1 positive


def training_texts(task: str, rows: dict[str, list[Any]], prompt: str) -> list[str]:
    """What a language model reads of a task's training rows.

    Articles are followed by `prompt` and their summary, so that the prompt means something to the model; reviews by a
    verdict line with their label. Only training rows are ever read so.
    """
    if task == "summarization":
        pairs = zip(rows["article"], rows["highlights"], strict=True)
        return [f"{article}{prompt} {highlights}" for article, highlights in pairs]
    if task == "sentiment":
        return [f"{text}{VERDICTS[int(label)]}" for text, label in zip(rows["text"], rows["label"], strict=True)]
    return list(rows["text"])


def encode_stream(tokenizer: Any, rows: Sequence[str], join: str, first: int = 0) -> Iterator[np.ndarray]:
    """Token ids of the rows as one text, from row `first` on and round to it, in pieces.

    Args:
        tokenizer: a fast tokenizer.
        rows: texts; `join` is put between two of them.
        first: index of the row to begin with.

    Yields:
        int64 vectors.
    """
    order = [*range(first, len(rows)), *range(first)]
    for start in range(0, len(order), ENCODE_ROWS):
        piece = join.join(rows[i] for i in order[start : start + ENCODE_ROWS]) + join
        yield np.asarray(tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int64)


def token_windows(
    tokenizer: Any, rows: Sequence[str], join: str, length: int, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Up to `count` windows of `length` tokens, cut without gaps from a random row on; never padded.

    Starting at a random row and reading on keeps the order of the text, which long-range recall needs.

    Returns:
        int64 (windows, length); fewer than `count` where the text is shorter.

    Raises:
        InputError: the text is shorter than one window.
    """
    first = int(generator.integers(len(rows))) if len(rows) else 0
    pieces, total = [], 0
    for ids in encode_stream(tokenizer, rows, join, first):
        pieces.append(ids)
        total += len(ids)
        if total >= count * length:
            break
    windows = min(count, total // length)
    if windows == 0:
        raise InputError(
            "the training text is shorter than one sequence",
            where="data, training split",
            got=f"{total} tokens in {len(rows)} rows",
            expected=f"at least {length}",
            remedy="give more text, or a shorter sequence_length",
        )
    return np.concatenate(pieces)[: windows * length].reshape(windows, length)


def training_order(windows: int, needed: int, generator: np.random.Generator) -> np.ndarray:
    """Indices of the windows to train on, in order: shuffled passes over all of them until `needed` are reached."""
    passes = [generator.permutation(windows) for _ in range(-(-needed // windows))]
    return np.concatenate(passes)[:needed]


def leading_tokens(tokenizer: Any, text: str, length: int, count: int) -> np.ndarray:
    """The first tokens of a text, enough for up to `count` prompts of `length`: int64 (tokens,).

    Raises:
        InputError: the text is shorter than one prompt.
    """
    # A byte-level token is at most a few dozen characters; 64 a token is read so as not to encode a whole corpus.
    ids = tokenizer(text[: 64 * length * count], add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) < length:
        raise InputError(
            "the test text is shorter than one prompt",
            where="metrics.latency.prompt_tokens",
            got=f"{len(ids)} tokens",
            expected=f"at least {length}",
            remedy="give more test text, or a shorter prompt",
        )
    return np.asarray(ids[: length * count], dtype=np.int64)
