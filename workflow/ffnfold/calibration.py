"""Running the base over calibration text, and keeping the alignment that comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ffnfold.alignment import StreamingCorrelation, align_pairs, collect_pre_activations
from ffnfold.architecture import family_of, ffn_names, layer_count
from ffnfold.calibration_text import calibration_batches
from ffnfold.errors import InputError
from ffnfold.files import atomic_path, write_atomic

#: Bytes of the products of neurons kept at a time, 2.5 GiB: all 66 pairs of blocks of the smallest GPT-2.
PRODUCT_BYTES = 5 * 2**29
MATCHED_COLUMNS = ("mean_correlation_matched", "mean_cosine_matched")


def align_activations(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[str],
    join: str,
    settings: Mapping[str, Any],
    generator: np.random.Generator,
    device: str,
    threads: int,
    product_bytes: int = PRODUCT_BYTES,
) -> tuple[np.ndarray, list[dict]]:
    """Match the FFN neurons of all pairs of blocks by the correlation of their pre-activations on a text.

    The pairs are taken in chunks. For each the base reads the same text again, and each is matched before the next.

    Args:
        model: a causal language model in evaluation mode.
        rows, join, settings, generator, device: as for `calibration_batches`.
        threads: the CPU threads of the model; and pairs matched at a time.
        product_bytes: bound on the bytes of a chunk's products; one pair is taken where it alone needs more. Changes
            nothing of what is found.

    Returns:
        Permutations and rows as from `align_pairs`, of all pairs.

    Raises:
        InputError: the windows are longer than the model's positions, or there is too little text.
    """
    batches = calibration_batches(model, tokenizer, rows, join, settings, generator, device, threads)
    layers, neurons = _shape(model)
    pairs = list(combinations(range(layers), 2))
    size = max(1, product_bytes // (4 * neurons**2))
    permutations, found = np.tile(np.arange(neurons, dtype=np.int32), (layers, layers, 1)), []
    for start in range(0, len(pairs), size):
        chunk = pairs[start : start + size]
        # The sums have no name here, so they are gone before those of the next chunk are made.
        orders, more = align_pairs(correlate_layers(model, batches, chunk), threads)
        for a, b in chunk:
            permutations[a, b], permutations[b, a] = orders[a, b], orders[b, a]
        found += more
    return permutations, found


def _shape(model: nn.Module) -> tuple[int, int]:
    """Blocks of a model, and neurons of one of its FFNs."""
    config = model.config.to_dict()
    bias = ffn_names(family_of(config), 0)["in_bias"]
    return layer_count(config), model.get_parameter(bias).numel()


def correlate_layers(
    model: nn.Module, batches: Iterable[Mapping[str, Tensor]], pairs: Sequence[tuple[int, int]] | None = None
) -> StreamingCorrelation:
    """Let the model read the batches of `calibration_batches` once; correlations of the pairs, None for all."""
    layers, neurons = _shape(model)
    statistics = StreamingCorrelation(layers, neurons, pairs)
    for activations in collect_pre_activations(model, family_of(model.config.to_dict()), layers, batches):
        statistics.add(activations)
    return statistics


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
