"""Running the base over calibration text, and keeping the alignment that comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ffnfold.alignment import StreamingCorrelation, collect_pre_activations
from ffnfold.architecture import family_of, ffn_names, layer_count, require_positions
from ffnfold.device import resolve_device
from ffnfold.errors import InputError
from ffnfold.files import atomic_path, write_atomic
from ffnfold.text import token_windows

BATCH_TOKENS = 2048


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
    """Correlate the FFN pre-activations of all pairs of blocks on training text.

    The text is cut into full windows, so no position is padding.

    Args:
        rows, join: the training split.
        settings: tokens, sequence_length.

    Raises:
        InputError: the windows are longer than the model's positions, or there is too little text.
    """
    config = model.config.to_dict()
    family, layers = family_of(config), layer_count(config)
    length = min(settings["sequence_length"], settings["tokens"])
    require_positions(config, length, "alignment.sequence_length")
    torch.set_num_threads(threads)
    model.to(resolve_device(device))
    windows = token_windows(tokenizer, rows, join, length, -(-settings["tokens"] // length), generator)

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        mask = torch.ones(windows.shape, dtype=torch.int64)
        mask.view(-1)[settings["tokens"] :] = 0  # exactly as many positions as asked for
        per_batch = max(1, BATCH_TOKENS // length)
        for ids, seen in zip(torch.from_numpy(windows).split(per_batch), mask.split(per_batch), strict=True):
            yield {"input_ids": ids.to(model.device), "attention_mask": seen.to(model.device)}

    neurons = model.get_parameter(ffn_names(family, 0)["in_bias"]).numel()
    statistics = StreamingCorrelation(layers, neurons)
    for activations in collect_pre_activations(model, family, layers, batches()):
        statistics.add(activations)
    return statistics


def save_alignment(permutations: np.ndarray, rows: list[dict], path: str, similarity_path: str) -> None:
    """Write the permutations as safetensors, int32 (layers, layers, neurons), and the correlations as CSV."""
    with atomic_path(path) as temporary:
        save_file({"permutations": torch.from_numpy(permutations)}, temporary)
    columns = ["layer_a", "layer_b", "mean_correlation_unmatched", "mean_correlation_matched", "positions"]
    write_atomic(similarity_path, pd.DataFrame(rows, columns=columns).to_csv(index=False).encode())


def load_alignment(path: str | Path) -> np.ndarray:
    """Read the permutations, int32 (layers, layers, neurons).

    Raises:
        InputError: the file is not what `save_alignment` writes.
    """
    try:
        return load_file(path)["permutations"].numpy()
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(
            "the alignment cannot be read",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            remedy="delete the file and run the workflow again",
        ) from error
