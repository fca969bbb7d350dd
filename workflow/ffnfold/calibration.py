"""Running the base over calibration text, and keeping the alignment that comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ffnfold.alignment import StreamingCorrelation, collect_pre_activations
from ffnfold.architecture import family_of, ffn_names, layer_count, require_positions
from ffnfold.device import resolve_device
from ffnfold.errors import InputError
from ffnfold.files import atomic_path, write_atomic
from ffnfold.text import pad_rows, token_windows

BATCH_TOKENS = 2048
MATCHED_COLUMNS = ("mean_correlation_matched", "mean_cosine_matched")


def correlate_layers(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[str],
    join: str,
    settings: Mapping[str, Any],
    generator: np.random.Generator,
    device: str,
    threads: int,
) -> StreamingCorrelation:
    """Correlate the FFN pre-activations of all pairs of blocks on a text.

    The text is cut into full windows, so no position is padding, unless `count_padding` asks for it.

    Args:
        rows, join: the split.
        settings: tokens, sequence_length, and the artefacts count_padding and max_items.

    Raises:
        InputError: the windows are longer than the model's positions, or there is too little text.
    """
    config = model.config.to_dict()
    family, layers = family_of(config), layer_count(config)
    length = min(settings["sequence_length"], settings["tokens"])
    require_positions(config, length, "alignment.sequence_length")
    torch.set_num_threads(threads)
    model.to(resolve_device(device))
    read = _padded if settings["count_padding"] else _packed
    ids, attend, counted = (torch.from_numpy(a) for a in read(tokenizer, rows, join, length, settings, generator))
    per_batch = max(1, BATCH_TOKENS // ids.shape[1])

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        for tensors in zip(*(t.split(per_batch) for t in (ids, attend, counted)), strict=True):
            names = ("input_ids", "attention_mask", "counted")
            yield {name: tensor.to(model.device) for name, tensor in zip(names, tensors, strict=True)}

    neurons = model.get_parameter(ffn_names(family, 0)["in_bias"]).numel()
    statistics = StreamingCorrelation(layers, neurons)
    for activations in collect_pre_activations(model, family, layers, batches()):
        statistics.add(activations)
    return statistics


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


class Alignment(NamedTuple):
    """What an alignment's file holds.

    Args:
        permutations: int32 (layers, layers, neurons); `[a, b]` puts layer b's neurons into layer a's order.
        similarity: float64 (layers, layers), 1 on the diagonal: mean correlation (or cosine) of matched neurons.
    """

    permutations: np.ndarray
    similarity: np.ndarray


def save_alignment(permutations: np.ndarray, rows: Sequence[Mapping], path: str, similarity_path: str) -> None:
    """Write an alignment as safetensors (`permutations`, `similarity`; see `Alignment`), and its rows as CSV.

    Args:
        permutations: int32 (layers, layers, neurons).
        rows: one for each pair of layers, from `align_pairs` or `align_by_weights`.
        path: the safetensors file.
        similarity_path: the CSV file.
    """
    similarity = np.eye(len(permutations))
    for row in rows:
        (matched,) = (value for name, value in row.items() if name in MATCHED_COLUMNS)
        similarity[row["layer_a"], row["layer_b"]] = similarity[row["layer_b"], row["layer_a"]] = matched
    with atomic_path(path) as temporary:
        tensors = {"permutations": permutations, "similarity": similarity}
        save_file({name: torch.from_numpy(array) for name, array in tensors.items()}, temporary)
    columns = list(rows[0]) if rows else ["layer_a", "layer_b"]  # a base of one block has no pairs
    write_atomic(similarity_path, pd.DataFrame(rows, columns=columns).to_csv(index=False).encode())


def load_alignment(path: str | Path) -> Alignment:
    """Read what `save_alignment` wrote.

    Raises:
        InputError: the file is not what `save_alignment` writes.
    """
    try:
        tensors = load_file(path)
        return Alignment(tensors["permutations"].numpy(), tensors["similarity"].numpy())
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(
            "the alignment cannot be read",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            remedy="delete the file and run the workflow again",
        ) from error
