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


def pad_rows(encoded: Sequence[Sequence[int]], pad: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of token ids filled up on the right.

    Args:
        encoded: rows of at most `length` ids.
        pad: the id to fill with.

    Returns:
        Ids and mask (1 at text), each int64 (rows, length).
    """
    ids = np.full((len(encoded), length), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(encoded):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def padded_rows(
    tokenizer: Any,
    rows: Sequence[str],
    length: int,
    count: int,
    labels_on_padding: bool,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Up to `count` random non-empty rows, each cut or padded with end-of-text to `length`.

    The published models were trained on such rows.

    Args:
        labels_on_padding: the pads are to be predicted, too; otherwise they carry no label.

    Returns:
        Token ids, attention mask (1 at text) and labels (-100 for none), each int64 (rows, length).

    Raises:
        InputError: there is no row with text.
    """
    filled = [row for row in rows if row.strip()]
    texts = [filled[i] for i in generator.permutation(len(filled))[:count]]
    if not texts:
        raise InputError(
            "the training text has no row with text",
            where="data, training split",
            got=f"{len(rows)} rows",
            remedy="give more text",
        )
    encoded = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=length)["input_ids"]
    ids, mask = pad_rows(encoded, tokenizer.eos_token_id, length)
    labels = ids if labels_on_padding else np.where(mask == 1, ids, -100)
    return ids, mask, labels


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
