"""The text that the base reads for its statistics: the same positions for the alignment and for the moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ffnfold.architecture import require_positions
from ffnfold.device import resolve_device
from ffnfold.errors import InputError
from ffnfold.text import pad_rows, token_windows

BATCH_TOKENS = 2048


def calibration_batches(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[str],
    join: str,
    settings: Mapping[str, Any],
    generator: np.random.Generator,
    device: str,
    threads: int,
) -> list[dict[str, Tensor]]:
    """Put a model where it is to run, and cut a text into batches for it.

    The text is cut into full windows, so no position is padding, unless `count_padding` asks for it. The windows are
    drawn here, so a second reading of the batches is of the same text.

    Args:
        model: a causal language model; moved to the device.
        rows, join: the split.
        settings: tokens, sequence_length, and the artefacts count_padding and max_items.
        device: `auto`, `cpu` or `cuda`.
        threads: torch's CPU threads.

    Returns:
        Batches of at most BATCH_TOKENS positions, or of one window: `input_ids`, `attention_mask` (1 at what is
        attended to) and `counted` (1 at what the statistics count), each int64 (windows, length) on the model's device.

    Raises:
        InputError: the windows are longer than the model's positions, or there is too little text.
    """
    length = min(settings["sequence_length"], settings["tokens"])
    require_positions(model.config.to_dict(), length, "alignment.sequence_length")
    torch.set_num_threads(threads)
    model.to(resolve_device(device))
    read = _padded if settings["count_padding"] else _packed
    arrays = read(tokenizer, rows, join, length, settings, generator)
    per_batch = max(1, BATCH_TOKENS // arrays[0].shape[1])
    parts = [torch.from_numpy(array).to(model.device).split(per_batch) for array in arrays]
    names = ("input_ids", "attention_mask", "counted")
    return [dict(zip(names, tensors, strict=True)) for tensors in zip(*parts, strict=True)]


def _packed(
    tokenizer: Any,
    rows: Sequence[str],
    join: str,
    length: int,
    settings: Mapping[str, Any],
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Full windows from a random row on: ids, attended and counted positions, each int64 (windows, length)."""
    windows = token_windows(tokenizer, rows, join, length, -(-settings["tokens"] // length), generator)
    counted = np.ones_like(windows)
    counted.reshape(-1)[settings["tokens"] :] = 0  # exactly as many positions as asked for
    return windows, counted, counted


def _padded(
    tokenizer: Any,
    rows: Sequence[str],
    join: str,
    length: int,
    settings: Mapping[str, Any],
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first non-empty rows, padded to the longest, their pads counted as if they were text (an artefact)."""
    texts = [row for row in rows if row.strip()][: settings["max_items"] or -(-settings["tokens"] // length)]
    if not texts:
        raise InputError(
            "the calibration text has no row with text",
            where="data.language_modeling",
            got=f"{len(rows)} rows",
            remedy="give more text",
        )
    encoded = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=length)["input_ids"]
    ids, attend = pad_rows(encoded, tokenizer.eos_token_id, max(map(len, encoded)))
    counted = np.ones_like(ids)
    counted.reshape(-1)[settings["tokens"] :] = 0
    return ids, attend, counted
